"""Measures how fast the pipeline is, beside what the machine can do.

Usage:
    python bench.py                          # on data/300W_LP, else data/sample; landmark.pb, else models/landmark.pb
    python bench.py --data ~/300W_LP
    python bench.py --data ~/300W_LP --recipe    # instead: what each part of train.py's default recipe is worth
    python bench.py --data ~/300W_LP --loaders   # instead: landmark.pb in other programs, beside dlib's 68 points

Takes about five minutes, the second most of an hour, the third two minutes; leave the machine alone meanwhile.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import functools
import importlib.metadata
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf

import senet
import train
from freeze_graph import open_onnx, open_pb, open_tflite, to_onnx, to_tflite
from prepare_tfrecords import (
    IMAGE_SIZE,
    LANDMARKS,
    REAL_SET,
    SAMPLE_SET,
    example,
    face_name,
    find_faces,
    photo_path,
    read_face,
    write_records,
)
from test_pb import default_pb, load_graph
from train import add_training, anneal, parse_args, read_batches

CORES = len(os.sched_getaffinity(0))
BATCH = 32
WARM_STEPS, WINDOW_STEPS, WINDOWS = 10, 12, 9
READ_STEPS = 60
ROUNDS = 3
RECIPE_CROPS, RECIPE_SEEDS = 9_600, (0, 1)
FLOATS = 4  # bytes


# Training


def original_input(paths):
    """The original design's input: queue runners; each batch is fetched into Python, to be fed back."""
    _, record = tf.TFRecordReader().read(tf.train.string_input_producer([str(path) for path in paths]))
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([2 * LANDMARKS], tf.float32),
    }
    parsed = tf.io.parse_single_example(record, features)
    crop = tf.cast(tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [IMAGE_SIZE, IMAGE_SIZE, 3]), tf.float32)
    return tf.train.shuffle_batch([crop, parsed["label"]], BATCH, capacity=1000, min_after_dequeue=500)


