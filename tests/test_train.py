import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ENVIRONMENT, REPO

from landmark.augment import augment_batch, change_light, move_face
from landmark.points import MIRROR, nme
from landmark.recipe import DEFAULT, RECIPES
from landmark.training import add_test_set, add_training, measure
from senet import SENet, start_awake


@pytest.fixture
def train(monkeypatch):
    """train(*arguments): train.py's main() in this process."""
    import train as script

    def train(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        script.main()

    return train


def variable(checkpoint, ending):
    """The value of the one variable of a checkpoint whose name ends so."""
    reader = tf.train.load_checkpoint(str(checkpoint))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith(ending)]
    assert len(names) == 1
    return reader.get_tensor(names[0])


def summaries(models):
    """tag -> list of (step, Summary.Value) of every event file."""
    found = {}
    for path in sorted((models / "logs").glob("events*")):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def test_tensorboard_has_the_curves_and_the_pictures(trained):
    found = summaries(trained.models)
    scalars = {f"train/{name}" for name in ("loss", "l2", "total", "learning_rate", "images_per_second")}
    scalars |= {"test/loss", "test/nme_inter_ocular", "test/nme_box"}
    assert set(found) == scalars | {"test/crops"}
    number = {tag: found[tag][0][1].simple_value for tag in scalars}
    assert all(found[tag][0][0] == 20 for tag in found)
    assert number["train/total"] == pytest.approx(number["train/loss"] + number["train/l2"], rel=1e-5)
    assert 0 < number["train/learning_rate"] < 0.01
    assert f"test NME {number['test/nme_inter_ocular']:.2%}" in trained.stdout
    sheet = tf.io.decode_jpeg(found["test/crops"][0][1].image.encoded_image_string)
    assert sheet.shape == (256, 1280, 3)  # the first batch: four crops in one row


def test_nme_by_hand():
    true = np.full((2, 68, 2), 40.0)
    true[:, 0], true[:, 1] = (0, 0), (100, 64)
    true[:, 36], true[:, 45] = (10, 20), (40, 60)
    predicted = true + [3, 4]
    predicted[1, :34] = true[1, :34]
    inter_ocular, box = nme(predicted, true)
    np.testing.assert_allclose(inter_ocular, [5 / 50, 2.5 / 50])
    np.testing.assert_allclose(box, [5 / 80, 2.5 / 80])


def test_measure_is_that_of_every_test_record_in_photo_pixels(
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
    np.testing.assert_allclose(measured[0], expected, rtol=1e-4)
    assert measured[0] == measured[1]


@pytest.mark.parametrize(
    "recipe, weight_decay, rates",
    [
        ("original", 1e-5, {0: 1e-3, 999: 1e-3, 1000: 0.98e-3, 2999: 0.98**2 * 1e-3, 150_000: 1e-3 * 0.98**150}),
        # A hundred steps of warming up, and over the second half of the run half a cosine, times the decay of SPEC 5.
        (
            "default",
            1e-6,
            {0: 3e-5, 49: 1.5e-3, 999: 3e-3, 75_000: 3e-3 * 0.98**75, 112_500: 1.5e-3 * 0.98**112, 150_000: 0},
        ),
    ],
)
def test_learning_rate_and_l2_of_a_recipe(recipe, weight_decay, rates):
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


def test_a_restart_goes_on_and_the_last_five_are_kept(trained, records, tmp_path, run, train, capsys):
    models = tmp_path / "models"
    common = ["--data", records, "--models", models, "--batch_size", 4, "--steps"]
    printed = []
    for steps in 2, 3, 4, 5, 6, 7:
        train(*common, steps)
        printed.append(capsys.readouterr().out)
    assert "going on" not in printed[0]
    for steps, text in zip((3, 4, 5, 6, 7), printed[1:], strict=True):
        assert f"going on from {models / 'model.ckpt'}-{steps - 1}" in text
        assert f"step {steps} " in text
    names = {path.name for path in models.glob("model.ckpt-*.index")}
    assert names == {f"model.ckpt-{steps}.index" for steps in (3, 4, 5, 6, 7)}
    assert len(list(models.glob("best.ckpt-*.index"))) == 1
    last = models / "model.ckpt-7"
    assert variable(last, "global_step") == 7
    # Adam multiplies beta1_power by 0.9 a step; from anew it would be 0.9^2 after each one-step run.
    assert variable(last, "beta1_power") == pytest.approx(0.9**8, rel=1e-5)
    before, after = (variable(models / f"model.ckpt-{steps}", "Conv_16/weights/Adam") for steps in (6, 7))
    assert np.linalg.norm(after - 0.9 * before) < np.linalg.norm(after)

    files = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    train(*common, 7)
    assert f"{last} has 7 steps of 7" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == files


def test_a_moved_folder_of_checkpoints_goes_on(records, tmp_path, train, capsys):
    models, moved = tmp_path / "models", tmp_path / "moved"
    train("--data", records, "--models", models, "--batch_size", 4, "--steps", 1)
    models.rename(moved)
    train("--data", records, "--models", moved, "--batch_size", 4, "--steps", 2)
    printed = capsys.readouterr().out
    assert f"best so far: {moved / 'best.ckpt-1'}" in printed
    assert f"going on from {moved / 'model.ckpt-1'}" in printed
    assert not models.exists()


def test_best_is_the_checkpoint_with_the_lowest_test_nme(trained, records, tmp_path, train, capsys):
    train("--data", records, "--models", tmp_path, "--batch_size", 4, "--steps", 2)
    train("--data", records, "--models", tmp_path, "--batch_size", 4, "--steps", 3, "--learning_rate", 0.5)
    found = summaries(tmp_path)["test/nme_inter_ocular"]
    lowest = min(found, key=lambda point: point[1].simple_value)[0]
    assert tf.train.latest_checkpoint(tmp_path, "best").endswith(f"best.ckpt-{lowest}")
    assert [path.stem for path in tmp_path.glob("best.ckpt-*.index")] == [f"best.ckpt-{lowest}"]


def test_the_seed_decides_the_run(records, tmp_path, train):
    ends = []
    for name, seed in ("a", 3), ("b", 3), ("c", 4):
        train("--data", records, "--models", tmp_path / name, "--batch_size", 4, "--steps", 3, "--seed", seed)
        ends.append(variable(tmp_path / name / "model.ckpt-3", "fully_connected_8/weights"))
    # Not bit for bit: threads sum in any order, and Adam divides small gradients by their own size.
    assert np.abs(ends[0] - ends[1]).mean() < 1e-3 < 0.01 < np.abs(ends[0] - ends[2]).mean()


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(records, tmp_path, train, capsys):
    common = ["--data", str(records), "--models", str(tmp_path), "--batch_size", "1", "--steps"]
    command = [sys.executable, "train.py", *common, "2000"]
    with subprocess.Popen(
        command, cwd=REPO, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert any(line.startswith("step 100 ") for line in process.stdout), process.stderr.read()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1 and "Traceback" not in stderr
    last = tf.train.latest_checkpoint(tmp_path)
    step = int(last.rpartition("-")[2])
    assert step >= 100 and f"interrupted at step {step};" in stderr
    assert variable(last, "global_step") == step
    train(*common, step + 1)
    assert f"going on from {last}" in capsys.readouterr().out


def example(image, label):
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(image)])),
        "label": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5] * label)),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.mark.parametrize("side", ["train", "test"])
