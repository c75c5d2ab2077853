"""Trains the network of senet.py on the records of prepare_tfrecords.py.

Usage:
    python train.py                          # data/*.tfrecords -> checkpoints and logs in models/
    python train.py                          # again: goes on from the last checkpoint
    python train.py --data data/sample --models models/sample --steps 1500
    tensorboard --logdir models/logs         # the curves and pictures, while it runs

Stop it with Ctrl-C at any time. models/ holds the last five checkpoints, and the best by test NME beside them.
"""

import argparse
import math
import sys
import time
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from prepare_tfrecords import GREEN, IMAGE_SIZE, LANDMARKS, contact_sheet, to_photo
from senet import SENet

BEST = "best"  # the file in models/ that names the best checkpoint, as `checkpoint` names the last
SHUFFLE = 2048  # records, 100 MB; the files are in random order already
CURVE_STEPS = 20  # between two points of the training curves
SHOWN_CROPS = 10
RED = (0, 0, 255)

TestSet = namedtuple("TestSet", "start crops labels boxes outputs")


# Records to batches


def find_records(folder, side):
    """The record files of one side.

    Args:
        folder: Path of the folder that prepare_tfrecords.py wrote.
        side: "train" or "test".

    Returns:
        list of str, sorted, at least one.

    Raises:
        ValueError: there are none, or one is damaged or holds records of another size; the message names it.
    """
    paths = sorted(str(path) for path in Path(folder).glob(f"{side}*.tfrecords"))
    if not paths:
        raise ValueError(f"no {side}*.tfrecords in {folder}: run python prepare_tfrecords.py")
    records = 0
    for path in paths:
        mend = "write it again with python prepare_tfrecords.py"
        try:
            for record in tf.io.tf_record_iterator(path):
                feature = tf.train.Example.FromString(record).features.feature
                image, label = len(b"".join(feature["image"].bytes_list.value)), len(feature["label"].float_list.value)
                if (image, label) != (IMAGE_SIZE * IMAGE_SIZE * 3, 2 * LANDMARKS):
                    raise ValueError(f"{path} holds a record of {image} image bytes and {label} label numbers: {mend}")
                records += 1
        except (tf.errors.DataLossError, DecodeError):
            raise ValueError(f"{path} is damaged or cut short: {mend}") from None
    if not records:
        raise ValueError(f"{', '.join(paths)}: no record in it; run python prepare_tfrecords.py")
    return paths


def read_batches(paths, batch_size, seed=None):
    """Batches of records, read inside the graph.

    Args:
        paths: record files, as find_records returns them.
        batch_size: records in a batch.
        seed: shuffles, for ever, when given; else once through the records in their order.

    Returns:
        tf.data.Dataset of (crops float32 [N, 128, 128, 3] BGR 0..255, labels float32 [N, 136], boxes int64 [N, 4]).
    """
    dataset = tf.data.TFRecordDataset(paths)
    if seed is not None:
        dataset = dataset.shuffle(SHUFFLE, seed=seed).repeat()
    return dataset.batch(batch_size).map(_parse, num_parallel_calls=1).prefetch(2)


def _parse(records):
    whole_crop = [0, 0, IMAGE_SIZE, IMAGE_SIZE]  # for records from elsewhere: errors are then measured in the crop
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([2 * LANDMARKS], tf.float32),
        "box": tf.io.FixedLenFeature([4], tf.int64, default_value=whole_crop),
    }
    parsed = tf.io.parse_example(records, features)
    crops = tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), [-1, IMAGE_SIZE, IMAGE_SIZE, 3])
    return tf.cast(crops, tf.float32), parsed["label"], parsed["box"]


# The measure (SPEC 7)


def nme(predicted, true):
    """Normalised mean errors.

    Args:
        predicted, true: float [N, 68, 2], in pixels of the photo.

    Returns:
        (inter-ocular, box): float [N] each: the mean distance of the 68 points over |p36 - p45|, and over
        sqrt(w * h) of the true points' box. 0.05 is 5%.
    """
    errors = np.linalg.norm(predicted - true, axis=-1).mean(-1)
    inter_ocular = np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)
    return errors / inter_ocular, errors / np.sqrt(np.ptp(true, axis=1).prod(-1))