def train_windows(design, paths, pipe):
    """A process that trains: answers each message by the crops a second of a window of steps, or by the ten ops that
    take most of a step, in a share of its time; None ends it."""
    tf.logging.set_verbosity(tf.logging.ERROR)
    if design == "original":
        senet.WIDENING = math.inf  # its batch norms read their own inputs
    args = parse_args(["--recipe", "best" if design == "default recipe" else "original"])
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
            dataset = read_batches(paths, BATCH, 0, 10**6 if design == "default recipe" else None)
            crops, labels, _ = tf.data.make_one_shot_iterator(dataset).get_next()
        train_op, scalars, _ = add_training(crops, labels, args)
        session.run(tf.global_variables_initializer())
        coordinator = tf.train.Coordinator()
        runners = tf.train.start_queue_runners(session, coordinator)

        def step(**options):
            if design == "original":
                feed.update(zip((crops, labels), session.run(fetched), strict=True))
            session.run([train_op, scalars["loss"]], feed, **options)

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
    """Of this process, in MB. Not getrusage's: that starts at the parent's."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def count_network():
    """Counts SPEC 4 for one crop.

    Returns:
        (floating-point operations, bytes that move through memory op by op), forward and backward. A convolution
        costs 2 operations a multiply-add forward and twice that backward, the first layer once (its input needs no
        gradient). Bytes: each op reads its inputs and writes its outputs once, batch norms read theirs twice.
    """
    flops = moved = 0

    def conv(side, size, inputs, outputs, is_first=False):
        nonlocal flops, moved
        flops += (2 if is_first else 3) * 2 * side**2 * size**2 * inputs * outputs
        read, written = side**2 * inputs, side**2 * outputs
        forward = read + written + 3 * written  # convolution; batch norm with ReLU
        backward = 3 * written + 5 * written + (read + written) * (1 if is_first else 2)  # ReLU; batch norm; both sides
        moved += FLOATS * (forward + backward)

    def pool(side, channels):
        nonlocal moved
        moved += FLOATS * 2 * (side**2 + (side // 2) ** 2) * channels

    def fully_connected(inputs, outputs):
        nonlocal flops
        flops += 3 * 2 * inputs * outputs

    side = IMAGE_SIZE
    conv(side, 3, 3, 32, is_first=True)
    pool(side, 32)
    for inputs, outputs in senet.BLOCKS:
        side //= 2
        conv(side, 1, inputs, inputs // 4)
        conv(side, 3, inputs // 4, inputs // 4)
        conv(side, 1, inputs // 4, outputs)
        pool(side, outputs)
        pool(side, inputs)
        conv(side // 2, 1, inputs, outputs)
        moved += FLOATS * (side // 2) ** 2 * outputs * (1 + 2 + 3 + 6)  # squeeze, product, sum; their gradients
        fully_connected(outputs, outputs // 16)
        fully_connected(outputs // 16, outputs)
    fully_connected(senet.BLOCKS[-1][1], 1024)
    fully_connected(1024, 2 * LANDMARKS)
    return flops, moved


def measure_machine():
    """(float32 operations a second of a large matrix product, bytes a second of a large copy, read and write)."""
    size = 3072
    with tf.Graph().as_default(), tf.Session() as session:
        matrix = tf.Variable(tf.random_normal([size, size]))
        product = tf.reduce_sum(tf.matmul(matrix, matrix))
        session.run(tf.global_variables_initializer())
        flops = 2 * size**3 / min(_seconds(lambda: session.run(product)) for _ in range(6))
    pairs = [(np.ones(2**25), np.empty(2**25)) for _ in range(CORES)]

    def copy():
        threads = [threading.Thread(target=np.copyto, args=(target, source)) for source, target in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return flops, 2 * CORES * pairs[0][0].nbytes / min(_seconds(copy) for _ in range(6))


def _seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def bench_training(records):
    """Prints the training table."""
    spawn = multiprocessing.get_context("spawn")
    designs = ["original", "train.py", "constant batch", "default recipe"]
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
    flops, moved = count_network()
    flop_rate, copy_rate = measure_machine()
    floor = min(flop_rate / flops, copy_rate / moved)

    print(f"\n## Training, batch {BATCH}: medians of {WINDOWS} alternating windows of {WINDOW_STEPS} steps\n")
    print("| design | crops/s | least | most | of original | of the floor | MB |\n|---|---|---|---|---|---|---|")
    base = statistics.median(rates["original"])
    for design in designs:
        median = statistics.median(rates[design])
        print(
            f"| {design} | {median:.0f} | {min(rates[design]):.0f} | {max(rates[design]):.0f} | {median / base:.2f}"
            f" | {median / floor:.0%} | {memory[design]:.0f} |"
        )
    print(f"\nCompute: {flops / 1e6:.0f} MFLOP a crop, {flop_rate / 1e9:.0f} GFLOP/s: {flop_rate / flops:.0f} crops/s.")
    print(f"Memory: {moved / 1e6:.0f} MB a crop, {copy_rate / 1e9:.1f} GB/s: {copy_rate / moved:.0f} crops/s.")
    print("Slowest ops of a train.py step: " + ", ".join(f"{kind} {share:.0%}" for kind, share in ops) + ".")


# Preparation


def plain_loop(landmarks, out):
    """Preparation as the original has it: one face after the other."""
    with tf.io.TFRecordWriter(str(out / "plain.tfrecords")) as writer:
        for path in landmarks:
            writer.write(example(face_name(path), *read_face(path)))


def bench_preparation(landmarks, out):
    """Prints the preparation table."""
    cv2.setNumThreads(1)
    photos = [str(photo_path(path)) for path in landmarks]
    for photo in photos:
        Path(photo).read_bytes()  # from the disk to the page cache
    works = {
        "cv2.imread alone, one core": lambda: [cv2.imread(photo) for photo in photos],
        "plain loop": lambda: plain_loop(landmarks, out),
    }
    for workers in range(1, CORES + 1):
        works[f"{workers} processes"] = lambda n=workers: write_records(landmarks, out, n)
    rates = collections.defaultdict(list)
    for _ in range(ROUNDS):
        for name, work in works.items():
            for path in out.iterdir():
                path.unlink()  # or the renamed file would also have to free the old one
            rates[name].append(len(photos) / _seconds(work))
    limit = CORES * statistics.median(rates["cv2.imread alone, one core"])
    print(
        f"\n## Preparation of {len(photos)} faces, TensorFlow loaded: medians of {ROUNDS} alternating rounds\n\n"
        "| | faces/s | least | most | of imread x cores |\n|---|---|---|---|---|"
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
        (ms, rate, _), _ = _in_process(time_loader, open_pb, pb, threads, crops)
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
    """What a function returns in a process of its own, and that process's peak memory in MB."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_answer, function, args).result()


