"""The networks, from a 128x128 face crop to 68 points: the original SENet (landmark/README.md) and two like it.

The op names Placeholder and fully_connected_9/Relu are an interface, and so are the variable names of "original"
(Conv, Conv_1 ... fully_connected_9): programs that load landmark.pb and checkpoints of the TF-Slim original rely on
them.
"""

import math
from collections import namedtuple

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.points import IMAGE_SIZE, LANDMARKS
from landmark.runtimes import INPUT_NAME, OUTPUT_NAME

BATCH_NORM_DECAY = 0.997
BATCH_NORM_EPSILON = 1e-5
GRID = (-0.15, 1.15)  # of the crop, first to last cell of a heat map: a landmark that is cut off lies outside 0..1

Mode = namedtuple("Mode", "is_training keep_prob weight_decay batch_norm_decay")  # arguments of SENet


def crops_placeholder():
    """The graph's input: float32 [N, 128, 128, 3], BGR, 0..255, under the name that other programs rely on."""
    return tf.placeholder(tf.float32, [None, IMAGE_SIZE, IMAGE_SIZE, 3], name=INPUT_NAME.split(":")[0])


def SENet(
    crops, is_training=False, keep_prob=0.8, weight_decay=1e-5, batch_norm_decay=BATCH_NORM_DECAY, network="original"
):
    """Predicts 68 points on each crop.

    A second call in the same graph shares the variables of the first; wrap it in a tf.name_scope.

    crops: float32 [N, 128, 128, 3], BGR, 0..255, not normalised.
    is_training: True to normalise by the batch's statistics (whose moving averages go to tf.GraphKeys.UPDATE_OPS) and
        to use dropout; False to normalise by the moving averages.
    keep_prob: fraction of the 1,024 units that dropout keeps, 0..1.
    weight_decay: factor of sum(w^2)/2 of each normalised convolution, into tf.GraphKeys.REGULARIZATION_LOSSES.
    batch_norm_decay: decay of the moving averages, a number or a scalar tensor.
    network: a name in NETWORKS.
    Returns: (outputs float32 [N, 136]: x0 y0 x1 y1 ... x67 y67 as shares of the crop's width and height, 0 or more; end
        points, a dict: "features", float32 [N, inputs], the input of the last two layers, of the original; or
        "heat_maps", float32 [N, 68, 16, 16], logits of each landmark's position on GRID, y before x, of the others).
    """
    shape = NETWORKS[network]
    mode = Mode(is_training, keep_prob, weight_decay, batch_norm_decay)
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        net = _conv(mode, crops, 3, 32, shape.stem)
        if shape.stem == 1:
            net = _pool(net)
        maps = []
        for outputs, bottleneck, blocks in shape.stages:
            for block in range(blocks):
                net = _block(mode, shape, net, outputs, bottleneck, halve=block == 0)
            maps.append(net)
        return shape.head(mode, maps)


def is_fully_connected(variable):
    """Whether a variable belongs to a fully connected layer, which has no batch norm."""
    return variable.op.name.startswith(("fully_connected", "squeeze"))


def add_live_start(end_points, mean_face, hidden_scale, hidden_mean):
    """Adds ops for initial values with which every ReLU that has no batch norm gets a gradient: a unit that starts, or
    is pushed, below zero for every face gets none and never wakes.

    The 1,024 units of the original's head start far apart from face to face and above zero for most, by a batch of
    real crops (after Mishkin and Matas, All You Need Is a Good Init, ICLR 2016): with Xavier's values they tell faces
    apart too little for the layers before them to learn from. Heat maps start even, each landmark in the middle of the
    crop, and need only the squeeze layers' biases.

    end_points: as SENet returns them, of a batch of crops.
    mean_face: float [136], the mean label: what the last layer returns at first, its weights being zero.
    hidden_scale: factor of the 1,024 units' Xavier weights.
    hidden_mean: mean of the 1,024 units over the batch, set through their biases.
    Returns: list of tf.Operation, to run one after the other.
    """
    variables = {variable.op.name: variable for variable in tf.model_variables()}
    dense = [variables.pop(f"fully_connected_{i}/{part}", None) for i in (8, 9) for part in ("weights", "biases")]
    squeeze_biases = [v for v in variables.values() if is_fully_connected(v) and v.op.name.endswith("/biases")]
    others = [biases.assign(tf.ones_like(biases)) for biases in squeeze_biases]
    if "features" not in end_points:
        return [tf.group(others)]
    weights, biases, last_weights, last_biases = dense
    others += [last_weights.assign(tf.zeros_like(last_weights)), last_biases.assign(mean_face)]
    mean = hidden_scale * tf.reduce_mean(tf.matmul(end_points["features"], weights), 0)
    with tf.control_dependencies([mean]):
        hidden = [weights.assign(hidden_scale * weights), biases.assign(hidden_mean - mean)]
    return [tf.group(others), tf.group(hidden)]


# Blocks