def read_test_set(paths, batch_size):
    """Adds the test set in inference mode (moving averages, no dropout) to the default graph; the network shares
    the variables that are there.

    Args:
        paths: record files, as find_records returns them.
        batch_size: crops in a batch.

    Returns:
        TestSet of the op that starts a pass and the tensors of its next batch.
    """
    with tf.name_scope("test"):
        iterator = tf.data.make_initializable_iterator(read_batches(paths, batch_size))
        crops, labels, boxes = iterator.get_next()
        return TestSet(iterator.initializer, crops, labels, boxes, SENet(crops))


def measure(session, test):
    """Measures every record of a TestSet once.

    Returns:
        (loss, inter-ocular NME, box NME): means over the records, the loss over the 136 outputs of each.
    """
    session.run(test.start)
    batches = []
    while True:
        try:
            batches.append(session.run([test.outputs, test.labels, test.boxes]))
        except tf.errors.OutOfRangeError:
            break
    outputs, labels, boxes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    predicted, true = (to_photo(points.reshape(-1, LANDMARKS, 2), boxes) for points in (outputs, labels))
    inter_ocular, box = nme(predicted, true)
    return float(np.square(outputs - labels).mean()), float(inter_ocular.mean()), float(box.mean())


def draw_test_crops(session, test):
    """The first crops of a TestSet, true points in green and predicted ones in red: uint8 [H, W, 3], BGR."""
    session.run(test.start)
    crops, *points = session.run([test.crops, test.labels, test.outputs])
    true, predicted = (shares.reshape(-1, LANDMARKS, 2) for shares in points)
    return contact_sheet(crops[:SHOWN_CROPS].astype(np.uint8), [(true, GREEN), (predicted, RED)])


# Checkpoints


def restore(saver, session, checkpoint):
    """Restores a checkpoint.

    Raises:
        ValueError: it is missing, damaged or of another graph; the message names it.
    """
    try:
        saver.restore(session, checkpoint)
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is damaged or a checkpoint of another graph: {reason}") from None


# The run


def add_training(crops, labels, args):
    """Adds the network in training mode, its loss and its optimizer to the default graph.

    Args:
        crops: float32 [N, 128, 128, 3], BGR, 0..255.
        labels: float32 [N, 136].
        args: as parse_args returns them.

    Returns:
        (the op of one step, dict of the scalars to watch: "loss", "l2", "total" and "learning_rate").
    """
    outputs = SENet(crops, is_training=True, keep_prob=args.keep_prob, weight_decay=args.weight_decay)
    loss = tf.reduce_mean(tf.square(outputs - labels))
    l2 = tf.losses.get_regularization_loss()
    step = tf.train.get_or_create_global_step()
    learning_rate = tf.train.exponential_decay(
        args.learning_rate, step, args.decay_steps, args.decay_rate, staircase=True
    )
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = tf.train.AdamOptimizer(learning_rate).minimize(loss + l2, global_step=step)
    return train_op, {"loss": loss, "l2": l2, "total": loss + l2, "learning_rate": learning_rate}


