"""Measures how fast the pipeline is.

Usage:
    python bench/speed.py                    # on data/300W_LP, else data/sample; landmark.pb, else models/landmark.pb
    python bench/speed.py --data ~/300W_LP
    python bench/speed.py --data ~/300W_LP --growth    # instead: the scripts on 3,000 and on 61,225 faces
    python bench/speed.py --data ~/300W_LP --loaders   # instead: landmark.pb in other programs, beside dlib's 68 points

Takes about five minutes, with --growth five and 5 GB of disk, with --loaders two; leave the machine alone meanwhile.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.startup import CORES  # first: TensorFlow reads its settings as it is imported

# isort: split

import collections
import concurrent.futures
import contextlib
import functools
import glob
import importlib.metadata
import importlib.util
import itertools
import multiprocessing
import platform
import shutil
import statistics
import subprocess
import tempfile
import time

import cv2
import numpy as np
import tensorflow.compat.v1 as tf

from landmark.annotations import REAL_SET, SAMPLE_SET, find_annotations, read_face, read_faces, split_faces
from landmark.augment import augment_batch
from landmark.cli import command, script_parser
from landmark.export import FORMATS
from landmark.inference import default_model
from landmark.points import IMAGE_SIZE, LANDMARKS
from landmark.recipe import DEFAULT, ORIGINAL
from landmark.records import read_batches, read_records, to_record, write_records
from landmark.runtimes import load_opencv, load_session
from senet import DEFAULT_NETWORK, SENet
from train import add_training

BATCH = 32
STEPS = 10**6  # of the whole run, for its learning rate
WARM_STEPS, WINDOW_STEPS, WINDOWS = 10, 12, 9
ROUNDS = 3
# name: (Recipe, network, where its crops come from)
DESIGNS = {
    "original design": (ORIGINAL, "original", "queues"),
    "--recipe original --network original": (ORIGINAL, "original", "records"),
    "the same, constant batch": (ORIGINAL, "original", "constant"),
    "train.py": (DEFAULT, DEFAULT_NETWORK, "records"),
    "train.py, constant batch": (DEFAULT, DEFAULT_NETWORK, "constant"),
}
augment_fully = functools.partial(augment_batch, DEFAULT._replace(augment_ramp_steps=0), 0)  # seed 0
SETS = 3_000, 61_225  # faces; all of 300W_LP
FULL_STEPS = 150_000  # train.py's default


# Training


def original_input(paths):
    """A batch of the original design's input, by queue runners: each is fetched into Python and fed back."""
    _, record = tf.TFRecordReader().read(tf.train.string_input_producer([str(path) for path in paths]))
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([2 * LANDMARKS], tf.float32),
    }
    parsed = tf.io.parse_single_example(record, features)
    crop = tf.cast(tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [IMAGE_SIZE, IMAGE_SIZE, 3]), tf.float32)
    return tf.train.shuffle_batch([crop, parsed["label"]], BATCH, capacity=1000, min_after_dequeue=500)


def train_windows(design, paths, pipe):
    """Trains in a process of its own, as messages ask.

    "window": answers with the crops a second of WINDOW_STEPS steps. "ops": answers with the ten slowest ops of a step,
    list of (op, fraction of the time). None: answers with the peak memory in MB, and ends.
    """
    recipe, network, source = DESIGNS[design]
    network = functools.partial(SENet, network=network)
    with tf.Graph().as_default(), tf.Session() as session:
        feed = {}
        if source == "queues":
            fetched = original_input(paths)
            crops, labels = (tf.placeholder(tf.float32, tensor.shape) for tensor in fetched)
        elif source == "constant":
            rng = np.random.default_rng(0)
            crops = tf.Variable(rng.uniform(0, 255, [BATCH, IMAGE_SIZE, IMAGE_SIZE, 3]).astype(np.float32), False)
            labels = tf.Variable(rng.uniform(0, 1, [BATCH, 2 * LANDMARKS]).astype(np.float32), False)
        else:
            dataset = read_batches(paths, BATCH, 0, augment_fully if recipe.augment else None)
            crops, labels, *_ = tf.data.make_one_shot_iterator(dataset).get_next()
        training = add_training(crops, labels, recipe, STEPS, network)
        session.run(tf.global_variables_initializer())
        coordinator = tf.train.Coordinator()
        runners = tf.train.start_queue_runners(session, coordinator)

        def step(**options):
            if source == "queues":
                feed.update(zip((crops, labels), session.run(fetched), strict=True))
            session.run([training.step, training.scalars["loss"]], feed, **options)

        for _ in range(WARM_STEPS):
            step()
        pipe.send("warm")
        while message := pipe.recv():
            began = time.perf_counter()
            if message == "window":
                for _ in range(WINDOW_STEPS):
                    step()
                pipe.send(WINDOW_STEPS * BATCH / (time.perf_counter() - began))
            else:
                metadata = tf.RunMetadata()
                step(options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), run_metadata=metadata)
                pipe.send(_slowest_ops(metadata))
        pipe.send(_peak_memory())
        coordinator.request_stop()
        coordinator.join(runners, stop_grace_period_secs=5, ignore_live_threads=True)


