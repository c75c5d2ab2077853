"""Measures how fast the pipeline is.

Usage:
    python bench/speed.py                    # on data/300W_LP, else data/sample; landmark.pb, else models/landmark.pb
    python bench/speed.py --data ~/300W_LP
    python bench/speed.py --data ~/300W_LP --loaders   # instead: landmark.pb in other programs, beside dlib's 68 points

Takes about five minutes, with --loaders two; leave the machine alone meanwhile.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.startup import CORES  # first: TensorFlow reads its settings as it is imported

# isort: split

import argparse
import collections
import concurrent.futures
import functools
import importlib.metadata
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
from landmark.cli import command
from landmark.export import FORMATS
from landmark.inference import default_model
from landmark.points import IMAGE_SIZE, LANDMARKS
from landmark.recipe import DEFAULT, ORIGINAL
from landmark.records import read_batches, to_record, write_records
from landmark.runtimes import load_opencv, load_session
from senet import DEFAULT_NETWORK, SENet
from train import add_training

BATCH = 32
STEPS = 10**6  # of the whole run, for its learning rate
WARM_STEPS, WINDOW_STEPS, WINDOWS = 10, 12, 9
READ_STEPS = 60
ROUNDS = 3


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


def augment_fully(number, *batch):
    """augment_batch of the default recipe, at full strength."""
    return augment_batch(DEFAULT, 0, DEFAULT.augment_ramp_steps + number, *batch)


def train_windows(design, paths, pipe):
    """Trains in a process of its own, as messages ask.

    "window": answers with the crops a second of WINDOW_STEPS steps. "ops": answers with the ten slowest ops of a step,
    list of (op, fraction of the time). None: answers with the peak memory in MB, and ends.
    """
    recipe, network = ORIGINAL, SENet
    if design == "default":
        recipe, network = DEFAULT, functools.partial(SENet, network=DEFAULT_NETWORK)
    with tf.Graph().as_default(), tf.Session() as session:
        feed = {}
        if design == "original":
            fetched = original_input(paths)
            crops, labels = (tf.placeholder(tf.float32, tensor.shape) for tensor in fetched)
        elif design == "constant batch":
            rng = np.random.default_rng(0)
            crops = tf.Variable(rng.uniform(0, 255, [BATCH, IMAGE_SIZE, IMAGE_SIZE, 3]).astype(np.float32), False)
            labels = tf.Variable(rng.uniform(0, 1, [BATCH, 2 * LANDMARKS]).astype(np.float32), False)
        else:
            dataset = read_batches(paths, BATCH, 0, augment_fully if design == "default" else None)
            crops, labels, *_ = tf.data.make_one_shot_iterator(dataset).get_next()
        training = add_training(crops, labels, recipe, STEPS, network)
        session.run(tf.global_variables_initializer())
        coordinator = tf.train.Coordinator()
        runners = tf.train.start_queue_runners(session, coordinator)

        def step(**options):
            if design == "original":
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
    designs = ["original", "train.py", "constant batch", "default"]
    pipes, rates, memory = {}, collections.defaultdict(list), {}
    for design in designs:
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
    print("| design | crops/s | least | most | of original | MB |\n|---|---|---|---|---|---|")
    base = statistics.median(rates["original"])
    for design in designs:
        median = statistics.median(rates[design])
        print(
            f"| {design} | {median:.0f} | {min(rates[design]):.0f} | {max(rates[design]):.0f} | {median / base:.2f}"
            f" | {memory[design]:.0f} |"
        )
    print("\nSlowest ops of a train.py step: " + ", ".join(f"{kind} {share:.0%}" for kind, share in ops) + ".")


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
        "| | faces/s | least | most | of cv2.imread on all cores |\n|---|---|---|---|---|"
    )
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.0f} | {min(values):.0f} | {max(values):.0f} | {median / limit:.0%} |")


# Inference


def bench_inference(pb):
    """Prints the inference table."""
    print(f"\n## Inference, {pb}\n\n| threads | ms at batch 1 | faces/s at batch {BATCH} |\n|---|---|---|")
    crops = np.zeros([BATCH, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8)
    for threads in sorted({1, CORES}):
        (ms, rate, _), _ = _in_process(time_loader, load_session, pb, threads, crops)
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


def _in_process(function, *args):
    """(what a function returns in a process of its own, the peak memory of that process in MB)."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_answer, function, args).result()


def _answer(function, args):
    return function(*args), _peak_memory()


def _prepare_times(annotations, out, times):
    return len(annotations) * times / _seconds(lambda: prepare(annotations * times, out))


def _read_steps(paths):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = read_batches(paths, BATCH, 0, augment_fully)
        crops = tf.data.make_one_shot_iterator(dataset).get_next()[0]
        session.run(crops)
        return READ_STEPS * BATCH / _seconds(lambda: [session.run(crops.op) for _ in range(READ_STEPS)])


def bench_growth(annotations, out):
    """Prints the growth table."""
    print("\n## Growth\n\n| faces | prepared/s | MB | augmented/s | MB |\n|---|---|---|---|---|")
    for times in 1, 4, 16:
        prepared, prepare_memory = _in_process(_prepare_times, annotations, out, times)
        read, read_memory = _in_process(_read_steps, [str(out / "train.tfrecords")])
        print(
            f"| {len(annotations) * times} | {prepared:.0f} | {prepare_memory:.0f} | {read:.0f} | {read_memory:.0f} |"
        )


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
            answer, _ = _in_process(time_loader, load, pb, threads, crops)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = REAL_SET if REAL_SET.is_dir() else SAMPLE_SET
    parser.add_argument("--data", type=Path, default=data, metavar="DIR", help=f"({REAL_SET}, else {SAMPLE_SET})")
    parser.add_argument("--loaders", action="store_true", help="measure landmark.pb in other programs instead")
    args = parser.parse_args()
    annotations = find_annotations([args.data])
    cpu = next((line.partition(": ")[2] for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(f"{platform.platform()}, {cpu.strip()}, {CORES} cores, TensorFlow {tf.__version__}, OpenCV {cv2.__version__}")
    pb = default_model()
    if args.loaders:
        bench_loaders(pb, np.stack([read_face(annotation).crop for annotation in annotations[:BATCH]]))
        if shutil.which("node"):
            bench_web(pb, BATCH)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        bench_inference(pb)
        bench_preparation(annotations, out)
        bench_training(out)
        bench_growth(annotations[:500], out)


if __name__ == "__main__":
    main()