def _answer(function, args):
    multiprocessing.set_start_method("fork", force=True)  # as in a script's own process
    tf.logging.set_verbosity(tf.logging.ERROR)
    return function(*args), _peak_memory()


def _prepare_times(landmarks, out, times):
    return len(landmarks) * times / _seconds(lambda: write_records(landmarks * times, out, CORES))


def _read_steps(paths):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = read_batches(paths, BATCH, 0, 10**6)
        crops = tf.data.make_one_shot_iterator(dataset).get_next()[0]
        session.run(crops)
        return READ_STEPS * BATCH / _seconds(lambda: [session.run(crops.op) for _ in range(READ_STEPS)])


def bench_growth(landmarks, out):
    """Prints the growth table."""
    print("\n## Growth\n\n| faces | prepared/s | MB | augmented/s | MB |\n|---|---|---|---|---|")
    for times in 1, 4, 16:
        prepared, prepare_memory = _in_process(_prepare_times, landmarks, out, times)
        read, read_memory = _in_process(_read_steps, [str(out / "train.tfrecords")])
        print(f"| {len(landmarks) * times} | {prepared:.0f} | {prepare_memory:.0f} | {read:.0f} | {read_memory:.0f} |")


# Recipe


def without_debias(crops, is_training=False, *args, batch_norm_decay=None, **options):
    """SENet with moving averages that start from their initial values."""
    return senet.SENet(crops, is_training, *args, **options)


def wing(error, width=10 / IMAGE_SIZE, curvature=2 / IMAGE_SIZE):
    """Feng et al., Wing Loss for Robust Facial Landmark Localisation, CVPR 2018, (5); 10 and 2 pixels, as there."""
    size = tf.abs(error)
    log = width * tf.log1p(size / curvature)
    return tf.where(size < width, log, size - width + width * math.log1p(width / curvature))


# Each is the default recipe but for what is named: arguments of train.py, and values in its place of its own.
RECIPES = {
    "the default recipe": ([], {}),
    "plain initial values": ([], {"start_awake": lambda mean_face, hidden: []}),
    "1,024 units at Xavier's scale": ([], {"HIDDEN_SCALE": 1, "HIDDEN_MEAN": 0.5}),
    "fully connected layers at the full learning rate": ([], {"CONNECTED_RATE": 1}),
    "weight decay 1e-5": (["--weight_decay", "1e-5"], {}),
    "moving averages not debiased": ([], {"SENet": without_debias}),
    "no averaging of weights": ([], {"AVERAGE_DECAY": 0.0}),
    "mean squared error": ([], {"LOSSES": {"best": tf.square}}),
    "Wing loss": ([], {"LOSSES": {"best": wing}}),
    "no augmentation but the mirror": ([], {"GROWTH_STEPS": math.inf}),
    "all the augmentation from the first step": ([], {"GROWTH_STEPS": 1e-9}),
    "the learning rate falling from the first step on": ([], {"anneal": lambda done: anneal((1 + done) / 2)}),
    "batch 16": (["--batch_size", "16"], {}),
    "the original recipe": (["--recipe", "original"], {}),
}


def train_recipe(name, seed, records):
    """Trains by one of RECIPES on RECIPE_CROPS crops: the test NME of the last step."""
    arguments, values = RECIPES[name]
    for place, value in values.items():
        setattr(train, place, value)
    with tempfile.TemporaryDirectory() as models, tf.Graph().as_default(), open(os.devnull, "w") as quiet:
        args = parse_args([*arguments, "--data", str(records), "--models", models, "--seed", str(seed)])
        args.steps = RECIPE_CROPS // args.batch_size
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            train.train(args)
        (events,) = Path(models, "logs").iterdir()
        curves = [value for event in tf.train.summary_iterator(str(events)) for value in event.summary.value]
    return [value.simple_value for value in curves if value.tag == "test/nme_inter_ocular"][-1]