def _slowest_ops(metadata):
    times = collections.Counter()
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            kind = node.timeline_label.partition(" = ")[2].partition("(")[0] or node.node_name
            times[kind] += node.all_end_rel_micros
    return [(kind, micros / times.total()) for kind, micros in times.most_common(10)]


def _peak_memory():
    """Of this process, in MB; getrusage's would start at the parent's."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def _seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def bench_training(records):
    """Prints the training table."""
    spawn = multiprocessing.get_context("spawn")
    pipes, rates, memory = {}, collections.defaultdict(list), {}
    for design in DESIGNS:
        pipes[design], far = spawn.Pipe()
        paths = [str(records / "train.tfrecords")]
        spawn.Process(target=train_windows, args=(design, paths, far), daemon=True).start()
        far.close()  # else recv would wait for ever on a process that died
        pipes[design].recv()
    for _ in range(WINDOWS):
        for design, pipe in pipes.items():
            pipe.send("window")
            rates[design].append(pipe.recv())
    pipes["train.py"].send("ops")
    ops = pipes["train.py"].recv()
    for design, pipe in pipes.items():
        pipe.send(None)
        memory[design] = pipe.recv()

    print(f"\n## Training, batch {BATCH}: medians of {WINDOWS} alternating windows of {WINDOW_STEPS} steps\n")
    print("| design | crops/s | slowest | fastest | relative to the original design | peak MB |")
    print("|---|---|---|---|---|---|")
    base = statistics.median(rates["original design"])
    for design in DESIGNS:
        median = statistics.median(rates[design])
        print(
            f"| {design} | {median:.0f} | {min(rates[design]):.0f} | {max(rates[design]):.0f} | {median / base:.2f}"
            f" | {memory[design]:.0f} |"
        )
    share = statistics.median(
        new / constant for new, constant in zip(rates["train.py"], rates["train.py, constant batch"], strict=True)
    )
    print(f"\ntrain.py cuts every crop anew and reaches {share:.2f} of its rate on one constant batch.")
    print("\nSlowest ops of a train.py step: " + ", ".join(f"{kind} {share:.0%}" for kind, share in ops) + ".")


def bench_augmentation(records):
    """Prints what cutting a crop anew costs."""
    faces = list(itertools.islice(read_records([records / "train.tfrecords"]), 20 * BATCH))
    images, labels, boxes, photos = zip(*((f.crop.tobytes(), f.label, f.box, f.photo) for f in faces), strict=True)
    times = []
    for start in range(0, len(faces), BATCH):
        part = slice(start, start + BATCH)
        began = time.thread_time()
        augment_fully(start, images[part], np.array(labels[part]), np.array(boxes[part]), photos[part])
        times.append(1000 * (time.thread_time() - began) / len(images[part]))
    print(f"\nCutting a crop anew from its photo takes {statistics.median(times):.2f} ms of one core.")


# Preparation


def plain_loop(annotations, out):
    """Preparation as in the original: one face after the other."""
    with tf.io.TFRecordWriter(str(out / "plain.tfrecords")) as writer:
        for annotation in annotations:
            writer.write(to_record(read_face(annotation)))


def prepare(annotations, out, workers=CORES):
    """Preparation as in prepare_tfrecords.py."""
    write_records(split_faces(annotations), read_faces(annotations, workers=workers), out)


def bench_preparation(annotations, out):
    """Prints the preparation table."""
    cv2.setNumThreads(1)
    photos = [str(annotation.photo) for annotation in annotations]
    for photo in photos:
        Path(photo).read_bytes()  # into the page cache
    works = {
        "cv2.imread alone, one core": lambda: [cv2.imread(photo) for photo in photos],
        "plain loop": lambda: plain_loop(annotations, out),
    }
    for workers in range(1, CORES + 1):
        works[f"{workers} processes"] = lambda n=workers: prepare(annotations, out, n)
    rates = collections.defaultdict(list)
    for _ in range(ROUNDS):
        for name, work in works.items():
            for path in out.iterdir():
                path.unlink()  # replacing a file would take the time to free the old one too
            rates[name].append(len(photos) / _seconds(work))
    limit = CORES * statistics.median(rates["cv2.imread alone, one core"])
    print(
        f"\n## Preparation of {len(photos)} faces, TensorFlow loaded: medians of {ROUNDS} alternating rounds\n\n"
        "| | faces/s | slowest | fastest | relative to cv2.imread on all cores |\n|---|---|---|---|---|"
    )
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.0f} | {min(values):.0f} | {max(values):.0f} | {median / limit:.0%} |")


# Inference


def in_process(function, *args):
    """What a function returns in a process of its own."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def bench_inference(pb):
    """Prints the inference table."""
    print(f"\n## Inference, {pb}\n\n| threads | ms at batch 1 | faces/s at batch {BATCH} |\n|---|---|---|")
    crops = np.zeros([BATCH, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8)
    for threads in sorted({1, CORES}):
        ms, rate, _ = in_process(time_loader, load_session, pb, threads, crops)
        print(f"| {threads} | {ms:.1f} | {rate:.0f} |")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "test_pb.py", "--pb", str(pb), "--output", folder]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not list(Path(folder).glob("[!.]*.jpg")):
                time.sleep(0.01)
            first = time.perf_counter() - began
    loading = _seconds(lambda: subprocess.run([sys.executable, "-c", "import tensorflow"], capture_output=True))
    print(
        f"\nFrom the shell to the first picture of test_pb.py: {first:.1f} s; import tensorflow alone: {loading:.1f} s."
    )


