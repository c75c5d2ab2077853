import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import BRIEF, ENVIRONMENT, REPO, call

from landmark import augment
from landmark.checkpoints import read_checkpoint
from landmark.pose import YAW_BINS
from landmark.records import read_records


def variable(checkpoint, ending):
    """The value of the one variable of a checkpoint whose name ends in `ending`."""
    (value,) = (value for name, value in read_checkpoint(checkpoint).items() if name.endswith(ending))
    return value


def summaries(models):
    """What the event files hold: dict of a tag to a list of (step, Summary.Value)."""
    found = {}
    for path in sorted((models / "logs").glob("events*")):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def test_tensorboard_has_the_curves_and_the_pictures(trained, records):
    found = summaries(trained.models)
    scalars = {f"train/{name}" for name in ("loss", "l2", "heat", "total", "learning_rate", "images_per_second")}
    yaws = [face.yaw for face in read_records([records / "test.tfrecords"])]
    bins = {f"{low}-{high}" for low, high in YAW_BINS if any(low <= yaw < high for yaw in yaws)}
    scalars |= {"test/loss", "test/nme_inter_ocular", "test/nme_box", *(f"test/nme_box_yaw_{each}" for each in bins)}
    assert set(found) == scalars | {"test/crops"}
    number = {tag: found[tag][0][1].simple_value for tag in scalars}
    assert all(found[tag][0][0] == 20 for tag in found)
    parts = sum(number[f"train/{name}"] for name in ("loss", "l2", "heat"))
    assert number["train/total"] == pytest.approx(parts, rel=1e-5)
    assert 0 < number["train/learning_rate"] < 0.01
    assert f"test NME {number['test/nme_inter_ocular']:.2%}" in trained.stdout
    sheet = tf.io.decode_jpeg(found["test/crops"][0][1].image.encoded_image_string)
    assert sheet.shape == (256, 1280, 3)  # the first batch: four crops in one row


def test_a_run_continues_after_its_folder_was_moved(records, begun, tmp_path, capsys):
    moved = begun.rename(tmp_path / "m [v2]")  # which TensorFlow takes for a pattern
    same = ["train", "--data", records, "--models", moved, *BRIEF]
    for name in "checkpoint", "best":  # where TensorFlow looks for the newest
        (moved / name).unlink()
    capsys.readouterr()
    call(*same, 3)
    printed = capsys.readouterr().out
    assert f"best so far: {moved / 'best.ckpt-2'}" in printed
    assert f"continuing from {moved / 'model.ckpt-2'}" in printed and "step 3 " in printed
    assert not begun.exists()
    last = moved / "model.ckpt-3"
    assert variable(last, "global_step") == 3
    # Adam multiplies beta1_power by 0.9 a step; a new Adam would have 0.9^2 after the second run.
    assert variable(last, "beta1_power") == pytest.approx(0.9**4, rel=1e-5)
    before, after = (variable(moved / f"model.ckpt-{steps}", "Conv_16/weights/Adam") for steps in (2, 3))
    assert np.linalg.norm(after - 0.9 * before) < np.linalg.norm(after)

    files = {path: path.stat().st_mtime_ns for path in moved.rglob("[!.]*")}
    call(*same, 3)
    assert f"{last} has 3 steps of 3" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("[!.]*")} == files

    call(*same, 4, "--learning_rate", 0.5)
    found = summaries(moved)["test/nme_box"]
    lowest = min(found, key=lambda point: point[1].simple_value)[0]
    assert [step for step, _ in found] == [2, 3, 4]
    assert [path.stem for path in moved.glob("best.ckpt-*.index")] == [f"best.ckpt-{lowest}"]


def test_a_new_run_can_start_with_the_weights_of_a_checkpoint(begun, records, tmp_path, says, capsys):
    best = str(begun / "best.ckpt-2")
    same = ["train", "--data", records, "--models", tmp_path / "new", *BRIEF]
    capsys.readouterr()
    call(*same, 1, "--init", best, "--learning_rate", 1e-9)
    assert "continuing" not in capsys.readouterr().out
    for name in "Conv_16/weights", "fully_connected_9/weights", "fully_connected/biases":
        now = variable(tmp_path / "new" / "best.ckpt-1", name)
        np.testing.assert_allclose(now, variable(best, name), atol=1e-6)
    other = "train", "--data", records, "--models", tmp_path / "other", "--steps", 1, "--init"
    assert f"{best} has network original, not deep" in says(*other, best)
    known, index = (tmp_path / f"3d.ckpt.{suffix}" for suffix in ("json", "index"))
    index.touch()
    for key in "landmark_type", "label":  # label: in earlier versions
        known.write_text(json.dumps({"network": "deep", key: "pts_3d"}))
        assert "landmark_type pts_3d, not pts_2d" in says(*other, tmp_path / "3d.ckpt")
    known.unlink()
    assert f"{tmp_path / '3d.ckpt'} is missing or damaged" in says(*other, tmp_path / "3d.ckpt")
    index.unlink()
    assert f"no such checkpoint: {tmp_path / '3d.ckpt'}" in says(*other, tmp_path / "3d.ckpt")
    assert not (tmp_path / "other" / "checkpoint").exists()


