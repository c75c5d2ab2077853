"""Trains the network of senet.py on the records of prepare_tfrecords.py.

Usage:
    python train.py                          # data/*.tfrecords -> checkpoints and logs in models/
    python train.py                          # again: goes on from the last checkpoint
    python train.py --recipe original        # as SPEC 5 has it, to compare
    python train.py --data data/sample --models models/sample --steps 1800
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

from prepare_tfrecords import GREEN, IMAGE_SIZE, LANDMARKS, contact_sheet, crop_box, to_photo
from senet import BATCH_NORM_DECAY, SENet

BEST = "best"  # the file in models/ that names the best checkpoint, as `checkpoint` names the last
SHUFFLE = 512  # records, 50 MB; the files are in random order already
CURVE_STEPS = 20  # between two points of the training curves
SHOWN_CROPS = 10
RED = (0, 0, 255)
WRITE_AGAIN = "write it again with python prepare_tfrecords.py"
LEARNING_RATES = {"best": 0.003, "original": 0.001}
# Times sum(w^2)/2. Batch norm undoes a convolution's scale, so the L2 loss only makes Adam's steps larger beside the
# weights (van Laarhoven, arXiv:1706.05350): in long runs at 1e-5 many deep outputs end as zero for every face.
WEIGHT_DECAYS = {"best": 1e-6, "original": 1e-5}
LOSSES = {"best": tf.abs, "original": tf.square}  # of an error; their mean is the loss
WARM_STEPS = 100  # in which the learning rate grows from zero
CONNECTED_RATE = 0.03  # share of the learning rate for the fully connected layers, which have no batch norm
HIDDEN_SCALE, HIDDEN_MEAN = 12, 2  # of the 1,024 units at first: times Xavier's weights, and their mean over a batch
AVERAGE_DECAY = 0.999  # of the weights
GROWTH_STEPS = 1000  # in which the augmentation grows to its full strength: the first features come sooner so
TURN = 12  # degrees, standard deviation of the roll that move_face adds
SHAKE = 0.05  # standard deviation of each side of the box, in sides of the crop
# The landmark that each becomes in the mirror.
MIRROR = [
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),
    *range(35, 30, -1),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *range(54, 47, -1),
    *range(59, 54, -1),  # outer lip
    *range(64, 59, -1),
    *range(67, 64, -1),  # inner lip
]

TestSet = namedtuple("TestSet", "start crops labels boxes outputs")


# Records to batches


def find_records(folder, side):
    """The record files of one side.

    Args:
        folder: Path of the folder that prepare_tfrecords.py wrote.
        side: "train" or "test".

    Returns:
        (list of str, sorted, at least one; the mean label of their records, float [136]: the mean face).

    Raises:
        ValueError: there are none, or one is damaged or holds records of another size; the message names it.
    """
    paths = sorted(str(path) for path in Path(folder).glob(f"{side}*.tfrecords"))
    if not paths:
        raise ValueError(f"no {side}*.tfrecords in {folder}: run python prepare_tfrecords.py")
    total, records = np.zeros(2 * LANDMARKS), 0
    for path in paths:
        for feature in read_features(path):
            total += feature["label"].float_list.value
            records += 1
    if not records:
        raise ValueError(f"no record in {', '.join(paths)}: {WRITE_AGAIN}")
    return paths, total / records


def read_features(path):
    """The records of one file, outside a graph.

    Args:
        path: str or Path.

    Yields:
        a record's features at a time, by name, as tf.train.Example has them; "image" and "label" are of SPEC 3's sizes.

    Raises:
        ValueError: the file is missing, damaged or holds records of another size; the message names it.
    """
    try:
        for record in tf.io.tf_record_iterator(str(path)):
            feature = tf.train.Example.FromString(record).features.feature
            image, label = b"".join(feature["image"].bytes_list.value), feature["label"].float_list.value
            if (len(image), len(label)) != (IMAGE_SIZE * IMAGE_SIZE * 3, 2 * LANDMARKS):
                raise ValueError(
                    f"{path} holds a record of {len(image)} image bytes and {len(label)} label numbers: {WRITE_AGAIN}"
                )
            yield feature
    except tf.errors.NotFoundError:
        raise ValueError(f"no file {path}: python prepare_tfrecords.py writes the records") from None
    except (tf.errors.OpError, DecodeError):
        raise ValueError(f"{path} is damaged or cut short: {WRITE_AGAIN}") from None


def read_batches(paths, batch_size, seed=None, augment_from=None):
    """Batches of records, read inside the graph.

    Args:
        paths: record files, as find_records returns them.
        batch_size: records in a batch.
        seed: shuffles, for ever, when given; else once through the records in their order.
        augment_from: the step of the first batch; when given, augment_batch cuts every crop anew from its photo.

    Returns:
        tf.data.Dataset of (crops float32 [N, 128, 128, 3] BGR 0..255, labels float32 [N, 136], boxes int64 [N, 4]).
    """
    dataset = tf.data.TFRecordDataset(paths)
    if seed is not None:
        dataset = dataset.shuffle(SHUFFLE, seed=seed).repeat()
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([2 * LANDMARKS], tf.float32),
        # Records from elsewhere may lack these: errors are then measured in the crop, and augment has no margin.
        "box": tf.io.FixedLenFeature([4], tf.int64, default_value=[0, 0, IMAGE_SIZE, IMAGE_SIZE]),
        "photo": tf.io.FixedLenFeature([], tf.string, default_value=""),
    }

    def parse(number, records):
        parsed = tf.io.parse_example(records, features)
        image, labels, boxes = parsed["image"], parsed["label"], parsed["box"]
        if augment_from is not None:
            crops, labels = tf.numpy_function(
                augment_batch,
                [seed, augment_from + number, image, labels, boxes, parsed["photo"]],
                [tf.uint8, tf.float32],
            )
            labels = tf.ensure_shape(labels, [None, 2 * LANDMARKS])
        else:
            crops = tf.io.decode_raw(image, tf.uint8)
        crops = tf.reshape(crops, [-1, IMAGE_SIZE, IMAGE_SIZE, 3])
        return tf.cast(crops, tf.float32), labels, boxes

    # Two batches at a time: OpenCV releases Python's lock. Their order stays.
    return dataset.batch(batch_size).enumerate().map(parse, num_parallel_calls=2).prefetch(2)


# Augmentation


def augment_batch(seed, step, images, labels, boxes, photos):
    """Augments the faces of one batch, the same for the same seed and step.

    Args:
        seed: int.
        step: int, of the training; the faces of the first are plain, from GROWTH_STEPS on they change in full.
        images: [N] bytes, the crop of each record; used where the record has no photo.
        labels: float32 [N, 136].
        boxes: int64 [N, 4], x_min y_min x_max y_max in pixels of the photo.
        photos: [N] bytes, a picture file each, or empty.

    Returns:
        (crops uint8 [N, 128, 128, 3], labels float32 [N, 136]).
    """
    rng = np.random.default_rng([seed, step])
    strength = min(1, step / GROWTH_STEPS)
    crops = []
    for i, (image, photo) in enumerate(zip(images, photos, strict=True)):
        if photo:
            picture, box = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), boxes[i]
        else:
            picture = np.frombuffer(image, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
            box = (0, 0, IMAGE_SIZE, IMAGE_SIZE)
        points = to_photo(labels[i].reshape(LANDMARKS, 2), box)
        crop, points = move_face(picture, points, strength, rng)
        crops.append(change_light(crop, strength, rng))
        labels[i] = points.ravel()
    return np.array(crops), labels


def move_face(photo, points, strength, rng):
    """Turns, mirrors and cuts a face as SPEC 2 would cut the turned one, with each side of the box shaken.

    Args:
        photo: uint8 [H, W, 3].
        points: float [68, 2] in pixels of the photo.
        strength: 0..1, how far it is turned and shaken.
        rng: numpy Generator.

    Returns:
        (crop uint8 [128, 128, 3], points [68, 2] as shares of its sides; a point cut off lies outside 0..1).
    """
    angle = np.deg2rad(strength * TURN * np.clip(rng.normal(), -3, 3))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0])
        points = points[MIRROR]
    points = points @ turn.T
    low, high = np.array(crop_box(points), np.float64).reshape(2, 2)
    shaken = strength * SHAKE * np.clip(rng.normal(size=[2, 2]), -3, 3) * (high - low)
    low, high = low + shaken[0], high + shaken[1]
    scale = IMAGE_SIZE / (high - low)
    # cv2.resize, which cuts the crops of SPEC 2, has pixel centres at halves.
    matrix = np.column_stack([scale[:, None] * turn, scale * (0.5 - low) - 0.5])
    crop = cv2.warpAffine(photo, matrix, (IMAGE_SIZE, IMAGE_SIZE), flags=cv2.INTER_LINEAR)
    return crop, (points - low) / (high - low)


def change_light(crop, strength, rng):
    """Changes what a camera changes, and covers a part of the face now and then.

    Args:
        crop: uint8 [128, 128, 3], BGR; may be changed in place.
        strength: 0..1, how often anything is changed.
        rng: numpy Generator.

    Returns:
        uint8 [128, 128, 3].
    """
    if rng.random() < 0.15 * strength:  # a smaller face, enlarged
        small = cv2.resize(crop, None, fx=(share := rng.uniform(0.35, 0.8)), fy=share, interpolation=cv2.INTER_AREA)
        crop = cv2.resize(small, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.1 * strength:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.15 * strength:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.8 * strength:
        levels = (np.arange(256) / 255)[:, None] ** rng.uniform(0.7, 1.4)
        levels = levels * rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3) + rng.uniform(-0.12, 0.12)
        crop = cv2.LUT(crop, np.clip(255 * levels, 0, 255).astype(np.uint8)[:, None])
    if rng.random() < 0.3 * strength:
        size = rng.integers(10, 55, 2)
        top, left = rng.integers(-size // 2, IMAGE_SIZE - size // 2)
        covered = crop[max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
        covered[:] = rng.integers(0, 256, covered.shape if rng.random() < 0.5 else 3)
    if rng.random() < 0.1 * strength:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        crop = cv2.imdecode(cv2.imencode(".jpg", crop, quality)[1], cv2.IMREAD_COLOR)
    if rng.random() < 0.15 * strength:
        crop = np.clip(crop + rng.normal(0, rng.uniform(2, 10), crop.shape), 0, 255).astype(np.uint8)
    return crop


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


def read_test_set(paths, batch_size, getter=None):
    """Adds the test set in inference mode (moving averages, no dropout) to the default graph; the network shares
    the variables that are there.

    Args:
        paths: record files, as find_records returns them.
        batch_size: crops in a batch.
        getter: a custom_getter of tf.variable_scope, for a network on other values of the variables.

    Returns:
        TestSet of the op that starts a pass and the tensors of its next batch.
    """
    with tf.name_scope("test"):
        iterator = tf.data.make_initializable_iterator(read_batches(paths, batch_size))
        crops, labels, boxes = iterator.get_next()
        with tf.variable_scope(tf.get_variable_scope(), custom_getter=getter):
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
        for variable, value in zip(tf.global_variables(), session.run(tf.global_variables()), strict=True):
            if value.shape != variable.shape:  # Saver does not mind
                raise ValueError(f"{variable.op.name} is {list(value.shape)}, not {variable.shape}")
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is damaged or a checkpoint of another graph: {reason}") from None


def step_of(checkpoint):
    """models/model.ckpt-500 -> 500.

    Raises:
        ValueError: there is no number in the name.
    """
    step = checkpoint.rpartition("-")[2]
    if not step.isdigit():
        raise ValueError(f"{checkpoint} is not a checkpoint of train.py, whose names end in -STEP: move it elsewhere")
    return int(step)


# The run


def add_training(crops, labels, args):
    """Adds the network in training mode, its loss and its optimizer to the default graph.

    Args:
        crops: float32 [N, 128, 128, 3], BGR, 0..255.
        labels: float32 [N, 136].
        args: as parse_args returns them.

    Returns:
        (the op of one step; dict of the scalars to watch: "loss", "l2", "total" and "learning_rate";
        tf.train.ExponentialMovingAverage of the model's variables).
    """
    best = args.recipe == "best"
    step = tf.train.get_or_create_global_step()
    done = tf.cast(step, tf.float32)
    # Without the second term the first thousand steps would be measured with the moving averages' initial values.
    decay = tf.minimum(BATCH_NORM_DECAY, (1 + done) / (10 + done)) if best else BATCH_NORM_DECAY
    outputs = SENet(crops, True, args.keep_prob, args.weight_decay, batch_norm_decay=decay)
    loss = tf.reduce_mean(LOSSES[args.recipe](outputs - labels))
    l2 = tf.losses.get_regularization_loss()
    rate = tf.train.exponential_decay(args.learning_rate, step, args.decay_steps, args.decay_rate, staircase=True)
    if best:
        rate *= tf.minimum(1.0, (1 + done) / WARM_STEPS) * anneal(done / args.steps)

    variables = tf.trainable_variables()
    layers = {False: [], True: []}
    for gradient, variable in zip(tf.gradients(loss + l2, variables), variables, strict=True):
        layers[variable.op.name.startswith("fully_connected")].append((gradient, variable))
    updates = []
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        for fully_connected, pairs in layers.items():
            share = CONNECTED_RATE if best and fully_connected else 1
            updates.append(tf.train.AdamOptimizer(rate * share).apply_gradients(pairs))
    with tf.control_dependencies(updates), tf.control_dependencies([tf.assign_add(step, 1)]):
        averages = tf.train.ExponentialMovingAverage(AVERAGE_DECAY if best else 0.0, step)
        train_op = averages.apply(tf.model_variables())
    return train_op, {"loss": loss, "l2": l2, "total": loss + l2, "learning_rate": rate}, averages


def anneal(done):
    """Share of the learning rate when a share `done` of the steps is done, a scalar float32 tensor: 1 in the first
    half, then from 1 to 0 along half a cosine."""
    return 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(2 * done - 1, 0.0, 1.0)))


def start_awake(mean_face, hidden):
    """Adds ops to the default graph for initial values with which every ReLU without a batch norm has something to
    learn from: a unit that starts, or is pushed, below zero for every face gets no gradient and never wakes.

    The 1,024 units start far apart from face to face and above zero for most, by a batch of real crops (as Mishkin
    and Matas, All You Need Is a Good Init, ICLR 2016): at Xavier's values they tell faces apart too little for the
    layers before them to learn from.

    Args:
        mean_face: float [136], the mean label: what the last layer answers at first, its weights being zero.
        hidden: float32 [N, 1024], what fully_connected_8 answers without its biases to a batch of crops.

    Returns:
        list of tf.Operation, to run one after the other; the squeeze layers' biases become 1.
    """
    variables = {variable.op.name: variable for variable in tf.model_variables()}
    gates = [variables[f"fully_connected{number}/biases"] for number in ("", "_1", "_2", "_3", "_4", "_5", "_6", "_7")]
    last = variables["fully_connected_9/weights"]
    others = [gate.assign(tf.ones_like(gate)) for gate in gates]
    others += [last.assign(tf.zeros_like(last)), variables["fully_connected_9/biases"].assign(mean_face)]
    mean = HIDDEN_SCALE * tf.reduce_mean(hidden, 0)
    with tf.control_dependencies([mean]):
        weights, biases = variables["fully_connected_8/weights"], variables["fully_connected_8/biases"]
        awake = [weights.assign(HIDDEN_SCALE * weights), biases.assign(HIDDEN_MEAN - mean)]
    return [tf.group(others), tf.group(awake)]


def train(args):
    """Trains as the command line says.

    Raises:
        ValueError: for what the user can mend; the message says how.
    """
    # Data
    train_paths, mean_face = find_records(args.data, "train")
    test_paths, _ = find_records(args.data, "test")
    last = tf.train.latest_checkpoint(args.models)
    best = tf.train.latest_checkpoint(args.models, BEST)
    start = step_of(last) if last else 0
    if start >= args.steps:
        print(f"{last} has {start} steps of {args.steps}: nothing to do; a larger --steps goes on from there")
        return
    # With the same seed after a restart, the same first records would come again.
    seed = args.seed + start

    # Graph
    tf.set_random_seed(seed)
    train_set = read_batches(train_paths, args.batch_size, seed, start if args.recipe == "best" else None)
    crops, labels, _ = tf.data.make_one_shot_iterator(train_set).get_next()
    with tf.name_scope("train"):
        train_op, scalars, averages = add_training(crops, labels, args)
    curves = tf.summary.merge([tf.summary.scalar(f"train/{name}", scalar) for name, scalar in scalars.items()])
    # What is measured, and saved as the best, is the averaged weights.
    test = read_test_set(test_paths, args.batch_size, lambda getter, *a, **k: averages.average(getter(*a, **k)))
    saver = tf.train.Saver(max_to_keep=5, save_relative_paths=True)  # so that the folder can be moved
    best_saver = tf.train.Saver(
        {variable.op.name: averages.average(variable) for variable in tf.model_variables()},
        max_to_keep=1,
        save_relative_paths=True,
    )
    wake = start_awake(mean_face, tf.get_default_graph().get_tensor_by_name("train/fully_connected_8/MatMul:0"))

    # Session
    with tf.Session() as session, tf.summary.FileWriter(str(args.models / "logs")) as writer:
        session.run(tf.global_variables_initializer())
        if args.recipe == "best" and not last:
            for op in wake:
                session.run(op)
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
            step = session.run(tf.train.get_global_step())
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
    parser.add_argument("--recipe", choices=["best", "original"], default="best", help="original: as SPEC 5 (best)")
    parser.add_argument("--steps", type=count, default=150_000, help="batches in all (150000)")
    parser.add_argument("--batch_size", type=count, default=32, help="crops in a batch (32)")
    parser.add_argument("--learning_rate", type=positive, help="Adam's, at its highest (0.003; original: 0.001)")
    parser.add_argument("--decay_steps", type=count, default=1000, help="steps between two decays (1000)")
    parser.add_argument("--decay_rate", type=share, default=0.98, help="factor of a decay (0.98)")
    parser.add_argument("--keep_prob", type=share, default=0.8, help="share of units that dropout keeps (0.8)")
    parser.add_argument("--weight_decay", type=_number(float, 0), help="factor of the L2 sum (1e-6; original: 1e-5)")
    parser.add_argument("--seed", type=_number(int, 0), default=0, help="of initial values, order, dropout (0)")
    args = parser.parse_args(arguments)
    args.learning_rate = args.learning_rate or LEARNING_RATES[args.recipe]
    if args.weight_decay is None:  # 0 is one
        args.weight_decay = WEIGHT_DECAYS[args.recipe]
    return args


def main():
    args = parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        with tf.Graph().as_default():
            train(args)
    except ValueError as error:
        sys.exit(str(error))
    except tf.errors.OpError as error:  # a full disk, a folder that is not ours to write
        sys.exit(error.message.partition("\n")[0])


if __name__ == "__main__":
    main()
