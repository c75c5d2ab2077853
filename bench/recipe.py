"""Ablates the default recipe and compares the networks, by test NME.

Usage:
    python bench/recipe.py --data ~/300W_LP                            # the recipe without each part: most of an hour
    python bench/recipe.py --data ~/300W_LP --network                  # every network of senet.py: three hours
    python bench/recipe.py --data ~/300W_LP --network original deep    # these networks: two hours

A network's size and speed are printed first, after a minute; leave the machine alone until then.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.startup import describe_device  # first: TensorFlow reads its settings as it is imported

# isort: split

import collections
import concurrent.futures
import functools
import json
import math
import multiprocessing
import statistics
import tempfile
import time

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.annotations import REAL_SET, find_annotations, read_faces, split_faces
from landmark.checkpoints import RUN
from landmark.cli import command, script_parser
from landmark.export import FORMATS, PB, freeze
from landmark.points import IMAGE_SIZE
from landmark.recipe import DEFAULT, ORIGINAL
from landmark.records import find_record_files, read_manifest, write_records
from landmark.training import add_test_set, measure
from senet import NETWORKS, SENet, add_live_start
from train import add_training, next_batch

CROPS, SEEDS = 9_600, (0, 1)
NETWORK = "original"  # on which the parts of the recipe are measured: it has the 1,024 units
NETWORK_CROPS = 48_000, 320_000
BATCH = 32
ROUNDS, WINDOW_STEPS, WARM_STEPS, CALLS = 9, 10, 6, 20  # of the timings, in which the networks take turns

# name: (Recipe, crops in a batch)
VARIANTS = {
    "the default recipe": (DEFAULT, 32),
    "plain initial values": (DEFAULT._replace(live_start=False), 32),
    "1,024 units at Xavier's scale": (DEFAULT._replace(hidden_scale=1, hidden_mean=0.5), 32),
    "fully connected layers at the full learning rate": (DEFAULT._replace(fc_lr_multiplier=1), 32),
    "weight decay 1e-5": (DEFAULT._replace(weight_decay=1e-5), 32),
    "batch norm's decay without warm-up": (DEFAULT._replace(bn_decay_warmup=False), 32),
    "no averaging of weights": (DEFAULT._replace(ema_decay=0), 32),
    "mean squared error": (DEFAULT._replace(loss="l2"), 32),
    "no augmentation but the mirror": (DEFAULT._replace(augment_ramp_steps=math.inf), 32),
    "all the augmentation from the first step": (DEFAULT._replace(augment_ramp_steps=0), 32),
    "the learning rate falling from the first step on": (DEFAULT._replace(cosine_start=0), 32),
    "batch 16": (DEFAULT, 16),
    "the original recipe": (ORIGINAL, 32),
}


def _add_training(recipe, network, batch_size, steps, seed, records, start=0):
    """Adds the training of a network, whose first batch is number `start`, to the default graph: Training."""
    tf.set_random_seed(seed)
    paths, frontal = find_record_files(records, "train"), read_manifest(records).frontal
    crops, labels = next_batch(paths, recipe, batch_size, seed, start, frontal)
    with tf.name_scope("train"):
        return add_training(crops, labels, recipe, steps, functools.partial(SENet, network=network))


def train_variant(recipe, network, batch_size, crops, seed, records):
    """Trains on a number of crops: the test NME (inter-ocular) after the last step."""
    steps = crops // batch_size
    with tf.Graph().as_default(), tf.Session() as session:
        training = _add_training(recipe, network, batch_size, steps, seed, records)
        build = functools.partial(SENet, network=network)
        test = add_test_set(find_record_files(records, "test"), batch_size, training.averages, build)
        mean_face = read_manifest(records).mean_face
        live_start = add_live_start(training.end_points, mean_face, recipe.hidden_scale, recipe.hidden_mean)
        session.run(tf.global_variables_initializer())
        for op in live_start if recipe.live_start else []:
            session.run(op)
        for _ in range(steps):
            session.run(training.step)
        return measure(session, test).inter_ocular


def _in_process(function, *arguments):
    """What a function returns in a process of its own: TensorFlow keeps its threads, and the memory of a training."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# Networks


def network_size(network):
    """(number of parameters, number of multiply-adds for a crop) of a network."""
    with tf.Graph().as_default() as graph:
        SENet(tf.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3]), network=network)
        sums = [op for op in graph.get_operations() if op.type in ("Conv2D", "MatMul")]
        parameters = sum(variable.shape.num_elements() for variable in tf.model_variables())
        return parameters, sum(
            op.outputs[0].shape.num_elements() * op.inputs[1].shape[:-1].num_elements() for op in sums
        )


