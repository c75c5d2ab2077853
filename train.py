"""Trains a network of senet.py on the records of prepare_tfrecords.py.

Usage:
    python train.py                          # data/*.tfrecords -> checkpoints and logs in models/
    python train.py                          # again: continues from the last checkpoint
    python train.py --network original --recipe original      # the TF-Slim original (landmark/README.md)
    python train.py --recipe finetune --init models/landmark.ckpt     # starts from the weights of the shipped model
    python train.py --data data/sample --models models/sample --steps 600
    tensorboard --logdir models/logs         # the curves and pictures, while it runs
    TF_CONFIG=... python train.py            # one task of several: bench/README.md, "Several machines"

Stop it with Ctrl-C at any time. models/ holds the last five checkpoints, written every 1,000 steps or 5 minutes, the
best one by test NME (box), and run.json: what the run was started with.
"""

from landmark.startup import describe_device  # first: TensorFlow reads its settings as it is imported

import contextlib
import functools
import math
import shlex
import time
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from landmark import checkpoints
from landmark.augment import augment_batch
from landmark.checkpoints import BEST, LAST, find_whole
from landmark.cli import UserError, command, number, script_parser
from landmark.cluster import Cluster, find_cluster
from landmark.recipe import RECIPES
from landmark.records import SPLITS, check_labels, check_records, find_record_files, read_batches, read_manifest
from landmark.training import LOSSES, add_test_set, draw_test_crops, gap_loss, heat_map_loss, is_finite, measure
from senet import BATCH_NORM_DECAY, DEFAULT_NETWORK, NETWORKS, SENet, add_live_start, is_fully_connected

CURVE_STEPS = 20  # between two points of the training curves
# What may change when a run continues.
MAY_CHANGE = {"steps", "batch_size", "seed", "records"}
MAY_CHANGE |= {"learning_rate", "decay_steps", "decay_rate", "keep_prob", "weight_decay"}

# step: the op of one step; scalars: dict of the scalars to watch, "loss", "l2", "heat" and "gaps" if the recipe has
# them, their sum "total", and "learning_rate"; averages: tf.train.ExponentialMovingAverage of the model's variables;
# end_points: as SENet returns them.
Training = namedtuple("Training", "step scalars averages end_points")


def add_training(crops, labels, recipe, steps, network=SENet, average=None):
    """Adds a network in training mode, its loss and its optimizer to the default graph.

    crops: float32 [N, 128, 128, 3], BGR, 0..255.
    labels: float32 [N, 136]; NaN for a point without a label, which is left out of the loss.
    recipe: Recipe.
    steps: number of steps of the whole run, over which the learning rate falls.
    network: function like senet.SENet.
    average: function of the list of gradients that returns those to apply, or None.
    Returns: Training.
    """
    step = tf.train.get_or_create_global_step()
    done = tf.cast(step, tf.float32)

    # Network. Without the warm-up the first thousand steps would be tested with the averages' initial values.
    decay = tf.minimum(BATCH_NORM_DECAY, (1 + done) / (10 + done)) if recipe.bn_decay_warmup else BATCH_NORM_DECAY
    outputs, end_points = network(crops, True, recipe.keep_prob, recipe.weight_decay, batch_norm_decay=decay)

    # Loss
    known = tf.is_finite(labels)
    errors = tf.where(known, outputs - labels, tf.zeros_like(labels))
    scalars = {
        "loss": tf.reduce_sum(LOSSES[recipe.loss](errors)) / tf.reduce_sum(tf.cast(known, tf.float32)),
        "l2": tf.losses.get_regularization_loss(),
    }
    if recipe.heatmap_loss_weight and "heat_maps" in end_points:
        scalars["heat"] = recipe.heatmap_loss_weight * heat_map_loss(end_points["heat_maps"], labels)
    if recipe.gap_loss_weight:
        scalars["gaps"] = recipe.gap_loss_weight * gap_loss(outputs, labels)
    scalars["total"] = total = tf.add_n(list(scalars.values()))

    # Learning rate
    rate = tf.train.exponential_decay(recipe.learning_rate, step, recipe.decay_steps, recipe.decay_rate, staircase=True)
    factor = tf.minimum(1.0, (1 + done) / recipe.warmup_steps)
    if recipe.cosine_start is not None:
        fallen = (done / steps - recipe.cosine_start) / (1 - recipe.cosine_start)
        factor *= 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(fallen, 0.0, 1.0)))
    rate *= factor

    # Optimizer
    variables = tf.trainable_variables()
    gradients = tf.gradients(total, variables)
    gradients = average(gradients) if average else gradients
    layers = {False: [], True: []}
    for gradient, variable in zip(gradients, variables, strict=True):
        layers[is_fully_connected(variable)].append((gradient, variable))
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        updates = [
            tf.train.AdamOptimizer(rate * (recipe.fc_lr_multiplier if connected else 1)).apply_gradients(pairs)
            for connected, pairs in layers.items()
        ]
    with tf.control_dependencies(updates), tf.control_dependencies([tf.assign_add(step, 1)]):
        averages = tf.train.ExponentialMovingAverage(float(recipe.ema_decay), step)
        train_op = averages.apply(tf.model_variables())
    return Training(train_op, scalars | {"learning_rate": rate}, averages, end_points)