# Growth


def link_faces(annotations, folder, count):
    """Makes a set of `count` faces in the layout of 300W_LP, of links to the files of some of its faces."""
    for i in range(count):
        copy, which = divmod(i, len(annotations))
        photo, points = annotations[which].photo, annotations[which].points.path
        name = f"{photo.parent.name}{copy:04}"
        for target, place in (photo, folder / name), (points, folder / "landmarks" / name):
            place.mkdir(parents=True, exist_ok=True)
            (place / target.name).symlink_to(target.resolve())


def _resident(process):
    """Memory of a process and those that it started, without the page cache, in MB."""
    total = 0
    for pid in [process, *Path(f"/proc/{process}/task/{process}/children").read_text().split()]:
        with contextlib.suppress(OSError, IndexError):  # it has ended
            total += int(Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")[2].split()[0])
    return total / 1024


def watch_script(script, *arguments, appears=None):
    """Runs a script: (seconds until a file matches the glob `appears`; seconds in all; peak MB; what it prints)."""
    began, first, peak = time.perf_counter(), None, 0
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen([sys.executable, script, *map(str, arguments)], stdout=output) as process:
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    peak = max(peak, _resident(process.pid))
                if appears and first is None and glob.glob(str(appears)):
                    first = time.perf_counter() - began
                time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{script} failed")
        output.seek(0)
        return first, time.perf_counter() - began, peak, output.read()


def bench_growth(annotations, folder):
    """Prints the growth table; the sets, made of links to these faces, and their records go to a folder."""
    print(
        "| faces | prepared in | GB | MB | first step after | test pass | 200 steps, MB | crops/s | evaluate.py, MB |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for count in SETS:
        photos, records, models = (folder / f"{name}{count}" for name in ("photos", "records", "models"))
        link_faces(annotations, photos, count)
        _, prepared, prepare_memory, _ = watch_script("prepare_tfrecords.py", "--data", photos, "--out", records)
        size = sum(path.stat().st_size for path in records.glob("*.tfrecords")) / 1e9
        run = "train.py", "--data", records, "--models", models
        first, done, _, _ = watch_script(*run, "--steps", 1, appears=models / "*.index")
        _, _, train_memory, said = watch_script(*run, "--steps", 200)
        rate = float(said.rpartition(" images/s")[0].rpartition(" ")[2])
        _, _, memory, _ = watch_script("evaluate.py", "--pb", default_model(), "--records", records / "test.tfrecords")
        print(
            f"| {count:,} | {prepared:.0f} s | {size:.1f} | {prepare_memory:.0f} | {first:.1f} s | {done - first:.0f} s"
            f" | {train_memory:.0f} | {rate:.0f} | {memory:.0f} |",
            flush=True,
        )
    hours = FULL_STEPS * BATCH / rate / 3600
    print(f"\nA full training, {FULL_STEPS:,} steps: {hours:.0f} hours on these {CORES} cores.")


# Loaders: their last arguments are the Path of landmark.pb and a number of threads, as in landmark/runtimes.py


def load_converted(name, crops, pb, threads):
    """The model in one of FORMATS; crops: uint8 [N, 128, 128, 3], to calibrate integers on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        FORMATS[name].convert(pb, path, crops)
        return FORMATS[name].load(path, threads)


def load_dlib(pb, threads):
    """dlib's own model, which takes a picture and a box, face by face, and has no threads.

    It gets the crop, and the box that the points have in it by the crop's margins.
    """
    import dlib

    package = importlib.metadata.distribution("face_recognition_models")
    model = package.locate_file("face_recognition_models/models/shape_predictor_68_face_landmarks.dat")
    predictor = dlib.shape_predictor(str(model))
    box = dlib.rectangle(*(round(share * IMAGE_SIZE) for share in (0.05, 0.22, 0.95, 0.95)))

    def run(crops):
        points = [[(point.x, point.y) for point in predictor(crop, box).parts()] for crop in crops]
        return np.reshape(points, [len(crops), 2 * LANDMARKS]) / IMAGE_SIZE

    return run


def time_loader(load, pb, threads, crops):
    """(ms at batch 1, faces/s with all crops in a batch, points on them); or a str, which package is missing."""
    try:
        run = load(pb, threads)
    except ImportError as error:
        return error.name
    medians = []
    for batch in crops[:1], crops:
        times = [_seconds(lambda b=batch: run(b)) for _ in range(40)]
        medians.append(statistics.median(times[10:]))
    return 1000 * medians[0], len(crops) / medians[1], run(crops)


def bench_loaders(pb, crops):
    """Prints the loaders table."""
    print(f"\n## {pb} in other programs, on {len(crops)} crops\n")
    print(f"| | threads | ms at batch 1 | faces/s at batch {len(crops)} | mean difference |\n|---|---|---|---|---|")
    loaders = {
        "TensorFlow, session": load_session,
        f"OpenCV {cv2.__version__}, dnn": load_opencv,
        **{f"freeze_graph.py --{name}": functools.partial(load_converted, name, crops) for name in FORMATS},
        "dlib's own 68 points": load_dlib,
    }
    expected = None
    for name, load in loaders.items():
        for threads in (1,) if load is load_dlib else (1, 2):
            # Each in a process of its own: the first session fixes TensorFlow's threads for good.
            answer = in_process(time_loader, load, pb, threads, crops)
            if isinstance(answer, str):
                print(f"| {name} | | no {answer} here: left out | | |")
                break
            ms, rate, points = answer
            expected = points if expected is None else expected
            off = np.abs(points - expected).mean()
            print(f"| {name} | {threads} | {ms:.2f} | {rate:.0f} | {off:.0e} |", flush=True)


def bench_web(pb, batch):
    """Prints the row of ONNX Runtime Web in the loaders table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "landmark.onnx"
        FORMATS["onnx"].convert(pb, path, None)
        script = Path(__file__).with_name("web.mjs")
        done = subprocess.run(["node", script, path, str(batch)], capture_output=True, text=True)
    if done.returncode:
        print("| ONNX Runtime Web | | left out: npm install --prefix examples/web | | |")
    else:
        ms, rate = map(float, done.stdout.split())
        print(f"| ONNX Runtime Web | 1 | {ms:.2f} | {rate:.0f} | |")


@command
def main():
    parser = script_parser(__doc__)
    data = REAL_SET if REAL_SET.is_dir() else SAMPLE_SET
    parser.add_argument("--data", type=Path, default=data, metavar="DIR", help=f"({REAL_SET}, else {SAMPLE_SET})")
    parser.add_argument("--loaders", action="store_true", help="measure landmark.pb in other programs instead")
    parser.add_argument("--growth", action="store_true", help="measure the scripts on large sets instead")
    args = parser.parse_args()
    annotations = find_annotations([args.data])
    cpu = next((line.partition(": ")[2] for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(f"{platform.platform()}, {cpu.strip()}, {CORES} cores, TensorFlow {tf.__version__}, OpenCV {cv2.__version__}")
    pb = default_model()
    if args.loaders:
        bench_loaders(pb, np.stack([read_face(annotation).crop for annotation in annotations[:BATCH]]))
        if shutil.which("node") and importlib.util.find_spec("tf2onnx"):
            bench_web(pb, BATCH)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if args.growth:
            bench_growth(annotations, out)
            return
        bench_inference(pb)
        bench_preparation(annotations, out)
        bench_training(out)
        bench_augmentation(out)


if __name__ == "__main__":
    main()