@pytest.fixture
def strengths(monkeypatch):
    """The strength of the augmentation of each crop that this process trains on, in a list."""
    found = []

    def look(crop, strength, rng):
        found.append(strength)
        return crop

    monkeypatch.setattr(augment, "change_light", look)
    return found


def test_augmentation_is_at_full_strength_at_once_in_a_run_that_starts_from_a_checkpoint(
    begun, records, tmp_path, strengths, capsys
):
    best, ramp = begun / "best.ckpt-2", "augment_ramp_steps"
    same = ["train", "--data", records, "--models", tmp_path / "new", *BRIEF]
    call(*same, 1, "--init", best)
    assert len(strengths) > 0 and {*strengths} == {1}
    capsys.readouterr()
    call(*same, 2, "--init", best)  # continues as it began
    assert "--init is for a new run, and not used" in capsys.readouterr().out
    assert {*strengths} == {1} and json.loads((tmp_path / "new" / "run.json").read_text())[ramp] == 0
    strengths.clear()
    call("train", "--data", records, "--models", begun, *BRIEF, 3, "--init", best)  # so does one without --init
    assert 0 < max(strengths) < 0.5 and json.loads((begun / "run.json").read_text())[ramp] == 1000


def test_the_seed_decides_the_run(records, begun, tmp_path):
    for seed in 0, 1:
        call("train", "--data", records, "--models", tmp_path / f"{seed}", *BRIEF, 2, "--seed", seed)
    ends = [variable(run / "model.ckpt-2", "Conv_16/weights") for run in (begun, tmp_path / "0", tmp_path / "1")]
    # Not bit by bit: threads sum in any order, and Adam divides small gradients by their own size.
    assert np.abs(ends[0] - ends[1]).mean() < 1e-3 < 0.01 < np.abs(ends[0] - ends[2]).mean()


def test_ctrl_c_leaves_a_checkpoint_from_which_the_same_command_continues(records, tmp_path, capsys):
    same = ["--data", records, "--models", tmp_path, "--network", "original", "--batch_size", 1, "--steps", 140]
    command = [sys.executable, "train.py", *map(str, same)]
    with subprocess.Popen(
        command, cwd=REPO, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert any(line.startswith("step 100 ") for line in process.stdout), process.stderr.read()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in stderr
    last = tf.train.latest_checkpoint(tmp_path)
    step = int(last.rpartition("-")[2])
    assert step >= 100 and f"interrupted at step {step};" in stderr
    assert variable(last, "global_step") == step
    call("train", *same)
    assert f"continuing from {last}" in capsys.readouterr().out
    # The schedule and Adam have counted the steps as in 140 steps without a stop.
    rates = {at: value.simple_value for at, value in summaries(tmp_path)["train/learning_rate"]}
    expected = {at: 0.0015 * (1 + np.cos(np.pi * (at - 71) / 70)) for at in (120, 140)}
    assert {at: rates[at] for at in expected} == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert variable(tmp_path / "model.ckpt-140", "beta2_power") == pytest.approx(0.999**141, rel=1e-3)


def example(image, label):
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(image)])),
        "label": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5] * label)),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_that_cannot_be_used_are_one_line_with_their_name(records, tmp_path, says, split):
    for name in "train", "test":  # without records.json, so that all of them are read
        (tmp_path / f"{name}.tfrecords").write_bytes((records / f"{name}.tfrecords").read_bytes())
    path, models = tmp_path / f"{split}.tfrecords", tmp_path / "models"
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
    assert f"{split}*.tfrecords" in message and str(tmp_path) in message
    assert not list(tmp_path.rglob("*.ckpt*")) and not (tmp_path / "records.json").exists()


@pytest.mark.parametrize("step", [5, None], ids=["with a step", "without a step"])
def test_checkpoint_of_another_graph_is_one_line_with_its_name(records, tmp_path, says, save_variables, step):
    checkpoint = save_variables({"dense/kernel": np.ones(3, np.float32)}, tmp_path / "model.ckpt", step)
    message = says("train", "--data", records, "--models", tmp_path, "--steps", 9, "--batch_size", 4)
    assert checkpoint in message and re.search("not found in checkpoint|names end in -STEP", message)


@pytest.mark.parametrize(
    "flag, value",
    [("batch_size", 0), ("keep_prob", 2), ("keep_prob", 0), ("steps", -1), ("learning_rate", "nan"), ("seed", "x")],
)
def test_a_flag_out_of_range_is_named(stop, flag, value):
    code, message = stop("train", f"--{flag}", value)
    assert code == 2 and f"--{flag}" in message and str(value) in message