def next_batch(paths, recipe, batch_size, seed, start, frontal):
    """The tensors of the next training batch of some record files: crops and labels, as add_training takes them.

    start: number of steps that are done; frontal: fraction of the records within 30 degrees of yaw.
    """
    augment = functools.partial(augment_batch, recipe, seed) if recipe.augment else None
    share = recipe.frontal_share if frontal < recipe.frontal_share else None
    train_set = read_batches(paths, batch_size, seed, augment, share, start)
    return tf.data.make_one_shot_iterator(train_set).get_next()[:2]


def train(data, models, recipe, network, steps, batch_size, seed, init=None, cluster=None):
    """Trains until a number of steps is done, continuing from the last checkpoint in `models`.

    data: Path of the folder of the records.
    models: Path of the folder of the checkpoints and logs.
    recipe: Recipe.
    network: a name in senet.NETWORKS.
    steps: batches in all.
    batch_size: crops in a batch.
    seed: int, of initial values, order, dropout and augmentation.
    init: path of a checkpoint whose weights a new run starts with, or None.
    cluster: Cluster of tasks that train together; None: this process alone.
    Returns: the lowest test NME (box), or None if there was nothing to do.
    """
    # Data
    cluster = cluster or Cluster()
    manifest = read_manifest(data)
    check_labels(manifest.labelled, manifest.train, manifest.landmark_type)
    train_paths, test_paths = (find_record_files(data, split) for split in SPLITS)
    last, best = (find_whole(models, name) if cluster.is_first else None for name in (LAST, BEST))
    choices = recipe._asdict()
    run = {"recipe": choices.pop("name"), "network": network, "landmark_type": manifest.landmark_type, **choices}
    run |= {"steps": steps, "batch_size": batch_size, "seed": seed}
    run["records"] = f"{len(train_paths)} files, {sum(manifest.sizes.values())} bytes, list {manifest.fingerprint}"
    ramp = 0 if init else recipe.augment_ramp_steps  # a checkpoint has its features already
    if last:  # a run that continues keeps its own
        ramp = checkpoints.read_run(last).get("augment_ramp_steps", ramp)
    start, ramp = cluster.agree(run, [checkpoints.step_of(last) if last else 0, ramp])
    recipe, run = recipe._replace(augment_ramp_steps=ramp), run | {"augment_ramp_steps": ramp}
    if start >= steps:
        print(f"{last or models} has {start} steps of {steps}: nothing to do; a larger --steps continues from there")
        return None
    if cluster.is_first:
        check_init(None if last else init, run)
        checkpoints.keep_run(models, run, run.keys() - MAY_CHANGE)
    seed += start + steps * cluster.index  # with the same seed after a restart, the same first records would come again
    tf.set_random_seed(seed)
    crops, labels = next_batch(cluster.share(train_paths), recipe, batch_size, seed, start, manifest.frontal)

    # Graph, loss, optimizer: add_training, above
    build = functools.partial(SENet, network=network)
    with tf.name_scope("train"):
        training = add_training(crops, labels, recipe, steps, build, cluster.average)
    test = add_test_set(test_paths, batch_size, training.averages, build)
    live_start = add_live_start(training.end_points, manifest.mean_face, recipe.hidden_scale, recipe.hidden_mean)

    # Savers: of the whole run; of the averages, under the variables' names; of the variables alone
    averages = {variable.op.name: training.averages.average(variable) for variable in tf.model_variables()}
    new_saver = functools.partial(tf.train.Saver, max_to_keep=None, save_relative_paths=True)
    run_saver, best_saver, init_saver = map(new_saver, [None, averages, tf.model_variables()])

    # Session: the best averages first, whose error is the one to beat; then the weights to go on with
    open_logs = functools.partial(tf.summary.FileWriter, str(models / "logs"))
    with cluster.session() as session, open_logs() if cluster.is_first else contextlib.nullcontext() as writer:
        if writer:  # TensorBoard drops what a killed run wrote after this step
            writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), start)
        session.run(tf.global_variables_initializer())
        best_nme = math.inf
        if best:
            checkpoints.restore(best_saver, session, best)
            best_nme = measure(session, test).box
            print(f"best so far: {best}, test NME {best_nme:.2%} (box)")
        if last:
            checkpoints.restore(run_saver, session, last)
            print(f"continuing from {last}{'; --init is for a new run, and not used' if init else ''}")
        elif init and cluster.is_first:
            checkpoints.restore(init_saver, session, init)
            checkpoints.restore(best_saver, session, init)
        elif recipe.live_start and cluster.is_first:
            for op in live_start:
                session.run(op)
        cluster.start(session)

        # Loop
        savers, crops_a_step = {LAST: run_saver, BEST: best_saver}, batch_size * cluster.tasks
        return run_steps(session, cluster, training, test, savers, writer, models, start, steps, crops_a_step, best_nme)


