"""The network: SENet of contract 4 (landmark/README.md), from a 128x128 face crop to 68 points.

The variable names (Conv, Conv_1 ... fully_connected_9) and the op names Placeholder and fully_connected_9/Relu
are an interface: checkpoints of the TF-Slim original and programs that load landmark.pb rely on them.
"""

import math

import tensorflow.compat.v1 as tf

from landmark.batch_norm import widening_batch_norm
from landmark.points import IMAGE_SIZE, LANDMARKS

INPUT_NAME = "Placeholder:0"
OUTPUT_NAME = "fully_connected_9/Relu:0"
BATCH_NORM_DECAY = 0.997
BATCH_NORM_EPSILON = 1e-5
WIDENING = 8  # outputs to inputs of a layer, from which on widening_batch_norm pays: +11% crops/s

#      channels in, out; each block halves the sides of its map
BLOCKS = [
    (32, 64),
    (64, 128),
    (128, 256),
    (256, 512),
]


def crops_placeholder():
    """The graph's input: float32 [N, 128, 128, 3], BGR, 0..255, under the name that contract 6 promises."""
    return tf.placeholder(tf.float32, [None, IMAGE_SIZE, IMAGE_SIZE, 3], name=INPUT_NAME.split(":")[0])


def SENet(
    crops,
    is_training=False,
    keep_prob=0.8,
    weight_decay=1e-5,
    batch_norm_decay=BATCH_NORM_DECAY,
    widening=WIDENING,
):
    """Predicts 68 points on each crop.

    A second call in the same graph shares the variables of the first; wrap it in a tf.name_scope.

    Args:
        crops: float32 [N, 128, 128, 3], BGR, 0..255, not normalised.
        is_training: True for batch statistics (their moving averages go to tf.GraphKeys.UPDATE_OPS) and dropout,
            False for moving averages and no dropout.
        keep_prob: share of the 1,024 units that dropout keeps, 0..1.
        weight_decay: factor of sum(w^2)/2 of each convolution, into tf.GraphKeys.REGULARIZATION_LOSSES.
        batch_norm_decay: of the moving averages, a number or a scalar tensor.
        widening: outputs to inputs of a layer, from which on its batch norm in training is widening_batch_norm.

    Returns:
        (outputs float32 [N, 136]: x0 y0 x1 y1 ... x67 y67 as shares of the crop's width and height, 0 or more;
        dict of inner tensors: "features", float32 [N, 512], what the last two layers see).
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
            return tf.nn.relu(_normalised_conv(net, weights, is_training, batch_norm_decay, widening), name="Relu")

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
        features = tf.reduce_mean(net, axis=[1, 2])
        net = _fully_connected(features, 1024)
        if is_training:
            net = tf.nn.dropout(net, rate=1 - keep_prob)
        return _fully_connected(net, 2 * LANDMARKS), {"features": features}


def has_batch_norm(variable):
    """Whether a trainable variable belongs to a layer with batch norm."""
    return not variable.op.name.startswith("fully_connected")


def start_awake(end_points, mean_face, hidden_scale, hidden_mean):
    """Adds ops to the default graph for initial values with which every ReLU without a batch norm has something to
    learn from: a unit that starts, or is pushed, below zero for every face gets no gradient and never wakes.

    The 1,024 units start far apart from face to face and above zero for most, by a batch of real crops (as Mishkin
    and Matas, All You Need Is a Good Init, ICLR 2016): at Xavier's values they tell faces apart too little for the
    layers before them to learn from.

    Args:
        end_points: as SENet returns them, of a batch of crops.
        mean_face: float [136], the mean label: what the last layer returns at first, its weights being zero.
        hidden_scale: of the 1,024 units: times Xavier's weights.
        hidden_mean: of the 1,024 units: the mean over the batch that their biases bring about.

    Returns:
        list of tf.Operation, to run one after the other; the squeeze layers' biases become 1.
    """
    variables = {variable.op.name: variable for variable in tf.model_variables()}
    gates = [variables[f"fully_connected{number}/biases"] for number in ("", "_1", "_2", "_3", "_4", "_5", "_6", "_7")]
    last = variables["fully_connected_9/weights"]
    others = [gate.assign(tf.ones_like(gate)) for gate in gates]
    others += [last.assign(tf.zeros_like(last)), variables["fully_connected_9/biases"].assign(mean_face)]
    weights, biases = variables["fully_connected_8/weights"], variables["fully_connected_8/biases"]
    mean = hidden_scale * tf.reduce_mean(tf.matmul(end_points["features"], weights), 0)
    with tf.control_dependencies([mean]):
        awake = [weights.assign(hidden_scale * weights), biases.assign(hidden_mean - mean)]
    return [tf.group(others), tf.group(awake)]


def _pool(net):
    return tf.nn.avg_pool2d(net, ksize=3, strides=2, padding="SAME")


def _fully_connected(net, outputs):
    with tf.variable_scope(None, default_name="fully_connected"):
        weights = _variable("weights", [net.shape[-1], outputs], tf.glorot_uniform_initializer())
        biases = _variable("biases", [outputs], tf.zeros_initializer())
        return tf.nn.relu(tf.nn.bias_add(tf.matmul(net, weights), biases), name="Relu")


def _normalised_conv(net, weights, is_training, decay, widening):
    outputs = weights.shape[-1:]
    with tf.variable_scope("BatchNorm"):
        beta = _variable("beta", outputs, tf.zeros_initializer())
        gamma = _variable("gamma", outputs, tf.ones_initializer())
        moving_mean = _variable("moving_mean", outputs, tf.zeros_initializer(), trainable=False)
        moving_variance = _variable("moving_variance", outputs, tf.ones_initializer(), trainable=False)
    if is_training and outputs[0] >= widening * net.shape[-1]:
        net, mean, variance = widening_batch_norm(net, weights, gamma, beta, BATCH_NORM_EPSILON)
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


def _variable(name, shape, initializer, **options):
    collections = [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]
    return tf.get_variable(name, shape, initializer=initializer, collections=collections, **options)
