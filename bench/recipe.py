"""Measures what each part of the default recipe is worth: test NME after a short training without it.

Usage:
    python bench/recipe.py --data ~/300W_LP     # most of an hour
"""

import argparse
import concurrent.futures
import math
import multiprocessing
import sys
import tempfile
from pathlib import Path

import tensorflow.compat.v1 as tf

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.annotations import REAL_SET, find_annotations, read_faces  # noqa: E402
from landmark.augment import augment_batch  # noqa: E402
from landmark.files import one_line  # noqa: E402
from landmark.recipe import DEFAULT, ORIGINAL  # noqa: E402
from landmark.records import find_records, read_batches, summarize_records, write_records  # noqa: E402
from landmark.training import add_test_set, add_training, measure  # noqa: E402
from senet import start_awake  # noqa: E402

CROPS, SEEDS = 9_600, (0, 1)

# name: (Recipe, crops in a batch)
VARIANTS = {
    "the default recipe": (DEFAULT, 32),
    "plain initial values": (DEFAULT._replace(awake=False), 32),
    "1,024 units at Xavier's scale": (DEFAULT._replace(hidden_scale=1, hidden_mean=0.5), 32),
    "fully connected layers at the full learning rate": (DEFAULT._replace(connected_rate=1), 32),
    "weight decay 1e-5": (DEFAULT._replace(weight_decay=1e-5), 32),
    "moving averages not debiased": (DEFAULT._replace(debias=False), 32),
    "no averaging of weights": (DEFAULT._replace(average_decay=0), 32),
    "mean squared error": (DEFAULT._replace(loss="l2"), 32),
    "Wing loss": (DEFAULT._replace(loss="wing"), 32),
    "no augmentation but the mirror": (DEFAULT._replace(growth_steps=math.inf), 32),
    "all the augmentation from the first step": (DEFAULT._replace(growth_steps=1e-9), 32),
    "the learning rate falling from the first step on": (DEFAULT._replace(anneal_from=0), 32),
    "batch 16": (DEFAULT, 16),
    "the original recipe": (ORIGINAL, 32),
}


def train_variant(recipe, batch_size, seed, records):
    """Trains on CROPS crops: the test NME (inter-ocular) after the last step."""
    tf.logging.set_verbosity(tf.logging.ERROR)

    def augment(number, *batch):
        return augment_batch(recipe, seed, number, *batch)

    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        train_set = read_batches(find_records(records, "train"), batch_size, seed, augment if recipe.augment else None)
        crops, labels, _ = tf.data.make_one_shot_iterator(train_set).get_next()
        with tf.name_scope("train"):
            training = add_training(crops, labels, recipe, CROPS // batch_size)
        test = add_test_set(find_records(records, "test"), batch_size, training.averages)
        mean_face = summarize_records(records).mean_face
        wake = start_awake(training.end_points, mean_face, recipe.hidden_scale, recipe.hidden_mean)
        session.run(tf.global_variables_initializer())
        for op in wake if recipe.awake else []:
            session.run(op)
        for _ in range(CROPS // batch_size):
            session.run(training.step)
        return measure(session, test).inter_ocular


@one_line
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL_SET, metavar="DIR", help=f"({REAL_SET})")
    annotations = find_annotations([parser.parse_args().data])
    if not annotations:
        raise ValueError("no faces: data/README.md says how to get some, --data says where they are")
    with tempfile.TemporaryDirectory() as folder:
        write_records(annotations, read_faces(annotations), Path(folder))
        print(f"\n## Test NME after {CROPS} crops\n\n| | {' | '.join(f'seed {seed}' for seed in SEEDS)} |")
        print("|---|" + "---|" * len(SEEDS), flush=True)
        for name, (recipe, batch_size) in VARIANTS.items():
            errors = []
            for seed in SEEDS:  # each in a process: TensorFlow keeps what one training took
                with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    errors.append(pool.submit(train_variant, recipe, batch_size, seed, Path(folder)).result())
            print(f"| {name} | {' | '.join(f'{error:.2%}' for error in errors)} |", flush=True)


if __name__ == "__main__":
    main()