def run_steps(session, cluster, training, test, savers, writer, models, start, steps, crops_a_step, best_nme):
    """The loop of train(), from step `start` to `steps`: returns the lowest test NME (box).

    training: Training; test: TestSet; savers: dict of LAST and BEST to the tf.train.Saver of each; writer:
    tf.summary.FileWriter, None but in the first task; best_nme: the lowest so far.
    """
    curves = tf.summary.merge([tf.summary.scalar(f"train/{name}", value) for name, value in training.scalars.items()])
    losses, seconds, began = [], 0.0, time.monotonic()
    saved, saved_step = began, start
    try:
        for step in tqdm(range(start + 1, steps + 1), "step", steps, initial=start, disable=None):
            at = time.monotonic()
            fetches = training.step, training.scalars, curves if step % CURVE_STEPS == 0 else ()
            _, scalars, curve = cluster.run(session, fetches)
            seconds += time.monotonic() - at
            losses.append(scalars["loss"])
            due = checkpoints.is_due(step, steps, time.monotonic() - saved)
            if not np.isfinite(scalars["total"]) or due and not is_finite(session):
                rate = scalars["learning_rate"]
                raise UserError(
                    f"the loss is {scalars['total']} at step {step}, at a learning rate of {rate:.2g}: try a lower"
                    f" --learning_rate; the last checkpoint before it is {find_whole(models, LAST) or 'none'}"
                )
            if curve and writer:
                writer.add_summary(curve, step)
            if not (due and cluster.is_first):
                continue

            checkpoints.save(savers[LAST], session, models, LAST, step)
            saved, saved_step = time.monotonic(), step
            errors = measure(session, test)
            if errors.box < best_nme:  # by the box, because the inter-ocular distance of a profile is next to nothing
                best_nme = errors.box
                checkpoints.save(savers[BEST], session, models, BEST, step)
            left = (time.monotonic() - began) / (step - start) * (steps - step)
            sheet = draw_test_crops(session, test)
            report(writer, step, np.mean(losses), errors, sheet, len(losses) * crops_a_step / seconds, left)
            losses, seconds = [], 0.0
    except KeyboardInterrupt as stop:
        step = session.run(tf.train.get_global_step())
        if step > saved_step and cluster.is_first and is_finite(session):
            checkpoints.save(savers[LAST], session, models, LAST, step)
        stop.add_note(f" at step {step}; the same command continues from {models}")
        raise
    return best_nme


# Beside the run


