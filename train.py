"""Trains the network of senet.py on the records of prepare_tfrecords.py.

Usage:
    python train.py                          # data/*.tfrecords -> checkpoints and logs in models/
    python train.py                          # again: goes on from the last checkpoint
    python train.py --network original --recipe original     # as contract 4 and 5 (landmark/README.md) have it
    python train.py --init models/landmark.ckpt               # from the model that comes with this repository on
    python train.py --data data/sample --models models/sample --steps 1800
    tensorboard --logdir models/logs         # the curves and pictures, while it runs
    TF_CONFIG=... python train.py            # a task of a cluster: README.md, "Several machines or GPUs"

Stop it with Ctrl-C at any time. models/ holds the last five checkpoints, written every 1,000 steps or 5 minutes, the
best by test NME (box), and run.json: what the run was started with.
"""

from landmark.ending import one_line, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse
import functools
import math
import os
import shlex
import time
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np

# TensorFlow reads it when it is imported, and without AVX-512 leaves it off: a step then takes 1.8 times as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from landmark.augment import augment_batch
from landmark.checkpoints import (
    BEST,
    LAST,
    alone,
    find_whole,
    is_due,
    keep_run,
    prefix_of,
    read_run,
    reason_of,
    restore,
    save,
    step_of,
)
from landmark.cluster import Alone, find_cluster
from landmark.recipe import RECIPES
from landmark.records import check_records, find_records, read_batches
from landmark.training import add_test_set, add_training, draw_test_crops, is_finite, measure
from senet import DEFAULT_NETWORK, NETWORKS, SENet, start_awake

CURVE_STEPS = 20  # between two points of the training curves
# What a run that goes on may have otherwise.
MAY_CHANGE = {"steps", "batch_size", "seed", "learning_rate", "decay_steps", "decay_rate", "keep_prob", "weight_decay"}


def describe(recipe, network, summary, steps, batch_size, seed):
    """What a run is started with, for run.json: dict."""
    choices = recipe._asdict()
    run = {"recipe": choices.pop("name"), "network": network, "label": summary.points, **choices}
    return run | {"steps": steps, "batch_size": batch_size, "seed": seed}


def add_run(cluster, paths, recipe, network, steps, batch_size, seed, start, summary, skip_damaged):
    """Adds the training of a task of `cluster` to the default graph, from the records of `paths` to its step: Training.

    The others are as train's; start: the number of steps that are done.
    """
    # With the same seed after a restart, or in another task, the same first records would come again.
    seed += start + steps * cluster.index
    tf.set_random_seed(seed)
    augment = None
    if recipe.augment:

        def augment(number, *batch):
            return augment_batch(recipe, seed, start + number, *batch)

    frontal = recipe.frontal_share if summary.frontal < recipe.frontal_share else None
    train_set = read_batches(paths, batch_size, seed, augment, frontal, skip_damaged)
    crops, labels, *_ = tf.data.make_one_shot_iterator(train_set).get_next()
    with tf.name_scope("train"):
        build = functools.partial(SENet, network=network)
        return add_training(crops, labels, recipe, steps, build, cluster.average)