def test_records_that_cannot_be_used_are_one_line_with_their_name(records, tmp_path, says, side):
    for name in "train", "test":
        (tmp_path / f"{name}.tfrecords").write_bytes((records / f"{name}.tfrecords").read_bytes())
    path, models = tmp_path / f"{side}.tfrecords", tmp_path / "models"
    command = ["train", "--data", tmp_path, "--models", models, "--steps", 1]
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) * 2 // 3],
        whole[:-1],
        b"",
        b"not records at all\n",
        whole[:60000] + whole[60001:],
    ):
        path.write_bytes(damaged)
        assert str(path) in says(*command)
    for image, label in (64 * 64 * 3, 136), (49152, 10), (49152, 0):
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(example(image, label))
        message = says(*command)
        assert str(path) in message and str(image) in message and str(label) in message
    path.unlink()
    message = says(*command)
    assert f"{side}*.tfrecords" in message and str(tmp_path) in message
    assert not list(tmp_path.rglob("*.ckpt*"))


@pytest.mark.parametrize("step", [5, None], ids=["with a step", "without a step"])
def test_checkpoint_of_another_graph_is_one_line_with_its_name(records, tmp_path, says, save_variables, step):
    checkpoint = save_variables({"dense/kernel": np.ones(3, np.float32)}, tmp_path / "model.ckpt", step)
    message = says("train", "--data", records, "--models", tmp_path, "--steps", 9, "--batch_size", 4)
    assert checkpoint in message and "invalid literal" not in message


@pytest.mark.parametrize(
    "flag, value",
    [("batch_size", 0), ("keep_prob", 2), ("keep_prob", 0), ("steps", -1), ("learning_rate", "nan"), ("seed", "x")],
)
def test_a_flag_out_of_range_is_named(stop, flag, value):
    code, message = stop("train", f"--{flag}", value)
    assert code == 2 and f"--{flag}" in message and str(value) in message