def check_init(init, run):
    """Raises UserError if the checkpoint to start from, if any, has another network or landmark type than the run."""
    known = checkpoints.read_run(init) if init is not None else {}
    for name in "network", "landmark_type":
        if known.get(name, run[name]) != run[name]:
            raise UserError(f"{init} has {name} {known[name]}, not {run[name]}: give another --network or records")


def report(writer, step, loss, errors, sheet, rate, left):
    """Prints a line, and writes the same for TensorBoard: training loss, TestErrors, a picture of test crops, images a
    second, seconds left."""
    by_yaw = ", ".join(f"{yaw_bin}: {error:.2%}" for yaw_bin, error in errors.by_yaw.items())
    tqdm.write(
        f"step {step}  loss {loss:.5f}  test loss {errors.loss:.5f}  test NME {errors.inter_ocular:.2%},"
        f" box {errors.box:.2%} (yaw {by_yaw})  {rate:.0f} images/s  {timedelta(seconds=round(left))} left"
    )
    numbers = {"loss": errors.loss, "nme_inter_ocular": errors.inter_ocular, "nme_box": errors.box}
    numbers |= {f"nme_box_yaw_{yaw_bin}": error for yaw_bin, error in errors.by_yaw.items()}
    values = [tf.Summary.Value(tag=f"test/{name}", simple_value=number) for name, number in numbers.items()]
    values.append(tf.Summary.Value(tag="train/images_per_second", simple_value=rate))
    jpeg = cv2.imencode(".jpg", sheet)[1].tobytes()
    picture = tf.Summary.Image(encoded_image_string=jpeg, height=sheet.shape[0], width=sheet.shape[1])
    values.append(tf.Summary.Value(tag="test/crops", image=picture))
    writer.add_summary(tf.Summary(value=values), step)


# The command line


def parse_args():
    """The command line: (argparse.Namespace, Recipe)."""
    parser = script_parser(__doc__)
    count, positive, share = number(int, 1), number(float, 1e-12), number(float, 1e-12, 1)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the records (data)")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints, logs (models)")
    parser.add_argument("--recipe", choices=RECIPES, default="default", help="in landmark/recipe.py (default)")
    parser.add_argument("--network", choices=NETWORKS, default=DEFAULT_NETWORK, help=f"in senet.py ({DEFAULT_NETWORK})")
    parser.add_argument("--init", type=checkpoints.prefix_of, metavar="PREFIX", help="weights to start a new run from")
    parser.add_argument("--steps", type=count, default=150_000, help="batches in all (150000)")
    parser.add_argument("--batch_size", type=count, default=32, help="crops in a batch (32)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="random seed (0)")
    chosen = {
        "learning_rate": (positive, "Adam's peak learning rate"),
        "decay_steps": (count, "steps between two decays"),
        "decay_rate": (share, "factor of each decay"),
        "keep_prob": (share, "fraction of units that dropout keeps"),
        "weight_decay": (number(float, 0), "weight of the L2 loss"),
    }
    for name, (kind, text) in chosen.items():
        parser.add_argument(f"--{name}", type=kind, help=f"{text} (the recipe's)")
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in chosen if getattr(args, name) is not None}
    return args, RECIPES[args.recipe]._replace(**given)


@command
def main():
    args, recipe = parse_args()
    try:
        cluster = find_cluster()
        task = f"{cluster.name}: " if cluster.tasks > 1 else ""
        print(f"{task}training {args.network} on {args.data}, on {describe_device()}")
        lock = checkpoints.lock_models(args.models) if cluster.is_first else contextlib.nullcontext()
        with lock, tf.Graph().as_default():
            run = args.steps, args.batch_size, args.seed
            best_nme = train(args.data, args.models, recipe, args.network, *run, args.init, cluster)
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError) as error:  # disk or memory full
        raise UserError(checkpoints.reason_of(error)) from None
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeDecodeError):
        check_records(*(find_record_files(args.data, split) for split in SPLITS))  # names the one that is damaged
        raise
    if best_nme is None or not cluster.is_first:
        return
    print(f"best checkpoint {find_whole(args.models, BEST)}, test NME {best_nme:.2%} (box)")
    given = [name for name in ("data", "models") if getattr(args, name) != Path(name)]
    options = "".join(f" --{name} {shlex.quote(str(getattr(args, name)))}" for name in given)
    print(f"next: python freeze_graph.py{options}")


if __name__ == "__main__":
    main()