def train(data, models, recipe, network, steps, batch_size, seed, init=None, skip_damaged=False, cluster=None):
    """Trains until a number of steps is done, from the last checkpoint in `models` on.

    Args:
        data: Path of the folder of the records.
        models: Path of the folder of the checkpoints and logs.
        recipe: Recipe.
        network: name of one of senet.NETWORKS.
        steps: batches in all.
        batch_size: crops in a batch.
        seed: int, of initial values, order, dropout and augmentation.
        init: path of a checkpoint whose weights a run that is new starts with, or None.
        skip_damaged: whether damaged records are left out; else they are an error.
        cluster: Cluster of the chief, whose graph is the default; None: this process trains alone.

    Returns:
        the lowest test NME (box), or None where there was nothing to do.

    Raises:
        ValueError: for what the user can mend; the message says how.
    """
    # Data
    cluster = cluster or Alone()
    train_paths, test_paths = cluster.share(find_records(data, "train")), find_records(data, "test")
    damaged = [] if skip_damaged else None
    summary = check_records(train_paths, test_paths, damaged)
    if damaged:
        print(f"{len(damaged)} damaged records are left out, the first of them {damaged[0]}")
    last, best = find_whole(models, LAST), find_whole(models, BEST)
    start = step_of(last) if last else 0
    if start >= steps:
        print(f"{last} has {start} steps of {steps}: nothing to do; a larger --steps goes on from there")
        return None
    if last:
        init = None  # the run has begun
    known = read_run(init) if init else {}
    for name, now in ("network", network), ("label", summary.points):
        if known.get(name, now) != now:
            raise ValueError(
                f"{init} has {name} {known[name]}, not {now}: give another --network, or records of the same"
            )
    run = describe(recipe, network, summary, steps, batch_size, seed)
    keep_run(models, run, run.keys() - MAY_CHANGE)

    # Graph
    training = add_run(cluster, train_paths, recipe, network, steps, batch_size, seed, start, summary, bool(damaged))
    curves = tf.summary.merge([tf.summary.scalar(f"train/{name}", value) for name, value in training.scalars.items()])
    # What is measured, and saved as the best, are the averages.
    build = functools.partial(SENet, network=network)
    test = add_test_set(test_paths, batch_size, training.averages, build, bool(damaged))
    averages = {variable.op.name: training.averages.average(variable) for variable in tf.model_variables()}
    savers = {  # relative paths, so that the folder can be moved
        LAST: tf.train.Saver(max_to_keep=None, save_relative_paths=True),
        BEST: tf.train.Saver(averages, max_to_keep=None, save_relative_paths=True),
    }
    wake = start_awake(training.end_points, summary.mean_face, recipe.hidden_scale, recipe.hidden_mean)

    # Session
    with cluster.session() as session, tf.summary.FileWriter(str(models / "logs")) as writer:
        session.run(tf.global_variables_initializer())
        if init:
            restore(session, init, {variable.op.name: variable for variable in tf.model_variables()})
            restore(session, init, averages)
        elif recipe.awake and not last:
            for op in wake:
                session.run(op)
        best_nme = np.inf
        if best:
            restore(session, best, averages)
            best_nme = measure(session, test).box
            print(f"best so far: {best}, test NME {best_nme:.2%} (box)")
        if last:
            restore(session, last)
            print(f"going on from {last}")
        cluster.start(session, start, run)
        # TensorBoard drops what a killed run wrote after this step.
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), start)

        # Loop
        losses, training_seconds = [], 0.0
        began = saved = time.monotonic()
        try:
            for step in tqdm(range(start + 1, steps + 1), "step", steps, initial=start, disable=None):
                at = time.monotonic()
                fetched = training.step, training.scalars, curves if step % CURVE_STEPS == 0 else ()
                _, values, curve = cluster.run(session, fetched)
                training_seconds += time.monotonic() - at
                losses.append(values["loss"])
                due = is_due(step, steps, time.monotonic() - saved)
                if not np.isfinite(values["total"]) or due and not is_finite(session):
                    raise ValueError(
                        f"the loss is {values['total']} at step {step}, at a learning rate of"
                        f" {values['learning_rate']:.2g}: try a lower --learning_rate;"
                        f" {find_whole(models, LAST) or 'no checkpoint'} is the last from before"
                    )
                if curve:
                    writer.add_summary(curve, step)
                if not due:
                    continue

                save(savers[LAST], session, models, LAST, step)
                saved = time.monotonic()
                errors = measure(session, test)
                if errors.box < best_nme:  # the inter-ocular distance of a profile is next to nothing
                    best_nme = errors.box
                    save(savers[BEST], session, models, BEST, step)
                rate = len(losses) * batch_size * cluster.tasks / training_seconds
                left = (time.monotonic() - began) / (step - start) * (steps - step)
                by_yaw = ", ".join(f"{side}: {error:.2%}" for side, error in errors.by_yaw.items())
                tqdm.write(
                    f"step {step}  loss {np.mean(losses):.5f}  test loss {errors.loss:.5f}"
                    f"  test NME {errors.inter_ocular:.2%}, box {errors.box:.2%} (yaw {by_yaw})"
                    f"  {rate:.0f} images/s  {timedelta(seconds=round(left))} left"
                )
                write_curves(writer, step, errors, rate, draw_test_crops(session, test))
                losses, training_seconds = [], 0.0
        except KeyboardInterrupt as stop:
            step = session.run(tf.train.get_global_step())
            if losses and is_finite(session):
                save(savers[LAST], session, models, LAST, step)
            stop.add_note(f" at step {step}; the same command goes on from {models}")
            raise
    return best_nme