def test_points_move_with_the_face(make):
    """White discs at the points of a black photo are found where move_face says the points are."""
    rng = np.random.default_rng(5)
    columns, rows = np.meshgrid(np.linspace(130, 320, 9), np.linspace(120, 330, 8))
    points = np.stack([columns.ravel()[:68], rows.ravel()[:68]], -1)
    photo = np.zeros((450, 450, 3), np.uint8)
    for x, y in points:
        cv2.circle(photo, (int(x), int(y)), 4, (255, 255, 255), cv2.FILLED)
    turned, off = [], []
    for _ in range(20):
        crop, moved = move_face(photo, np.trunc(points), DEFAULT.turn, DEFAULT.shake, rng)
        moved = moved * 128 - 0.5 + 0.5 * 128 / 210  # from pixel indices of the photo to those of the crop
        turned.append(np.arctan2(*(moved[8] - moved[0])[::-1]))
        _, _, _, centres = cv2.connectedComponentsWithStats((crop[..., 0] > 110).astype(np.uint8))
        inside = moved[((moved > 3) & (moved < 124)).all(-1)]
        assert len(inside) > 40
        off += [np.linalg.norm(centres[1:] - point, axis=-1).min() for point in inside]
    assert np.ptp(turned) > 0.3
    assert max(off) < 1


def test_mirror_swaps_the_sides_of_the_face():
    mirror = np.array(MIRROR)
    assert (mirror[mirror] == np.arange(68)).all()
    # chin, nose bridge, lips' middles stay; outer eye corners, brow ends, mouth corners change places
    assert all(mirror[i] == i for i in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66))
    pairs = {
        0: 16,
        17: 26,
        21: 22,
        31: 35,
        36: 45,
        37: 44,
        39: 42,
        40: 47,
        41: 46,
        48: 54,
        50: 52,
        59: 55,
        60: 64,
        67: 65,
    }
    assert all(mirror[i] == j for i, j in pairs.items())


def test_augmentation_is_the_seeds_and_steps_and_starts_from_nothing(records):
    faces = []
    for record in tf.io.tf_record_iterator(str(records / "test.tfrecords")):
        feature = tf.train.Example.FromString(record).features.feature
        label, box = np.array(feature["label"].float_list.value, np.float32), feature["box"].int64_list.value[:]
        faces.append((feature["image"].bytes_list.value[0], label, box, feature["photo"].bytes_list.value[0]))
    images, labels, boxes, photos = (list(column) for column in zip(*faces, strict=True))

    def augment(seed, step, photos=photos):
        return augment_batch(DEFAULT, seed, step, images, np.array(labels), np.array(boxes), photos)

    plain = [np.frombuffer(image, np.uint8).reshape(128, 128, 3).astype(int) for image in images]
    for chosen in photos, [b""] * len(photos):  # with and without a photo in the record
        for crop, label, image, true in zip(*augment(1, 0, chosen), plain, labels, strict=True):
            mirrored = np.abs(crop - image).mean() > np.abs(crop[:, ::-1] - image).mean()
            assert np.abs((crop[:, ::-1] if mirrored else crop) - image).mean() < 4
            expected = true.reshape(68, 2)
            if mirrored:
                expected = expected[MIRROR] * [-1, 1] + [1, 0]
            np.testing.assert_allclose(label.reshape(68, 2), expected, atol=0.03)  # the box has whole pixels
    for one, other in zip(augment(1, 5000), augment(1, 5000), strict=True):
        np.testing.assert_array_equal(one, other)
    for seed, step in (2, 5000), (1, 5001):
        assert (augment(1, 5000)[1] != augment(seed, step)[1]).any()


def test_light_keeps_the_crop_a_crop(make):
    rng = np.random.default_rng(0)
    crop = make.photo(3, 128, 128)
    changed = [change_light(crop.copy(), 1, rng) for _ in range(100)]
    assert all(one.shape == (128, 128, 3) and one.dtype == np.uint8 for one in changed)
    differences = [np.abs(one.astype(int) - crop).mean() for one in changed]
    assert min(differences) < 5 < np.median(differences) < 60
    np.testing.assert_array_equal(change_light(crop.copy(), 0, rng), crop)


def test_a_new_network_answers_the_mean_face_and_none_of_its_units_sleeps(make):
    mean_face = np.linspace(0.1, 0.9, 136)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.set_random_seed(0)
        outputs, end_points = SENet(
            tf.constant(np.array([make.photo(i, 128, 128) for i in range(8)]), tf.float32), is_training=True
        )
        hidden = graph.get_tensor_by_name("fully_connected_8/MatMul:0")
        wake = start_awake(end_points, mean_face, DEFAULT.hidden_scale, DEFAULT.hidden_mean)
        session.run(tf.global_variables_initializer())
        narrow = np.ptp(session.run(hidden), axis=0).mean()
        for op in wake:
            session.run(op)
        np.testing.assert_allclose(session.run(outputs), np.tile(mean_face, [8, 1]), rtol=1e-6)
        for layer in ["fully_connected", *(f"fully_connected_{i}" for i in range(1, 8))]:
            gate = session.run(graph.get_tensor_by_name(f"{layer}/Relu:0"))
            assert (gate.max(0) > 0).mean() > 0.9, layer
        units = session.run(graph.get_tensor_by_name("fully_connected_8/BiasAdd:0"))
        np.testing.assert_allclose(units.mean(0), 2, atol=1e-2)
        assert 8 * narrow < np.ptp(units, axis=0).mean() < 16 * narrow
