"""The network: SENet of SPEC 4, from a 128x128 face crop to 68 points.

The variable names (Conv, Conv_1 ... fully_connected_9) and the op names Placeholder and fully_connected_9/Relu
are an interface: checkpoints of the TF-Slim original and programs that load landmark.pb rely on them.
"""

import math

import numpy as np
import tensorflow.compat.v1 as tf

from prepare_tfrecords import IMAGE_SIZE, LANDMARKS

INPUT_NAME = "Placeholder:0"
OUTPUT_NAME = "fully_connected_9/Relu:0"
BATCH_NORM_DECAY = 0.997
BATCH_NORM_EPSILON = 1e-5
WIDENING = 8  # outputs to inputs of a layer, from which on its batch norm takes the way of _widen: +11% crops/s

#      channels in, out; each block halves the sides of its map
BLOCKS = [
    (32, 64),
    (64, 128),
    (128, 256),
    (256, 512),
]


def crops_placeholder():
    """The graph's input: float32 [N, 128, 128, 3], BGR, 0..255, under the name that SPEC 6 promises."""
    return tf.placeholder(tf.float32, [None, IMAGE_SIZE, IMAGE_SIZE, 3], name=INPUT_NAME.split(":")[0])


def SENet(crops, is_training=False, keep_prob=0.8, weight_decay=1e-5, batch_norm_decay=BATCH_NORM_DECAY):
    """Predicts 68 points on each crop.

    A second call in the same graph shares the variables of the first; wrap it in a tf.name_scope.

    Args:
        crops: float32 [N, 128, 128, 3], BGR, 0..255, not normalised.
        is_training: True for batch statistics (their moving averages go to tf.GraphKeys.UPDATE_OPS) and dropout,
            False for moving averages and no dropout.
        keep_prob: share of the 1,024 units that dropout keeps, 0..1.
        weight_decay: factor of sum(w^2)/2 of each convolution, into tf.GraphKeys.REGULARIZATION_LOSSES.
        batch_norm_decay: of the moving averages, a number or a scalar tensor.

    Returns:
        float32 [N, 136]: x0 y0 x1 y1 ... x67 y67 as shares of the crop's width and height, 0 or more.
    """

    def conv(net, size, outputs):
        with tf.variable_scope(None, default_name="Conv"):
            inputs = net.shape[-1]
            # TF-Slim's variance scaling: 1.3 makes up for what truncation takes from the variance.
            stddev = math.sqrt(1.3 * 2 / (size * size * inputs))
            weights = _variable(
                "weights",
                [size, size, inputs, outputs],
                tf.truncated_normal_initializer(stddev=stddev),
                regularizer=lambda w: weight_decay * tf.nn.l2_loss(w),
            )
            return tf.nn.relu(_normalised_conv(net, weights, is_training, batch_norm_decay), name="Relu")

    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        net = _pool(conv(crops, 3, 32))
        for inputs, outputs in BLOCKS:
            branch = conv(net, 1, inputs // 4)
            branch = conv(branch, 3, inputs // 4)
            branch = _pool(conv(branch, 1, outputs))
            shortcut = conv(_pool(net), 1, outputs)
            squeeze = tf.reduce_mean(branch, axis=[1, 2])
            squeeze = _fully_connected(squeeze, outputs // 16)
            squeeze = tf.sigmoid(_fully_connected(squeeze, outputs))
            # reshape, not [:, None, None, :]: OpenCV's reader of landmark.pb knows no strided slice.
            net = branch * tf.reshape(squeeze, [-1, 1, 1, outputs]) + shortcut
        net = tf.reduce_mean(net, axis=[1, 2])
        net = _fully_connected(net, 1024)
        if is_training:
            net = tf.nn.dropout(net, rate=1 - keep_prob)
        return _fully_connected(net, 2 * LANDMARKS)


def _pool(net):
    return tf.nn.avg_pool2d(net, ksize=3, strides=2, padding="SAME")


def _fully_connected(net, outputs):
    with tf.variable_scope(None, default_name="fully_connected"):
        weights = _variable("weights", [net.shape[-1], outputs], tf.glorot_uniform_initializer())
        biases = _variable("biases", [outputs], tf.zeros_initializer())
        return tf.nn.relu(tf.nn.bias_add(tf.matmul(net, weights), biases), name="Relu")


def _normalised_conv(net, weights, is_training, decay):
    outputs = weights.shape[-1:]
    with tf.variable_scope("BatchNorm"):
        beta = _variable("beta", outputs, tf.zeros_initializer())
        gamma = _variable("gamma", outputs, tf.ones_initializer())
        moving_mean = _variable("moving_mean", outputs, tf.zeros_initializer(), trainable=False)
        moving_variance = _variable("moving_variance", outputs, tf.ones_initializer(), trainable=False)
    if is_training and outputs[0] >= WIDENING * net.shape[-1]:
        net, mean, variance = _widen(net, weights, gamma, beta)
    else:
        net = tf.nn.conv2d(net, weights, strides=1, padding="SAME", name="Conv2D")
        known = {} if is_training else {"mean": moving_mean, "variance": moving_variance}
        net, mean, variance = tf.nn.fused_batch_norm(
            net, gamma, beta, epsilon=BATCH_NORM_EPSILON, is_training=is_training, **known
        )
    if is_training:
        for moving, batch in (moving_mean, mean), (moving_variance, variance):
            update = tf.assign_sub(moving, (moving - batch) * (1 - decay))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
    return net


def _widen(net, weights, gamma, beta):
    """What tf.nn.fused_batch_norm of tf.nn.conv2d answers, for a layer of few inputs and many outputs.

    An output is a sum w.x over the n inputs x it sees, so its mean is w.E[x] and its variance w'.Cov(x).w: the narrow
    inputs tell what batch norm would read from the wide outputs, twice forward and twice backward.
    """
    size, _, inputs, outputs = weights.shape.as_list()
    count = size * size * inputs
    # Each position's inputs and a 1: its products with them are their sum, and its weight is what is added.
    if size == 1:
        seen = tf.concat([net, tf.ones_like(net[..., :1])], -1)
    else:
        pick = np.eye(count, count + 1, dtype=np.float32).reshape(size, size, inputs, count + 1)
        one = np.eye(count + 1, dtype=np.float32)[count]
        seen = tf.nn.bias_add(tf.nn.conv2d(net, pick, strides=1, padding="SAME"), one)
    rows = tf.reshape(seen, [-1, count + 1])
    positions = tf.cast(tf.shape(rows)[0], tf.float32)
    moments = tf.matmul(rows, rows, transpose_a=True) / positions
    means = moments[-1:, :-1]
    covariance = moments[:-1, :-1] - tf.matmul(means, means, transpose_a=True)
    weights = tf.reshape(weights, [count, outputs])
    mean = tf.matmul(means, weights)
    variance = tf.reduce_sum(weights * tf.matmul(covariance, weights), 0)
    scale = gamma * tf.rsqrt(variance + BATCH_NORM_EPSILON)
    normalised = tf.matmul(rows, tf.concat([weights * scale, beta - mean * scale], 0))
    normalised = tf.reshape(normalised, [-1, *net.shape[1:3], outputs])
    return normalised, mean[0], variance * positions / (positions - 1)


def _variable(name, shape, initializer, **options):
    collections = [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]
    return tf.get_variable(name, shape, initializer=initializer, collections=collections, **options)
