"""A recipe in the graph: the network in training mode, its loss and its steps; the test set and its measures."""

import math
from collections import namedtuple

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.points import GREEN, IMAGE_SIZE, LANDMARKS, RED, contact_sheet, nme, to_photo
from landmark.pose import YAWS
from landmark.records import read_batches
from senet import BATCH_NORM_DECAY, GRID, SENet, is_fully_connected

SHOWN_CROPS = 10

# step: the op of one step; scalars: dict of the scalars to watch, "loss", "l2", "heat" for a network with heat maps,
# their sum "total", and "learning_rate"; averages: tf.train.ExponentialMovingAverage of the model's variables;
# end_points: of senet.SENet.
Training = namedtuple("Training", "step scalars averages end_points")

# start: the op that starts a pass; the tensors of its next batch: crops, labels, boxes, yaws as of read_batches, and
# outputs float32 [N, 136].
TestSet = namedtuple("TestSet", "start crops labels boxes yaws outputs")

# Means over the records: loss of the outputs, mean squared error; NME inter-ocular and by the box; the latter for each
# of YAWS with a record in it, a dict of "0-30" and so on.
TestErrors = namedtuple("TestErrors", "loss inter_ocular box by_yaw")


def wing(error, width=10 / IMAGE_SIZE, curvature=2 / IMAGE_SIZE):
    """Feng et al., Wing Loss for Robust Facial Landmark Localisation, CVPR 2018, (5); 10 and 2 pixels, as there."""
    size = tf.abs(error)
    log = width * tf.log1p(size / curvature)
    return tf.where(size < width, log, size - width + width * math.log1p(width / curvature))


LOSSES = {"l1": tf.abs, "l2": tf.square, "wing": wing}  # of an error; their mean is the loss


def heat_map_loss(logits, labels):
    """How far heat maps are from a round hill over each true landmark, a cell wide: the maps learn where to look from
    each cell, not from their mean position alone (as Nibali et al., Numerical Coordinate Regression, 2018).

    Args:
        logits: float32 [N, 68, side, side] on senet.GRID, y before x.
        labels: float32 [N, 136], NaN for a point without one.

    Returns:
        the cross-entropy, a mean over the maps of points with a label: float32 [].
    """
    side = logits.shape[-1]
    cells, width = np.linspace(*GRID, side, dtype=np.float32, retstep=True)
    points = tf.reshape(labels, [-1, 2])
    known = tf.reduce_all(tf.is_finite(points), 1)
    points, logits = tf.boolean_mask(points, known), tf.boolean_mask(tf.reshape(logits, [-1, side**2]), known)
    hills = -tf.square((points[..., None] - cells) / width) / 2
    targets = tf.nn.softmax(tf.reshape(hills[:, 1, :, None] + hills[:, 0, None, :], [-1, side**2]))
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(targets, logits))


