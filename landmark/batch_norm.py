"""Batch norm after a convolution of few inputs and many outputs, at less traffic."""

import numpy as np
import tensorflow.compat.v1 as tf


def widening_batch_norm(net, weights, gamma, beta, epsilon, stride=1):
    """What tf.nn.fused_batch_norm of tf.nn.conv2d returns in training, for a layer of few inputs and many outputs.

    An output is a sum w.x over the n inputs x it sees, so its mean is w.E[x] and its variance w'.Cov(x).w: the narrow
    inputs tell what batch norm would read from the wide outputs, twice forward and twice backward.

    Args:
        net: float32 [N, H, W, inputs].
        weights: float32 [size, size, inputs, outputs] of a convolution with SAME padding.
        gamma, beta: float32 [outputs].
        epsilon: added to the variance.
        stride: of the convolution; its outputs then have other sides than H and W.

    Returns:
        (normalised outputs float32 [N, H, W, outputs], their mean and their unbiased variance, float32 [outputs]).
    """
    size, _, inputs, outputs = weights.shape.as_list()
    count = size * size * inputs
    # Each position's inputs and a 1: its products with them are their sum, and its weight is what is added.
    if size == stride == 1:
        seen = tf.concat([net, tf.ones_like(net[..., :1])], -1)
    else:
        pick = np.eye(count, count + 1, dtype=np.float32).reshape(size, size, inputs, count + 1)
        one = np.eye(count + 1, dtype=np.float32)[count]
        seen = tf.nn.bias_add(tf.nn.conv2d(net, pick, strides=stride, padding="SAME"), one)
    rows = tf.reshape(seen, [-1, count + 1])
    positions = tf.cast(tf.shape(rows)[0], tf.float32)
    moments = tf.matmul(rows, rows, transpose_a=True) / positions
    means = moments[-1:, :-1]
    covariance = moments[:-1, :-1] - tf.matmul(means, means, transpose_a=True)
    weights = tf.reshape(weights, [count, outputs])
    mean = tf.matmul(means, weights)
    variance = tf.reduce_sum(weights * tf.matmul(covariance, weights), 0)
    scale = gamma * tf.rsqrt(variance + epsilon)
    normalised = tf.matmul(rows, tf.concat([weights * scale, beta - mean * scale], 0))
    normalised = tf.reshape(normalised, [-1, *seen.shape[1:3], outputs])
    return normalised, mean[0], variance * positions / (positions - 1)