def train(args):
    """Trains as the command line says.

    Raises:
        ValueError: for what the user can mend; the message says how.
    """
    # Data
    train_paths, test_paths = find_records(args.data, "train"), find_records(args.data, "test")
    last = tf.train.latest_checkpoint(args.models)
    best = tf.train.latest_checkpoint(args.models, BEST)
    start = int(last.rpartition("-")[2]) if last else 0
    if start >= args.steps:
        print(f"{last} has {start} steps of {args.steps}: nothing to do; a larger --steps goes on from there")
        return
    # With the same seed after a restart, the same first records would come again.
    train_set = read_batches(train_paths, args.batch_size, seed=args.seed + start)

    # Graph
    tf.set_random_seed(args.seed + start)
    crops, labels, _ = tf.data.make_one_shot_iterator(train_set).get_next()
    with tf.name_scope("train"):
        train_op, scalars = add_training(crops, labels, args)
    curves = tf.summary.merge([tf.summary.scalar(f"train/{name}", scalar) for name, scalar in scalars.items()])
    test = read_test_set(test_paths, args.batch_size)
    saver = tf.train.Saver(max_to_keep=5)
    best_saver = tf.train.Saver(tf.model_variables(), max_to_keep=1)

    # Session
    with tf.Session() as session, tf.summary.FileWriter(str(args.models / "logs")) as writer:
        session.run(tf.global_variables_initializer())
        best_nme = np.inf
        if best:
            restore(best_saver, session, best)
            best_saver.recover_last_checkpoints([best])
            best_nme = measure(session, test)[1]
            print(f"best so far: {best}, test NME {best_nme:.2%}")
        if last:
            restore(saver, session, last)
            saver.recover_last_checkpoints(tf.train.get_checkpoint_state(args.models).all_model_checkpoint_paths)
            print(f"going on from {last}")
        # TensorBoard drops what a killed run wrote after this step.
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), start)

        # Loop
        every = min(1000, max(100, args.steps // 20))
        losses, began, training_seconds = [], time.monotonic(), 0.0
        step = start
        try:
            for step in tqdm(range(start + 1, args.steps + 1), "step", args.steps, initial=start, disable=None):
                at = time.monotonic()
                _, values, curve = session.run([train_op, scalars, curves if step % CURVE_STEPS == 0 else ()])
                training_seconds += time.monotonic() - at
                losses.append(values["loss"])
                if not np.isfinite(values["total"]):
                    raise ValueError(f"the loss is {values['total']} at step {step}: try a lower --learning_rate")
                if curve:
                    writer.add_summary(curve, step)
                if step % every and step != args.steps:
                    continue

                saver.save(session, str(args.models / "model.ckpt"), step, write_meta_graph=False)
                test_loss, inter_ocular, box = measure(session, test)
                if inter_ocular < best_nme:
                    best_nme = inter_ocular
                    best_saver.save(
                        session, str(args.models / "best.ckpt"), step, latest_filename=BEST, write_meta_graph=False
                    )
                rate = len(losses) * args.batch_size / training_seconds
                left = (time.monotonic() - began) / (step - start) * (args.steps - step)
                tqdm.write(
                    f"step {step}  loss {np.mean(losses):.5f}  test loss {test_loss:.5f}  test NME {inter_ocular:.2%}"
                    f"  {rate:.0f} images/s  {timedelta(seconds=round(left))} left"
                )
                numbers = {
                    "test/loss": test_loss,
                    "test/nme_inter_ocular": inter_ocular,
                    "test/nme_box": box,
                    "train/images_per_second": rate,
                }
                summary = [tf.Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
                sheet = draw_test_crops(session, test)
                picture = tf.Summary.Image(
                    encoded_image_string=cv2.imencode(".jpg", sheet)[1].tobytes(),
                    height=sheet.shape[0],
                    width=sheet.shape[1],
                )
                summary.append(tf.Summary.Value(tag="test/crops", image=picture))
                writer.add_summary(tf.Summary(value=summary), step)
                losses, training_seconds = [], 0.0
        except KeyboardInterrupt:
            if losses:
                saver.save(session, str(args.models / "model.ckpt"), step, write_meta_graph=False)
            sys.exit(f"interrupted at step {step}; the same command goes on from {args.models}")
    print(f"best checkpoint {tf.train.latest_checkpoint(args.models, BEST)}, test NME {best_nme:.2%} (inter-ocular)")
    options = "".join(
        f" --{name} {getattr(args, name)}" for name in ("data", "models") if getattr(args, name) != Path(name)
    )
    print(f"next: python freeze_graph.py{options}")


def _number(kind, low, high=math.inf):
    """An argparse type: a number of that kind in low..high."""

    def parse(text):
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}")
        return number

    parse.__name__ = kind.__name__
    return parse


def parse_args(arguments=None):
    """The command line: an argparse.Namespace with every default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count, positive, share = _number(int, 1), _number(float, 1e-12), _number(float, 1e-12, 1)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the records (data)")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints, logs (models)")
    parser.add_argument("--steps", type=count, default=150_000, help="batches in all (150000)")
    parser.add_argument("--batch_size", type=count, default=32, help="crops in a batch (32)")
    parser.add_argument("--learning_rate", type=positive, default=0.001, help="Adam's, at step 0 (0.001)")
    parser.add_argument("--decay_steps", type=count, default=1000, help="steps between two decays (1000)")
    parser.add_argument("--decay_rate", type=share, default=0.98, help="factor of a decay (0.98)")
    parser.add_argument("--keep_prob", type=share, default=0.8, help="share of units that dropout keeps (0.8)")
    parser.add_argument("--weight_decay", type=_number(float, 0), default=1e-5, help="factor of the L2 sum (1e-5)")
    parser.add_argument("--seed", type=_number(int, 0), default=0, help="of initial values, order, dropout (0)")
    return parser.parse_args(arguments)


def main():
    args = parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        with tf.Graph().as_default():
            train(args)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
