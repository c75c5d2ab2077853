import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from landmark.recipe import DEFAULT
from senet import SENet, add_live_start, crops_placeholder


def test_variables_are_the_105_of_tf_slim_in_creation_order(spec_shapes):
    with tf.Graph().as_default():
        SENet(crops_placeholder())
        assert [(v.op.name, tuple(v.shape)) for v in tf.global_variables()] == list(spec_shapes.items())
    assert len(spec_shapes) == 105
    assert sum(map(math.prod, spec_shapes.values())) == 1_007_204


def test_inference_graph_has_the_two_names_and_collects_nothing_to_run():
    with tf.Graph().as_default() as graph:
        outputs, _ = SENet(crops_placeholder())
        assert graph.get_tensor_by_name("Placeholder:0").shape.as_list() == [None, 128, 128, 3]
        assert graph.get_tensor_by_name("fully_connected_9/Relu:0") is outputs
        assert outputs.shape.as_list() == [None, 136]
        assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)


def test_training_graph_trains_71_and_collects_losses_and_updates(live_values):
    with tf.Graph().as_default(), tf.Session() as session:
        SENet(crops_placeholder(), is_training=True)
        trained = tf.trainable_variables()
        assert len(trained) == 71
        assert sum(v.shape.num_elements() for v in trained) == 1_002_820
        assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 34
        for variable in tf.global_variables():
            variable.load(live_values[variable.op.name], session)
        losses = session.run(tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES))
    weights = [value for name, value in live_values.items() if name.startswith("Conv") and name.endswith("weights")]
    expected = [1e-5 * np.square(w, dtype=np.float64).sum() / 2 for w in weights]
    assert len(losses) == 17
    np.testing.assert_allclose(sorted(losses), sorted(expected), rtol=1e-5)


def test_initial_values_are_drawn_as_tf_slim_draws_them(spec_shapes):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        SENet(crops_placeholder())
        session.run(tf.global_variables_initializer())
        values = {variable.op.name: variable.eval() for variable in tf.global_variables()}
    for name, shape in spec_shapes.items():
        value, part = values[name], name.rpartition("/")[2]
        if part in ("gamma", "moving_variance"):
            assert (value == 1).all(), name
        elif part in ("beta", "moving_mean", "biases"):
            assert (value == 0).all(), name
        elif name.startswith("Conv"):
            sigma = math.sqrt(1.3 * 2 / math.prod(shape[:-1]))
            assert np.abs(value).max() <= 2 * sigma, name
            if value.size > 2000:
                assert np.abs(value).max() > 1.9 * sigma, name
                assert value.std() == pytest.approx(0.8796 * sigma, rel=0.05), name
                assert abs(value.mean()) < 0.1 * sigma, name
        elif name != "fully_connected_9/weights":
            limit = math.sqrt(6 / sum(shape))
            assert np.abs(value).max() <= limit, name
            if value.size > 2000:
                assert np.abs(value).max() > 0.99 * limit, name
                assert value.std() == pytest.approx(limit / math.sqrt(3), rel=0.05), name


def numpy_senet(values, crops):
    """The original network in inference mode, written from the text of landmark/README.md; float64."""
    values = {name: value.astype(np.float64) for name, value in values.items()}
    convs, layers = iter(range(17)), iter(range(10))

    def conv(net):
        i = next(convs)
        scope = f"Conv_{i}" if i else "Conv"
        weights = values[f"{scope}/weights"]
        size = len(weights)
        rows, columns = net.shape[1:3]
        edge = size // 2
        padded = np.pad(net, [(0, 0), (edge, edge), (edge, edge), (0, 0)])
        net = sum(padded[:, i : i + rows, j : j + columns] @ weights[i, j] for i in range(size) for j in range(size))
        norm = {
            part: values[f"{scope}/BatchNorm/{part}"] for part in ("beta", "gamma", "moving_mean", "moving_variance")
        }
        net = (net - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-5) * norm["gamma"] + norm["beta"]
        return np.maximum(net, 0)

    def fully_connected(net):
        i = next(layers)
        scope = f"fully_connected_{i}" if i else "fully_connected"
        return np.maximum(net @ values[f"{scope}/weights"] + values[f"{scope}/biases"], 0)

    def pool(net):
        side = net.shape[1] // 2
        pooled = np.empty((len(net), side, side, net.shape[3]))
        for i in range(side):
            for j in range(side):  # the mean of a window that leaves the map is over its part inside
                pooled[:, i, j] = net[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].mean((1, 2))
        return pooled

    net = pool(conv(crops.astype(np.float64)))
    for _ in range(4):
        branch = pool(conv(conv(conv(net))))
        shortcut = conv(pool(net))
        squeeze = fully_connected(fully_connected(branch.mean((1, 2))))
        net = branch / (1 + np.exp(-squeeze))[:, None, None] + shortcut
    return fully_connected(fully_connected(net.mean((1, 2))))