def _block(mode, shape, net, outputs, bottleneck, halve):
    """A branch with a squeeze, beside a shortcut; halves the sides of the map, or keeps them and the channels."""
    branch = _conv(mode, net, 1, bottleneck)
    branch = _conv(mode, branch, 3, bottleneck)
    if halve and shape.pool == "inside":
        branch = _pool(branch)
    branch = _conv(mode, branch, 1, outputs)
    if halve and shape.pool == "last":
        branch = _pool(branch)
    shortcut = _conv(mode, _pool(net), 1, outputs) if halve else net
    squeeze = tf.reduce_mean(branch, axis=[1, 2])
    squeeze = _fully_connected(squeeze, outputs // 16, shape.squeeze_name)
    squeeze = tf.sigmoid(_fully_connected(squeeze, outputs, shape.squeeze_name))
    # reshape, not [:, None, None, :]: OpenCV's reader of landmark.pb knows no strided slice.
    return branch * tf.reshape(squeeze, [-1, 1, 1, outputs]) + shortcut


# Heads


def _dense_head(mode, maps):
    features = tf.reduce_mean(maps[-1], axis=[1, 2])
    net = _fully_connected(features, 1024)
    if mode.is_training:
        net = tf.nn.dropout(net, rate=1 - mode.keep_prob)
    return _fully_connected(net, 2 * LANDMARKS), {"features": features}


def _heat_map_head(mode, maps):
    """Each landmark is at the expected position under the softmax of its map (Sun et al., Integral Human Pose
    Regression, ECCV 2018); maps see the last three stages (Lin et al., Feature Pyramid Networks, CVPR 2017)."""
    last, middle, first = maps[:-4:-1]
    net = _conv(mode, last, 1, 64)
    for finer in middle, first:
        net = tf.image.resize_nearest_neighbor(net, finer.shape[1:3]) + _conv(mode, finer, 1, 64)
    net = _conv(mode, net, 3, 64)
    with tf.variable_scope("heat_maps"):
        weights = _variable("weights", [1, 1, net.shape[-1], LANDMARKS], tf.truncated_normal_initializer(stddev=0.01))
        heat_maps = tf.transpose(tf.nn.conv2d(net, weights, strides=1, padding="SAME"), [0, 3, 1, 2])
    side = heat_maps.shape[-1]
    shares = tf.nn.softmax(tf.reshape(heat_maps, [-1, side * side]))
    y, x = np.meshgrid(*2 * [np.linspace(*GRID, side, dtype=np.float32)], indexing="ij")
    points = tf.matmul(shares, np.stack([x.ravel(), y.ravel()], axis=1))
    with tf.name_scope(None, OUTPUT_NAME.partition("/")[0]):
        return tf.nn.relu(tf.reshape(points, [-1, 2 * LANDMARKS]), name="Relu"), {"heat_maps": heat_maps}


# Networks

# stem: stride of the 3x3 convolution; at 1 an average pool follows.
# stages: (channels, channels in the branch, blocks) of each; its first block halves the sides of the map.
# pool: where a branch is halved: "last", after its last convolution, or "inside", before it.
# head: function of a Mode and the stages' maps that returns what SENet returns.
# squeeze_name: of the squeeze layers.
Network = namedtuple("Network", "stem stages pool head squeeze_name")

HEAT_MAPS = Network(2, [], "inside", _heat_map_head, "squeeze")
NETWORKS = {
    "original": Network(
        1, [(64, 8, 1), (128, 16, 1), (256, 32, 1), (512, 64, 1)], "last", _dense_head, "fully_connected"
    ),
    "wide": HEAT_MAPS._replace(stages=[(64, 12, 1), (128, 24, 1), (256, 48, 1), (512, 96, 1)]),
    "deep": HEAT_MAPS._replace(stages=[(64, 8, 1), (128, 16, 2), (256, 32, 3), (512, 64, 2)]),
}
DEFAULT_NETWORK = "deep"  # of train.py


# Layers


def _conv(mode, net, size, outputs, stride=1):
    with tf.variable_scope(None, default_name="Conv"):
        shape = [size, size, net.shape[-1], outputs]
        # TF-Slim's variance scaling: 1.3 makes up for what truncation takes from the variance.
        initializer = tf.truncated_normal_initializer(stddev=math.sqrt(1.3 * 2 / math.prod(shape[:-1])))
        weights = _variable("weights", shape, initializer, regularizer=lambda w: mode.weight_decay * tf.nn.l2_loss(w))
        with tf.variable_scope("BatchNorm"):
            beta = _variable("beta", [outputs], tf.zeros_initializer())
            gamma = _variable("gamma", [outputs], tf.ones_initializer())
            moving_mean = _variable("moving_mean", [outputs], tf.zeros_initializer(), trainable=False)
            moving_variance = _variable("moving_variance", [outputs], tf.ones_initializer(), trainable=False)
        net = tf.nn.conv2d(net, weights, strides=stride, padding="SAME", name="Conv2D")
        known = {} if mode.is_training else {"mean": moving_mean, "variance": moving_variance}
        net, mean, variance = tf.nn.fused_batch_norm(
            net, gamma, beta, epsilon=BATCH_NORM_EPSILON, is_training=mode.is_training, **known
        )
        if mode.is_training:
            for moving, batch in (moving_mean, mean), (moving_variance, variance):
                update = tf.assign_sub(moving, (moving - batch) * (1 - mode.batch_norm_decay))
                tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        return tf.nn.relu(net, name="Relu")


def _pool(net):
    return tf.nn.avg_pool2d(net, ksize=3, strides=2, padding="SAME")


def _fully_connected(net, outputs, name="fully_connected"):
    with tf.variable_scope(None, default_name=name):
        weights = _variable("weights", [net.shape[-1], outputs], tf.glorot_uniform_initializer())
        biases = _variable("biases", [outputs], tf.zeros_initializer())
        return tf.nn.relu(tf.nn.bias_add(tf.matmul(net, weights), biases), name="Relu")


def _variable(name, shape, initializer, **options):
    collections = [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]
    return tf.get_variable(name, shape, initializer=initializer, collections=collections, **options)