def work(cluster, data, recipe, network, steps, batch_size, seed, skip_damaged=False):
    """Gives the chief of a cluster the gradients of batches of its own; the others are as train's.

    Args:
        cluster: Cluster of a worker.
    """
    paths = cluster.share(find_records(data, "train"))
    damaged = [] if skip_damaged else None
    summary = check_records(paths, [], damaged)
    run = describe(recipe, network, summary, steps, batch_size, seed)
    start = cluster.join(run)
    with cluster.graph():
        add_run(cluster, paths, recipe, network, steps, batch_size, seed, start, summary, bool(damaged))
        cluster.follow(steps, run)


def write_curves(writer, step, errors, rate, sheet):
    """Writes for TensorBoard what is measured now and then.

    Args:
        writer: tf.summary.FileWriter.
        step: int.
        errors: TestErrors.
        rate: images a second.
        sheet: uint8 [H, W, 3], BGR, the picture of draw_test_crops.
    """
    numbers = {
        "test/loss": errors.loss,
        "test/nme_inter_ocular": errors.inter_ocular,
        "test/nme_box": errors.box,
        "train/images_per_second": rate,
    } | {f"test/nme_box_yaw_{side}": error for side, error in errors.by_yaw.items()}
    values = [tf.Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
    jpeg = cv2.imencode(".jpg", sheet)[1].tobytes()
    picture = tf.Summary.Image(encoded_image_string=jpeg, height=sheet.shape[0], width=sheet.shape[1])
    values.append(tf.Summary.Value(tag="test/crops", image=picture))
    writer.add_summary(tf.Summary(value=values), step)


def _number(kind, low, high=math.inf):
    """An argparse type: a number of that kind in low..high."""

    def parse(text):
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}")
        return number

    parse.__name__ = kind.__name__
    return parse


def parse_args():
    """The command line: (argparse.Namespace, Recipe)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count, positive, share = _number(int, 1), _number(float, 1e-12), _number(float, 1e-12, 1)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the records (data)")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints, logs (models)")
    parser.add_argument("--recipe", choices=RECIPES, default="default", help="original: as contract 5 (default)")
    parser.add_argument("--network", choices=NETWORKS, default=DEFAULT_NETWORK, help=f"of senet.py ({DEFAULT_NETWORK})")
    parser.add_argument(
        "--init", type=prefix_of, metavar="PREFIX", help="a checkpoint whose weights a new run starts with"
    )
    parser.add_argument("--skip_damaged", action="store_true", help="leave out damaged records, rather than stop")
    parser.add_argument("--steps", type=count, default=150_000, help="batches in all (150000)")
    parser.add_argument("--batch_size", type=count, default=32, help="crops in a batch (32)")
    parser.add_argument("--seed", type=_number(int, 0), default=0, help="of initial values, order, dropout (0)")
    chosen = {
        "learning_rate": (positive, "Adam's, at its highest"),
        "decay_steps": (count, "steps between two decays"),
        "decay_rate": (share, "factor of a decay"),
        "keep_prob": (share, "share of units that dropout keeps"),
        "weight_decay": (_number(float, 0), "factor of the L2 sum"),
    }
    for name, (kind, text) in chosen.items():
        values = dict.fromkeys(str(getattr(recipe, name)) for recipe in RECIPES.values())
        parser.add_argument(f"--{name}", type=kind, help=f"{text} ({'; original: '.join(values)})")
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in chosen if getattr(args, name) is not None}
    return args, RECIPES[args.recipe]._replace(**given)


@one_line
def main():
    args, recipe = parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        cluster = find_cluster()
        run = args.steps, args.batch_size, args.seed
        if cluster.task == "worker":
            return work(cluster, args.data, recipe, args.network, *run, args.skip_damaged)
        if cluster.task == "ps":
            with cluster.graph():
                return cluster.follow(args.steps)
        with alone(args.models), cluster.graph():
            run += args.init, args.skip_damaged, cluster
            best_nme = train(args.data, args.models, recipe, args.network, *run)
    except tf.errors.OpError as error:  # a full disk, a folder that is not ours to write
        raise ValueError(reason_of(error)) from None
    if best_nme is None:
        return
    print(f"best checkpoint {find_whole(args.models, BEST)}, test NME {best_nme:.2%} (box)")
    given = [name for name in ("data", "models") if getattr(args, name) != Path(name)]
    options = "".join(f" --{name} {shlex.quote(str(getattr(args, name)))}" for name in given)
    print(f"next: python freeze_graph.py{options}")


if __name__ == "__main__":
    main()
