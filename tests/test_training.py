import functools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from landmark.recipe import DEFAULT, RECIPES
from landmark.training import add_test_set, measure
from senet import SENet
from train import add_training


def test_every_test_record_is_measured_in_pixels_of_its_photo(
    records, read_records, live_checkpoint, checkpoint_outputs
):
    faces = read_records(records / "test.tfrecords")
    assert len(faces) % 3
    outputs = checkpoint_outputs(live_checkpoint, np.stack([crop for _, crop, _, _ in faces])).astype(np.float64)
    losses, inter_ocular, by_box = [], [], []
    for shares, (_, _, label, (x_min, y_min, x_max, y_max)) in zip(outputs, faces, strict=True):
        losses.append(np.mean((shares - label) ** 2))
        sides = np.array([x_max - x_min, y_max - y_min])
        p, q = shares.reshape(68, 2) * sides, label.reshape(68, 2) * sides
        error = np.mean([np.hypot(*(a - b)) for a, b in zip(p, q, strict=True)])
        inter_ocular.append(error / np.hypot(*(q[36] - q[45])))
        by_box.append(error / np.sqrt((q[:, 0].max() - q[:, 0].min()) * (q[:, 1].max() - q[:, 1].min())))
    with tf.Graph().as_default(), tf.Session() as session:
        test = add_test_set([records / "test.tfrecords"], batch_size=3)
        tf.train.Saver().restore(session, live_checkpoint)
        measured = [measure(session, test) for _ in range(2)]
    expected = np.mean(losses), np.mean(inter_ocular), np.mean(by_box)
    np.testing.assert_allclose(measured[0][:3], expected, rtol=1e-4)
    assert set(measured[0].by_yaw) <= {"0-30", "30-60", "60-90"} and measured[0].by_yaw
    assert measured[0] == measured[1]


@pytest.mark.parametrize(
    "recipe, weight_decay, rates",
    [
        ("original", 1e-5, {0: 1e-3, 999: 1e-3, 1000: 0.98e-3, 2999: 0.98**2 * 1e-3, 150_000: 1e-3 * 0.98**150}),
        # A hundred steps of warm-up, and over the second half of the run half a cosine, times the decay.
        (
            "default",
            1e-6,
            {0: 3e-5, 49: 1.5e-3, 999: 3e-3, 75_000: 3e-3 * 0.98**75, 112_500: 1.5e-3 * 0.98**112, 150_000: 0},
        ),
    ],
)
def test_learning_rate_and_l2_loss_of_a_recipe(recipe, weight_decay, rates):
    with tf.Graph().as_default(), tf.Session() as session:
        crops, labels = tf.zeros([2, 128, 128, 3]), tf.zeros([2, 136])
        scalars = add_training(crops, labels, RECIPES[recipe], 150_000).scalars
        session.run(tf.global_variables_initializer())
        convolutions = [variable for variable in tf.trainable_variables("Conv") if "/weights" in variable.name]
        squares = sum(np.square(weights).sum() for weights in session.run(convolutions))
        assert session.run(scalars["l2"]) == pytest.approx(weight_decay * squares / 2, rel=1e-4)
        step = tf.train.get_global_step()
        for at, expected in rates.items():
            step.load(at, session)
            assert session.run(scalars["learning_rate"]) == pytest.approx(expected, rel=1e-3, abs=1e-9), at


@pytest.mark.parametrize("network", ["original", "deep"])
def test_a_point_without_a_label_teaches_nothing(network, make):
    crops = np.stack([make.photo(seed, 128, 128) for seed in range(4)]).astype(np.float32)
    labels = np.random.default_rng(0).uniform(0.2, 0.8, [4, 136]).astype(np.float32)
    missing = labels.copy()
    missing[:2, :34] = np.nan
    with tf.Graph().as_default(), tf.Session() as session:
        given = tf.placeholder_with_default(labels, [4, 136])
        recipe = DEFAULT._replace(keep_prob=1)
        training = add_training(tf.constant(crops), given, recipe, 10, functools.partial(SENet, network=network))
        outputs = next(op for op in tf.get_default_graph().get_operations() if op.name == "fully_connected_9/Relu")
        gradient = tf.gradients(training.scalars["loss"], outputs.outputs[0])[0]
        session.run(tf.global_variables_initializer())
        full, some = (session.run([gradient, training.scalars], {given: given_}) for given_ in (labels, missing))
    assert np.isfinite(some[1]["total"])
    known = np.isfinite(missing)
    assert (some[0][~known] == 0).all()
    np.testing.assert_allclose(some[0][known] * known.mean(), full[0][known], rtol=1e-4)