def test_outputs_equal_a_numpy_computation(make, live_values, live_checkpoint, checkpoint_outputs):
    crops = np.stack([make.photo(seed, 128, 128) for seed in range(3)])
    expected = numpy_senet(live_values, crops)
    assert (expected > 0).mean() > 0.7 and expected.std(0).max() > 0.01
    # live_checkpoint was written without senet.py, under TF-Slim's names.
    np.testing.assert_allclose(checkpoint_outputs(live_checkpoint, crops), expected, atol=1e-4)


def test_a_small_variance_shows_the_epsilon_of_batch_norm(
    tmp_path, make, live_values, save_variables, checkpoint_outputs
):
    values = {name: value * (1e-4 if name.endswith("variance") else 1) for name, value in live_values.items()}
    for name in values:
        if name.startswith("Conv") and name.endswith("weights"):
            values[name] = values[name] * np.float32(0.01)
        if name.endswith("moving_mean"):
            values[name] = values[name] * np.float32(0.01)
    crops = make.photo(5, 128, 128)[None]
    checkpoint = save_variables(values, tmp_path / "model.ckpt")
    np.testing.assert_allclose(checkpoint_outputs(checkpoint, crops), numpy_senet(values, crops), atol=1e-4)


def test_training_normalises_with_the_batch_and_moves_the_averages_by_3_in_1000(make, live_values):
    crops = np.stack([make.photo(seed, 128, 128) for seed in range(4)]).astype(np.float32)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        SENet(tf.constant(crops), is_training=True)
        for variable in tf.global_variables():
            variable.load(live_values[variable.op.name], session)
        weights = tf.constant(live_values["Conv/weights"])
        net, normed = session.run([tf.nn.conv2d(crops, weights, strides=1, padding="SAME"), "Conv/Relu:0"])
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        moved = {v.op.name: v.eval() for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)}
    net = net.astype(np.float64)
    mean, variance = net.mean((0, 1, 2)), net.var((0, 1, 2))
    gamma, beta = live_values["Conv/BatchNorm/gamma"], live_values["Conv/BatchNorm/beta"]
    expected = np.maximum((net - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
    np.testing.assert_allclose(normed, expected, atol=1e-3)
    count = net[..., 0].size
    for part, batch in ("moving_mean", mean), ("moving_variance", variance * count / (count - 1)):
        before = live_values[f"Conv/BatchNorm/{part}"]
        expected = before + 0.003 * (batch - before)
        np.testing.assert_allclose(moved[f"Conv/BatchNorm/{part}"], expected, rtol=1e-4, atol=1e-6)
    for name, before in live_values.items():
        assert np.array_equal(moved[name], before) != ("/moving_" in name), name


def test_dropout_only_in_training(live_values):
    crops = np.full((2, 128, 128, 3), 90, np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        trained, _ = SENet(tf.constant(crops), is_training=True, keep_prob=0.5)
        with tf.name_scope("test"):
            tested, _ = SENet(tf.constant(crops))
        assert len(tf.global_variables()) == 105  # the second call shares the first one's
        for variable in tf.global_variables():
            variable.load(live_values[variable.op.name], session)
        np.testing.assert_array_equal(*session.run([tested, tested]))
        np.testing.assert_array_equal(session.run(tested), session.run(tested))
        assert not np.allclose(session.run(trained), session.run(trained))


def test_a_new_network_returns_the_mean_face_and_all_its_units_get_a_gradient(make):
    mean_face = np.linspace(0.1, 0.9, 136)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.set_random_seed(0)
        outputs, end_points = SENet(
            tf.constant(np.array([make.photo(i, 128, 128) for i in range(8)]), tf.float32), is_training=True
        )
        hidden = graph.get_tensor_by_name("fully_connected_8/MatMul:0")
        live_start = add_live_start(end_points, mean_face, DEFAULT.hidden_scale, DEFAULT.hidden_mean)
        session.run(tf.global_variables_initializer())
        narrow = np.ptp(session.run(hidden), axis=0).mean()
        for op in live_start:
            session.run(op)
        np.testing.assert_allclose(session.run(outputs), np.tile(mean_face, [8, 1]), rtol=1e-6)
        for layer in ["fully_connected", *(f"fully_connected_{i}" for i in range(1, 8))]:
            gate = session.run(graph.get_tensor_by_name(f"{layer}/Relu:0"))
            assert (gate.max(0) > 0).mean() > 0.9, layer
        units = session.run(graph.get_tensor_by_name("fully_connected_8/BiasAdd:0"))
        np.testing.assert_allclose(units.mean(0), 2, atol=1e-2)
        assert 8 * narrow < np.ptp(units, axis=0).mean() < 16 * narrow
