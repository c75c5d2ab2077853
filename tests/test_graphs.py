"""Graphs from elsewhere: what they may hold, and that nothing else is ever run."""

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from landmark.cli import UserError
from landmark.graphs import load_graph
from senet import SENet, crops_placeholder


def write_graph(path, build):
    """Writes the graph of `build`, a function of the crops that returns the points, to a file."""
    with tf.Graph().as_default() as graph:
        tf.identity(build(crops_placeholder()), name="fully_connected_9/Relu")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def find_points(crops):
    return tf.matmul(tf.reduce_mean(crops, [1, 2]), np.ones([3, 136], np.float32))


def test_a_graph_that_writes_a_file_is_refused_and_the_file_not_written(tmp_path, make, says):
    def write(crops):
        with tf.control_dependencies([tf.write_file(str(tmp_path / "written"), "by a graph")]):
            return find_points(crops)

    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), make.photo(0))
    pb = write_graph(tmp_path / "landmark.pb", write)
    message = says("test_pb", "--pb", pb, "--images", tmp_path / "images", "--output", tmp_path / "out")
    assert str(pb) in message and "'WriteFile'" in message and "freeze_graph.py" in message
    assert {path.name for path in tmp_path.iterdir()} == {"images", "landmark.pb"}


def wait_for_mean(crops):
    with tf.control_dependencies([tf.reduce_mean(crops, name="waited_for")]):
        return find_points(crops)


def multiply_in_rows(crops):
    return tf.matmul(tf.reshape(crops, [-1, 1]), tf.reshape(crops, [1, -1]), name="many")


def resize_by(side):
    return lambda crops: find_points(tf.image.resize_nearest_neighbor(crops, side, name="large"))


def resize_by_product(crops):
    return resize_by(tf.reduce_mean(tf.matmul([[9], [9]], [[9, 9]], name="sizes"), 0))(crops)


def add_zeros(crops):
    zeros = tf.constant(0.0, shape=[9000, 9000, 1], name="zeros")
    return find_points(crops) + tf.reduce_mean(zeros)


@pytest.mark.parametrize(
    "harm, build",
    {
        "'ReadFile'": lambda crops: find_points(crops + tf.reshape(tf.decode_raw(tf.read_file("x"), tf.float32), [])),
        "'EagerPyFunc'": lambda crops: tf.py_function(find_points, [crops], tf.float32),
        "holds functions": lambda crops: tf.function(find_points)(crops),
        "has a control input": wait_for_mean,
        "'Tile'": lambda crops: find_points(tf.tile(crops, [1, 9999, 1, 1])),
        "'zeros' (Const) makes a tensor": add_zeros,
        "'large' makes a ResizeNearestNeighbor": resize_by([9999, 9999]),
        "'many' makes a MatMul": multiply_in_rows,
        "'sizes' (MatMul) calculates sizes": resize_by_product,
    }.items(),
)
def test_what_does_more_than_calculate_a_little_is_refused_by_name(harm, build, tmp_path):
    pb = write_graph(tmp_path / "landmark.pb", build)
    with pytest.raises(UserError) as refused:
        load_graph(pb)
    assert str(pb) in str(refused.value) and harm in str(refused.value) and "\n" not in str(refused.value)


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "landmark.pb", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(UserError, match="landmark.pb has over 64 MiB"):
        load_graph(tmp_path / "landmark.pb")


@pytest.mark.parametrize("network", ["original", "deep"])  # a network of each head
def test_a_graph_whose_batch_norms_are_not_folded_loads(network, tmp_path):
    def frozen(getter, name, shape, **options):
        return tf.identity(tf.constant(np.ones(tf.TensorShape(shape).as_list(), np.float32)))

    def build(crops):
        with tf.variable_scope(tf.get_variable_scope(), custom_getter=frozen):
            return SENet(crops, network=network)[0]

    with tf.Graph().as_default() as graph:
        build(crops_placeholder())
    (tmp_path / "landmark.pb").write_bytes(graph.as_graph_def().SerializeToString())
    loaded = load_graph(tmp_path / "landmark.pb")
    assert "FusedBatchNormV3" in {op.type for op in loaded.get_operations()}
    assert loaded.get_tensor_by_name("Placeholder:0").shape.as_list() == [None, 128, 128, 3]
