"""What train.py trains with and tests by: losses, the test set in the graph, its error measures."""

from collections import namedtuple

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.measures import nme
from landmark.points import GREEN, LANDMARKS, OPENINGS, RED, contact_sheet, to_photo
from landmark.pose import YAW_BINS
from landmark.records import read_batches
from senet import GRID, SENet

SHOWN_CROPS = 10

# start: the op that starts a pass; the tensors of its next batch: crops, labels, boxes, yaws as in read_batches, and
# outputs float32 [N, 136].
TestSet = namedtuple("TestSet", "start crops labels boxes yaws outputs")

# Means over the test records: loss, the mean squared error of the outputs; NME, inter_ocular and box; by_yaw: dict of
# each of YAW_BINS that holds a record, "0-30" and so on, to its NME (box).
TestErrors = namedtuple("TestErrors", "loss inter_ocular box by_yaw")


MIN_WIDTH = 0.05  # in sides of the crop: the least width of an eye or mouth that gap_loss divides by, for profiles
LOSSES = {"l1": tf.abs, "l2": tf.square}  # of an error; their mean is the loss


def heat_map_loss(logits, labels):
    """Cross-entropy of heat maps with a Gaussian, one cell wide, over each true landmark, so that every cell gets
    a gradient, not their mean position alone (after Nibali et al., Numerical Coordinate Regression, 2018).

    logits: float32 [N, 68, side, side] on senet.GRID, y before x.
    labels: float32 [N, 136], NaN for a point without one.
    Returns: float32 [], the mean over the maps of points that have a label.
    """
    side = logits.shape[-1]
    cells, width = np.linspace(*GRID, side, dtype=np.float32, retstep=True)
    points = tf.reshape(labels, [-1, 2])
    known = tf.reduce_all(tf.is_finite(points), 1)
    points, logits = tf.boolean_mask(points, known), tf.boolean_mask(tf.reshape(logits, [-1, side**2]), known)
    hills = -tf.square((points[..., None] - cells) / width) / 2
    targets = tf.nn.softmax(tf.reshape(hills[:, 1, :, None] + hills[:, 0, None, :], [-1, side**2]))
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(targets, logits))


def gap_loss(outputs, labels):
    """The error of the gaps between the lids and between the inner lips, by which blinks and speech are measured: the
    mean absolute error of each vector from an upper point to the lower one, over the width of the eye or the mouth.

    outputs, labels: float32 [N, 136], NaN for a point without a label.
    Returns: float32 [], the mean over the eyes and mouths whose points all have labels, 0 if there are none.
    """
    outputs, labels = (tf.reshape(shares, [-1, LANDMARKS, 2]) for shares in (outputs, labels))

    def between(points, ends):
        first, second = (tf.gather(points, end, axis=1) for end in ends)
        return second - first

    errors = []
    for lids, corners in OPENINGS.values():
        known = tf.reduce_all(tf.is_finite(tf.gather(labels, sum(lids + corners, []), axis=1)), [1, 2])
        predicted, true = (tf.boolean_mask(points, known) for points in (outputs, labels))
        width = tf.maximum(tf.norm(between(true, corners), axis=-1, keepdims=True), MIN_WIDTH)
        errors.append(tf.reshape(tf.abs(between(predicted, lids) - between(true, lids)) / width, [-1]))
    errors = tf.concat(errors, 0)
    return tf.math.divide_no_nan(tf.reduce_sum(errors), tf.cast(tf.size(errors), tf.float32))


def add_test_set(paths, batch_size, averages=None, network=SENet):
    """Adds a TestSet of record files, and a network (a function like SENet) in inference mode, to the default graph.

    The network uses the variables that are there, or their `averages`, a tf.train.ExponentialMovingAverage.
    """

    def average(getter, *args, **options):
        return averages.average(getter(*args, **options))

    with tf.name_scope("test"):
        iterator = tf.data.make_initializable_iterator(read_batches(paths, batch_size))
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
    bins = {f"{low}-{high}": errors.box[(low <= yaws) & (yaws < high)] for low, high in YAW_BINS}
    by_yaw = {yaw_bin: float(chosen.mean()) for yaw_bin, chosen in bins.items() if len(chosen)}
    loss = float(np.nanmean(np.square(outputs - labels)))
    inter_ocular = errors.inter_ocular[np.isfinite(errors.inter_ocular)]  # of faces that have both outer corners
    inter_ocular = float(inter_ocular.mean()) if len(inter_ocular) else np.nan
    return TestErrors(loss, inter_ocular, float(errors.box.mean()), by_yaw)


def is_finite(session):
    """Whether all variables are finite: in a run that diverges they stop being so a step before the loss does."""
    return all(np.isfinite(value).all() for value in session.run(tf.global_variables()))


def draw_test_crops(session, test):
    """The first crops of a TestSet, true points in green and predicted ones in red: uint8 [H, W, 3], BGR."""
    session.run(test.start)
    crops, *points = session.run([test.crops, test.labels, test.outputs])
    true, predicted = (shares.reshape(-1, LANDMARKS, 2) for shares in points)
    return contact_sheet(crops[:SHOWN_CROPS].astype(np.uint8), [(true, GREEN), (predicted, RED)])
