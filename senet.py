"""The network: SENet of SPEC 4, from a 128x128 face crop to 68 points.

The variable names (Conv, Conv_1 ... fully_connected_9) and the op names Placeholder and fully_connected_9/Relu
are an interface: checkpoints of the TF-Slim original and programs that load landmark.pb rely on them.
"""

import math

import tensorflow.compat.v1 as tf

from prepare_tfrecords import IMAGE_SIZE, LANDMARKS

INPUT_NAME = "Placeholder:0"
OUTPUT_NAME = "fully_connected_9/Relu:0"
BATCH_NORM_DECAY = 0.997
BATCH_NORM_EPSILON = 1e-5

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
            net = tf.nn.conv2d(net, weights, strides=1, padding="SAME", name="Conv2D")
            return tf.nn.relu(_batch_norm(net, is_training, batch_norm_decay), name="Relu")

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


def _batch_norm(net, is_training, decay):
    with tf.variable_scope("BatchNorm"):
        channels = [net.shape[-1]]
        beta = _variable("beta", channels, tf.zeros_initializer())
        gamma = _variable("gamma", channels, tf.ones_initializer())
        moving_mean = _variable("moving_mean", channels, tf.zeros_initializer(), trainable=False)
        moving_variance = _variable("moving_variance", channels, tf.ones_initializer(), trainable=False)
        if not is_training:
            return tf.nn.fused_batch_norm(
                net, gamma, beta, moving_mean, moving_variance, BATCH_NORM_EPSILON, is_training=False
            )[0]
        net, mean, variance = tf.nn.fused_batch_norm(net, gamma, beta, epsilon=BATCH_NORM_EPSILON)
        for moving, batch in (moving_mean, mean), (moving_variance, variance):
            update = tf.assign_sub(moving, (moving - batch) * (1 - decay))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        return net


def _variable(name, shape, initializer, **options):
    collections = [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]
    return tf.get_variable(name, shape, initializer=initializer, collections=collections, **options)