def add_training(crops, labels, recipe, steps, network=SENet, average=None):
    """Adds a network in training mode, its loss and its optimizer to the default graph.

    Args:
        crops: float32 [N, 128, 128, 3], BGR, 0..255.
        labels: float32 [N, 136]; NaN for a point without a label, which is left out of the loss.
        recipe: Recipe.
        steps: number of steps of the whole run, over which the learning rate falls.
        network: function as senet.SENet.
        average: function of the list of gradients, that returns those to apply; they themselves if None.

    Returns:
        Training.
    """
    step = tf.train.get_or_create_global_step()
    done = tf.cast(step, tf.float32)
    # Without the second term the first thousand steps would be measured with the moving averages' initial values.
    decay = tf.minimum(BATCH_NORM_DECAY, (1 + done) / (10 + done)) if recipe.debias else BATCH_NORM_DECAY
    outputs, end_points = network(crops, True, recipe.keep_prob, recipe.weight_decay, batch_norm_decay=decay)
    known = tf.is_finite(labels)
    missed = tf.where(known, outputs - labels, tf.zeros_like(labels))
    scalars = {
        "loss": tf.reduce_sum(LOSSES[recipe.loss](missed)) / tf.reduce_sum(tf.cast(known, tf.float32)),
        "l2": tf.losses.get_regularization_loss(),
    }
    if recipe.heat_share and "heat_maps" in end_points:
        scalars["heat"] = recipe.heat_share * heat_map_loss(end_points["heat_maps"], labels)
    scalars["total"] = total = tf.add_n(list(scalars.values()))
    rate = tf.train.exponential_decay(recipe.learning_rate, step, recipe.decay_steps, recipe.decay_rate, staircase=True)
    share = tf.minimum(1.0, (1 + done) / recipe.warm_steps)
    if recipe.anneal_from is not None:
        fallen = (done / steps - recipe.anneal_from) / (1 - recipe.anneal_from)
        share *= 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(fallen, 0.0, 1.0)))
    rate *= share

    variables = tf.trainable_variables()
    layers = {False: [], True: []}
    gradients = tf.gradients(total, variables)
    if average:
        gradients = average(gradients)
    for gradient, variable in zip(gradients, variables, strict=True):
        layers[is_fully_connected(variable)].append((gradient, variable))
    updates = []
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        for fully_connected, pairs in layers.items():
            optimizer = tf.train.AdamOptimizer(rate * (recipe.connected_rate if fully_connected else 1))
            updates.append(optimizer.apply_gradients(pairs))
    with tf.control_dependencies(updates), tf.control_dependencies([tf.assign_add(step, 1)]):
        averages = tf.train.ExponentialMovingAverage(float(recipe.average_decay), step)
        train_op = averages.apply(tf.model_variables())
    return Training(train_op, scalars | {"learning_rate": rate}, averages, end_points)


def add_test_set(paths, batch_size, averages=None, network=SENet, skip_damaged=False):
    """Adds the test set in inference mode (moving averages, no dropout) to the default graph; the network shares
    the variables that are there.

    Args:
        paths: record files, as find_records returns them.
        batch_size: crops in a batch.
        averages: tf.train.ExponentialMovingAverage whose values stand in for the variables'.
        network: function as senet.SENet.
        skip_damaged: as of read_batches.

    Returns:
        TestSet.
    """

    def average(getter, *args, **options):
        return averages.average(getter(*args, **options))

    with tf.name_scope("test"):
        iterator = tf.data.make_initializable_iterator(read_batches(paths, batch_size, skip_damaged=skip_damaged))
        crops, labels, boxes, yaws = iterator.get_next()
        with tf.variable_scope(tf.get_variable_scope(), custom_getter=average if averages else None):
            return TestSet(iterator.initializer, crops, labels, boxes, yaws, network(crops)[0])


def measure(session, test):
    """Measures every record of a TestSet once: TestErrors."""
    session.run(test.start)
    batches = []
    while True:
        try:
            batches.append(session.run([test.outputs, test.labels, test.boxes, test.yaws]))
        except tf.errors.OutOfRangeError:
            break
    outputs, labels, boxes, yaws = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    predicted, true = (to_photo(points.reshape(-1, LANDMARKS, 2), boxes) for points in (outputs, labels))
    errors = nme(predicted, true, boxes)
    sides = {f"{low}-{high}": errors.box[(low <= yaws) & (yaws < high)] for low, high in YAWS}
    by_yaw = {side: float(chosen.mean()) for side, chosen in sides.items() if len(chosen)}
    loss = float(np.nanmean(np.square(outputs - labels)))
    return TestErrors(loss, float(np.nanmean(errors.inter_ocular)), float(errors.box.mean()), by_yaw)


def is_finite(session):
    """Whether all variables are numbers: a run that diverges has infinite ones a step before its loss says so."""
    return all(np.isfinite(value).all() for value in session.run(tf.global_variables()))


def draw_test_crops(session, test):
    """The first crops of a TestSet, true points in green and predicted ones in red: uint8 [H, W, 3], BGR."""
    session.run(test.start)
    crops, *points = session.run([test.crops, test.labels, test.outputs])
    true, predicted = (shares.reshape(-1, LANDMARKS, 2) for shares in points)
    return contact_sheet(crops[:SHOWN_CROPS].astype(np.uint8), [(true, GREEN), (predicted, RED)])