def freeze_untrained(network, folder):
    """Writes landmark.pb of a network with its initial values into a new folder: its Path."""
    folder.mkdir()
    (folder / RUN).write_text(json.dumps({"network": network}))
    with tf.Graph().as_default(), tf.Session() as session:
        SENet(tf.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3]), network=network)
        session.run(tf.global_variables_initializer())
        checkpoint = tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    pb = folder / "landmark.pb"
    pb.write_bytes(freeze(checkpoint, np.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3], np.float32))[0])
    return pb


def _median_seconds(runs, calls):
    """The median time of a call of each function in a dict, which take turns: dict of the same keys."""
    times = collections.defaultdict(list)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            run()
            began = time.perf_counter()
            for _ in range(calls):
                run()
            times[name].append((time.perf_counter() - began) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def time_networks(pbs):
    """Seconds for one face in one thread: dict of (network, format) to float; pbs: dict of a network to its Path."""
    crop = np.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8)
    runs = {}
    for network, pb in pbs.items():
        tflite = pb.with_suffix(".tflite")
        FORMATS["tflite"].convert(pb, tflite, crop)
        for name, run in ("pb", PB.load(pb, 1)), ("tflite", FORMATS["tflite"].load(tflite, 1)):
            runs[network, name] = functools.partial(run, crop)
    return _median_seconds(runs, CALLS)


def time_training(networks, records):
    """Seconds for one step of the default recipe at its full augmentation: dict of a network to float."""
    runs = {}
    for network in networks:
        with tf.Graph().as_default():
            training = _add_training(DEFAULT, network, BATCH, 10**6, 0, records, DEFAULT.augment_ramp_steps)
            session = tf.Session()
            session.run(tf.global_variables_initializer())
        runs[network] = functools.partial(session.run, training.step)
        for _ in range(WARM_STEPS):
            runs[network]()
    return _median_seconds(runs, WINDOW_STEPS)


def bench_networks(networks, records):
    """Prints the table of networks: size, speed, and test NME at both lengths and seeds."""
    with tempfile.TemporaryDirectory() as folder:
        pbs = {network: freeze_untrained(network, Path(folder) / network) for network in networks}
        sizes = {network: pb.stat().st_size for network, pb in pbs.items()}
        face, step = _in_process(time_networks, pbs), _in_process(time_training, networks, records)
    trainings = [(crops, seed) for crops in NETWORK_CROPS for seed in SEEDS]
    columns = ["network", "parameters", "million multiply-adds", "pb MB", "ms TensorFlow", "ms TFLite", "crops/s"]
    columns += [f"NME {crops:,} crops, seed {seed}" for crops, seed in trainings]
    print("\n## Networks\n\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for network in networks:
        parameters, adds = network_size(network)
        cells = [network, f"{parameters:,}", f"{adds / 1e6:.1f}", f"{sizes[network] / 1e6:.2f}"]
        cells += [f"{1000 * face[network, name]:.2f}" for name in ("pb", "tflite")] + [f"{BATCH / step[network]:.0f}"]
        print("| " + " | ".join(cells), end="", flush=True)
        for crops, seed in trainings:
            error = _in_process(train_variant, DEFAULT, network, BATCH, crops, seed, records)
            print(f" | {error:.2%}", end="", flush=True)
        print(" |", flush=True)


# The recipe


def bench_recipe(records):
    """Prints the table of the recipe's parts."""
    print(f"\n## Test NME after {CROPS} crops\n\n| | {' | '.join(f'seed {seed}' for seed in SEEDS)} |")
    print("|---|" + "---|" * len(SEEDS), flush=True)
    for name, (recipe, batch_size) in VARIANTS.items():
        errors = [_in_process(train_variant, recipe, NETWORK, batch_size, CROPS, seed, records) for seed in SEEDS]
        print(f"| {name} | {' | '.join(f'{error:.2%}' for error in errors)} |", flush=True)


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, default=REAL_SET, metavar="DIR", help=f"({REAL_SET})")
    text = f"measure networks instead, these of {', '.join(NETWORKS)} (all)"
    parser.add_argument("--network", nargs="*", choices=NETWORKS, metavar="NAME", help=text)
    args = parser.parse_args()
    print(f"measuring {'the recipe' if args.network is None else 'networks'} on {args.data}, on {describe_device()}")
    annotations = find_annotations([args.data])
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder)
        write_records(split_faces(annotations), read_faces(annotations), records)
        if args.network is None:
            bench_recipe(records)
        else:
            bench_networks(args.network or list(NETWORKS), records)


if __name__ == "__main__":
    main()