def bench_recipe(records):
    """Prints the recipe table."""
    print(f"\n## Test NME after {RECIPE_CROPS} crops\n", flush=True)
    print("| | " + " | ".join(f"seed {seed}" for seed in RECIPE_SEEDS) + " |\n|---|" + "---|" * len(RECIPE_SEEDS))
    for name in RECIPES:
        errors = [_in_process(train_recipe, name, seed, records)[0] for seed in RECIPE_SEEDS]
        print(f"| {name} | " + " | ".join(f"{error:.2%}" for error in errors) + " |", flush=True)


# Loaders


def load_opencv(pb, threads):
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromTensorflow(str(pb))

    def run(crops):
        net.setInput(cv2.dnn.blobFromImages(crops))
        return net.forward()

    return run


def load_converted(convert, open_file, pb, threads):
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(convert(pb))
        return open_file(file.name, threads)


def load_dlib(pb, threads):
    """Another model. It takes a picture and a box, face by face, and has no threads. It gets the crop, and the box of
    the points that SPEC 2's margins leave in it."""
    import dlib

    package = importlib.metadata.distribution("face_recognition_models")
    model = package.locate_file("face_recognition_models/models/shape_predictor_68_face_landmarks.dat")
    predictor = dlib.shape_predictor(str(model))
    box = dlib.rectangle(*(round(share * IMAGE_SIZE) for share in (0.05, 0.22, 0.95, 0.95)))

    def run(crops):
        points = [[(point.x, point.y) for point in predictor(crop, box).parts()] for crop in crops]
        return np.reshape(points, [len(crops), 2 * LANDMARKS]) / IMAGE_SIZE

    return run


# Functions of a Path of landmark.pb and a number of threads; each returns a function from uint8 crops [N, 128, 128, 3]
# to points [N, 136] as shares of the crop.
LOADERS = {
    "TensorFlow, session": open_pb,
    f"OpenCV {cv2.__version__}, dnn": load_opencv,
    "TFLite": functools.partial(load_converted, to_tflite, open_tflite),
    "ONNX Runtime": functools.partial(load_converted, to_onnx, open_onnx),
    "dlib's own 68 points": load_dlib,
}


def time_loader(load, pb, threads, crops):
    """(ms at batch 1, faces/s with all crops in a batch, points on them), or the name of a package that is missing."""
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
    expected = None
    for name, load in LOADERS.items():
        for threads in (1,) if load is load_dlib else (1, 2):
            # Each in a process: the first session's threads are TensorFlow's for good.
            answer, _ = _in_process(time_loader, load, pb, threads, crops)
            if isinstance(answer, str):
                print(f"| {name} | | no {answer} here: left out | | |")
                break
            ms, rate, points = answer
            expected = points if expected is None else expected
            off = np.abs(points - expected).mean()
            print(f"| {name} | {threads} | {ms:.2f} | {rate:.0f} | {off:.0e} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL_SET if REAL_SET.is_dir() else SAMPLE_SET, metavar="DIR")
    parser.add_argument("--recipe", action="store_true", help="measure the recipe instead of the speed")
    parser.add_argument("--loaders", action="store_true", help="measure landmark.pb in other programs instead")
    args = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    landmarks = find_faces([args.data])
    if not landmarks:
        sys.exit(f"no faces in {args.data}: data/README.md says how to get some")
    cpu = next((line.partition(": ")[2] for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    print(f"{platform.platform()}, {cpu.strip()}, {CORES} cores, TensorFlow {tf.__version__}, OpenCV {cv2.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if args.recipe:
            write_records(landmarks, out, CORES)
            return bench_recipe(out)
        pb = default_pb()
        try:
            load_graph(pb)  # the processes below have no one to tell
        except ValueError as error:
            sys.exit(str(error))
        if args.loaders:
            return bench_loaders(pb, np.stack([read_face(path)[0] for path in landmarks[:BATCH]]))
        bench_inference(pb)
        bench_preparation(landmarks, out)
        bench_training(out)
        bench_growth(landmarks[:500], out)


if __name__ == "__main__":
    main()
