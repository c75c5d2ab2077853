"""Every network of senet.py: its interface, and its frozen graph in every runtime."""

import functools
import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from landmark import export
from landmark.checkpoints import restore
from landmark.cli import UserError
from landmark.recipe import DEFAULT
from landmark.runtimes import load_opencv
from landmark.training import gap_loss, heat_map_loss
from senet import NETWORKS, SENet, add_live_start, crops_placeholder, is_fully_connected
from train import add_training


@pytest.fixture(scope="module")
def crops(make):
    return np.stack([make.photo(seed, 128, 128) for seed in range(8)])


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    """The prefix of a checkpoint in which no variable is all zeros or ones."""
    folder = tmp_path_factory.mktemp(network)
    (folder / "run.json").write_text(json.dumps({"network": network}))
    rng = np.random.default_rng(7)
    with tf.Graph().as_default(), tf.Session() as session:
        SENet(crops_placeholder(), network=network)
        values = {}
        for variable in tf.global_variables():
            part, shape = variable.op.name.rpartition("/")[2], variable.shape.as_list()
            if variable.op.name == "fully_connected_9/biases":
                value = rng.uniform(0.2, 0.8, shape)
            elif part == "weights":
                value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
                # The first layer sees 0..255; the last should change the points only a little.
                value *= {"Conv": 0.01, "fully_connected_9": 0.05}.get(variable.op.name.partition("/")[0], 1)
            elif part in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, shape)
            else:
                value = rng.normal(0, 0.2, shape)
            values[variable.initializer.inputs[1]] = value.astype(np.float32)
        session.run([variable.initializer for variable in tf.global_variables()], values)
        return tf.train.Saver().save(session, str(folder / "model.ckpt"), 1, write_meta_graph=False)


def test_every_reader_gets_the_checkpoints_points(checkpoint, crops, check_plain, tmp_path):
    content, expected = export.freeze(checkpoint, crops.astype(np.float32))
    assert expected.shape == (8, 136) and expected.min() >= 0 and expected.std(0).mean() > 0.003
    assert len(content) <= 5e6
    check_plain(tf.GraphDef.FromString(content))
    pb = tmp_path / "landmark.pb"
    pb.write_bytes(content)

    def same(outputs, tolerance):
        assert np.abs(outputs - expected[: len(outputs)]).max() <= tolerance * max(1, expected.max())

    exact = {name: form for name, form in export.FORMATS.items() if form.tolerance < 1}
    for name, form in exact.items():
        form.convert(pb, tmp_path / name, crops)
        for count in 1, 8, 3:
            same(form.load(tmp_path / name, 1)(crops[:count]), form.tolerance)
    for count in 1, 8, 3:
        same(export.PB.load(pb, 1)(crops[:count]), 1e-5)
        same(load_opencv(pb)(crops[:count]), 1e-4)


def test_every_block_has_its_squeeze(network):
    with tf.Graph().as_default():
        SENet(crops_placeholder(), network=network)
        squeezes = [op for op in tf.get_default_graph().get_operations() if op.type == "Sigmoid"]
    assert len(squeezes) == sum(blocks for _, _, blocks in NETWORKS[network].stages)


def test_every_variable_learns_and_a_checkpoint_holds_all_of_it(network, crops, tmp_path):
    labels = np.random.default_rng(0).uniform(0.2, 0.8, [8, 136]).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        build = functools.partial(SENet, network=network)
        # Without dropout, as a graph's random numbers are not part of a checkpoint.
        recipe = DEFAULT._replace(keep_prob=1)
        training = add_training(tf.constant(crops, tf.float32), tf.constant(labels), recipe, 10, build)
        session.run(tf.global_variables_initializer())
        for op in add_live_start(training.end_points, labels.mean(0), recipe.hidden_scale, recipe.hidden_mean):
            session.run(op)
        before = session.run(tf.trainable_variables())
        for _ in range(3):
            session.run(training.step)
        after = session.run(tf.trainable_variables())
        names = [variable.op.name for variable in tf.trainable_variables()]
        assert not [name for name, a, b in zip(names, before, after, strict=True) if (a == b).all()]
        assert sum(map(is_fully_connected, tf.trainable_variables())) >= 16

        saver = tf.train.Saver()
        checkpoint = saver.save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
        losses = [session.run([training.scalars["total"], training.step])[0] for _ in range(3)]
        session.run(tf.global_variables_initializer())
        restore(saver, session, checkpoint)
        again = [session.run([training.scalars["total"], training.step])[0] for _ in range(3)]
        np.testing.assert_allclose(again, losses, rtol=1e-3)
        assert losses[0] != losses[2]


def test_heat_map_loss_is_least_with_the_hill_over_the_landmark():
    labels = np.full([1, 136], 0.3, np.float32)
    cells = np.linspace(-0.15, 1.15, 16)
    far = np.square((cells - 0.3) / (cells[1] - cells[0])) / -2
    hill = np.broadcast_to(far[:, None] + far[None], [1, 68, 16, 16]).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        losses = [session.run(heat_map_loss(tf.constant(np.roll(hill, shift, -1)), labels)) for shift in (0, 1, -1)]
    assert losses[0] < min(losses[1:])


def test_gap_loss_is_the_error_of_the_gaps_over_the_width_of_eye_or_mouth(make):
    true = np.stack([make.points(seed) / 450 for seed in (0, 1)]).astype(np.float32)
    shut, moved, unlabelled = true.copy(), true + 0.1, true.copy()
    shut[:, [37, 38]] = shut[:, [41, 40]]
    unlabelled[0, :48], unlabelled[1, 60] = np.nan, np.nan  # leaves a mouth and two eyes
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = tf.placeholder(tf.float32, [None, 136])
        for predicted, labels, expected in (
            (moved, true, 0),
            (shut, true, np.abs(true[:, [37, 38]] - true[:, [41, 40]]).sum((1, 2))
             / np.maximum(np.linalg.norm(true[:, 36] - true[:, 39], axis=1), 0.05) / 14),
            (moved, unlabelled, 0),
            (shut, unlabelled, None),
            (moved, np.full_like(true, np.nan), 0),
        ):  # fmt: skip
            loss = gap_loss(outputs, tf.constant(labels.reshape(-1, 136)))
            value, slope = session.run([loss, tf.gradients(loss, outputs)[0]], {outputs: predicted.reshape(-1, 136)})
            assert np.isfinite(slope).all()
            if expected is not None:
                np.testing.assert_allclose(value, np.mean(expected), atol=1e-5)
            else:
                assert value > 0 and not slope.reshape(-1, 68, 2)[0, :48].any()


def test_unknown_network_is_refused(tmp_path, crops):
    (tmp_path / "run.json").write_text('{"network": "none"}')
    (tmp_path / "model.ckpt-1.index").touch()
    with pytest.raises(UserError, match="run.json names the network none, not one of original"):
        export.freeze(str(tmp_path / "model.ckpt-1"), crops)
