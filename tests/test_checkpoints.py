import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import BRIEF, call, names_in

from landmark.checkpoints import BEST, LAST, find_whole, is_due, lock_models, prefix_of, read_checkpoint, read_run, save
from landmark.cli import UserError
from landmark.recipe import DEFAULT, FORMER_NAMES, ORIGINAL, RECIPES


def test_a_resumed_run_keeps_its_recipe_and_may_have_other_steps(records, begun, says, capsys):
    same = ["train", "--data", records, "--models", begun, *BRIEF]
    written = json.loads((begun / "run.json").read_text())
    known = {"recipe": "default", "network": "original", "landmark_type": "pts_2d", "steps": 2}
    assert written.items() >= (known | {"loss": "l1", "rotation_std": 12, "batch_size": 4, "seed": 0}).items()
    before = {path.name for path in begun.iterdir()}
    message = says(*same, 3, "--recipe", "original")
    assert str(begun) in message and "recipe default, not original" in message
    for name, other in ("network", "wide"), ("landmark_type", "pts_3d"), ("loss", "l2"):
        (begun / "run.json").write_text(json.dumps(written | {name: other}))
        assert f"{name} {other}, not {written[name]}" in says(*same, 3)
    assert {path.name for path in begun.iterdir()} == before
    for damaged in "{", "[]":
        (begun / "run.json").write_text(damaged)
        assert f"{begun / 'run.json'} is damaged" in says(*same, 3)
    (begun / "run.json").write_text(json.dumps(written))
    call(*same, 3, "--init", begun / "none")  # which counts for new runs alone
    said = capsys.readouterr().out
    assert "steps was 2 in" in said and "continuing from" in said
    assert json.loads((begun / "run.json").read_text()) == written | {"steps": 3}


def test_a_run_that_saved_nothing_may_begin_anew_with_other_choices(begun, records, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(begun / "run.json", tmp_path / "new")
    call("train", "--data", records, "--models", tmp_path / "new", *BRIEF, 1, "--recipe", "original")
    assert json.loads((tmp_path / "new/run.json").read_text())["recipe"] == "original"


def test_other_records_are_said_when_a_run_continues(begun, records, tmp_path, capsys):
    others = shutil.copytree(records, tmp_path / "others")
    manifest = json.loads((others / "records.json").read_text())
    (others / "records.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 32}))
    call("train", "--data", others, "--models", begun, *BRIEF, 3)
    assert f"list {manifest['fingerprint']} in {begun} and is" in capsys.readouterr().out


# The run.json of the version before the names in FORMER_NAMES were changed.
FORMER_RUN = """{
  "recipe": "default", "network": "original", "label": "pts_2d", "loss": "l1", "heat_share": 0.05,
  "learning_rate": 0.003, "decay_steps": 1000, "decay_rate": 0.98, "warm_steps": 100, "anneal_from": 0.5,
  "connected_rate": 0.03, "weight_decay": 1e-06, "keep_prob": 0.8, "debias": true, "average_decay": 0.999,
  "awake": true, "hidden_scale": 12, "hidden_mean": 2, "frontal_share": 0.5, "augment": true, "growth_steps": 1000,
  "turn": 12, "shake": 0.05, "mirror_shift": 0.004, "steps": 2, "batch_size": 4, "seed": 0
}"""


def test_a_run_of_an_earlier_version_continues(records, begun, says, capsys):
    same = ["train", "--data", records, "--models", begun, *BRIEF, 3]
    written = json.loads((begun / "run.json").read_text())
    (begun / "run.json").write_text(FORMER_RUN.replace('"turn": 12', '"turn": 20'))
    assert "rotation_std 20, not 12" in says(*same)
    (begun / "run.json").write_text(FORMER_RUN)
    since = {name: written[name] for name in ("gap_loss_weight", "records", "repainted_share")}  # not yet there
    assert read_run(begun / "model.ckpt-2") | since == written
    capsys.readouterr()
    call(*same)
    said = capsys.readouterr().out
    assert f"continuing from {begun / 'model.ckpt-2'}" in said and said.count(" was ") == 1  # the steps
    assert json.loads((begun / "run.json").read_text()) == written | {"steps": 3}


def test_the_names_of_a_checkpoint_are_those_of_every_version(begun, spec_shapes):
    counters = {f"train/beta{i}_power{number}" for i in (1, 2) for number in ("", "_1")} | {"global_step"}
    trained = {name for name in spec_shapes if "/moving_" not in name}
    names = counters | {f"{name}/{slot}" for name in trained for slot in ("Adam", "Adam_1")}
    names |= {f"{name}{average}" for name in spec_shapes for average in ("", "/ExponentialMovingAverage")}
    assert read_checkpoint(str(begun / "model.ckpt-2")).keys() == names
    assert read_checkpoint(str(begun / "best.ckpt-2")).keys() == spec_shapes.keys()


def test_an_ablation_with_a_wrong_name_fails():
    assert DEFAULT._replace(ema_decay=0) != DEFAULT != ORIGINAL
    with pytest.raises((TypeError, ValueError), match="averge_decay"):  # TypeError from Python 3.13 on
        DEFAULT._replace(averge_decay=0)
    assert all(recipe.name == name for name, recipe in RECIPES.items())
    assert {*FORMER_NAMES.values()} <= {"landmark_type", *DEFAULT._fields} and not {*FORMER_NAMES} & {*DEFAULT._fields}


@pytest.fixture
def saved(tmp_path, save_variables):
    """saved(steps, name): the folder of the checkpoints of some steps, each with its step as the one value."""

    def saved(steps, name=LAST):
        folder = tmp_path / "m [v2]"  # which TensorFlow takes for a pattern
        folder.mkdir(exist_ok=True)
        for step in steps:
            save_variables({"weights": np.full([40, 50], step, np.float32)}, folder / name, step)
        return folder

    return saved


def test_the_newest_whole_checkpoint_is_found_whatever_the_file_checkpoint_says(saved, capsys):
    models = saved([8, 9, 10])
    for content in (models / "checkpoint").read_bytes(), b"", b"damaged", None:
        (models / "checkpoint").unlink()
        if content is not None:
            (models / "checkpoint").write_bytes(content)
        assert find_whole(models, LAST) == str(models / "model.ckpt-10")
    assert (read_checkpoint(find_whole(models, LAST))["weights"] == 10).all() and not capsys.readouterr().out
    (models / "model.ckpt-10.index").unlink()
    assert find_whole(models, LAST) == str(models / "model.ckpt-9")
    data = models / "model.ckpt-9.data-00000-of-00001"
    whole = data.read_bytes()
    for damaged in whole[:-1], whole[:100], bytes(len(whole)), b"", whole[:99] + b"?" + whole[100:]:
        data.write_bytes(damaged)
        assert find_whole(models, LAST) == str(models / "model.ckpt-8")
        said = capsys.readouterr().out
        assert "model.ckpt-9 is missing or damaged" in said and "model.ckpt-8\n" in said and said.count("\n") == 1
    index = models / "model.ckpt-8.index"
    huge = (b"\0" + b"\xff" * 8 + b"\x3f") * 2  # the place of its two blocks, as its last 48 bytes say it
    for damaged in b"no index", index.read_bytes()[:-48] + huge + bytes(20) + index.read_bytes()[-8:]:
        index.write_bytes(damaged)
        with pytest.raises(UserError, match="no model.ckpt in .* is intact") as refused:
            find_whole(models, LAST)
        assert str(models) in str(refused.value) and "\n" not in str(refused.value)
    assert find_whole(models, BEST) is None
    saved([7], BEST)
    assert find_whole(models, BEST) == str(models / "best.ckpt-7")


def test_train_and_freeze_stop_if_no_checkpoint_is_whole(saved, records, says):
    models = saved([5])
    (models / "model.ckpt-5.index").unlink()
    before = {path.name for path in models.iterdir()}
    for script in "train", "freeze_graph":
        assert f"no model.ckpt in {models} is intact" in says(script, "--data", records, "--models", models)
    assert {path.name for path in models.iterdir()} == before | {".lock"}


def test_what_a_kill_or_a_full_disk_left_of_a_save_is_removed(saved, tmp_path):
    models = saved([8, 9])
    names = {path.name for path in models.iterdir()}
    torn = ["model.ckpt-10.data-00000-of-00001.tempstate123", "checkpoint.tmp0a1b", "best.ckpt-9.index.tempstate7"]
    for name in [*torn, "model.ckpt-10.data-00000-of-00001"]:
        (models / name).write_bytes(b"half")
    with lock_models(models):
        assert {path.name for path in models.iterdir()} == names | {".lock"}
    first = tmp_path / "first"  # killed in its first save, before there was a file `checkpoint`
    first.mkdir()
    (first / "model.ckpt-10.data-00000-of-00001").write_bytes(b"half")
    with lock_models(first):
        assert find_whole(first, LAST) is None and [path.name for path in first.iterdir()] == [".lock"]


def test_a_second_run_in_a_folder_is_refused_with_the_number_of_the_first(records, tmp_path, says):
    models = tmp_path / "models"
    reader, writer = os.pipe()
    other = os.fork()
    if not other:  # in the child there is no test
        with lock_models(models):
            os.write(writer, b"!")
            signal.pause()
        os._exit(0)
    try:
        os.read(reader, 1)
        message = says("train", "--data", records, "--models", models, "--steps", 1)
        assert f"process {other} " in message and str(models) in message
        assert [path.name for path in models.iterdir()] == [".lock"]
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    with lock_models(models):
        assert (models / ".lock").read_text() == str(os.getpid())


def test_the_last_five_checkpoints_and_the_best_are_kept(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("weights", initializer=np.ones([3], np.float32))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(max_to_keep=None)
        for step in range(7, 14):
            for name in LAST, BEST:
                save(saver, session, tmp_path, name, step)
    names = {path.stem for path in tmp_path.glob("*.index")}
    assert names == {"best.ckpt-13", *(f"model.ckpt-{step}" for step in range(9, 14))}


def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(small_disk):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("weights", initializer=np.ones([150, 1000], np.float32))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(max_to_keep=None)
        save(saver, session, small_disk, LAST, 1)
        before = names_in(small_disk)
        with pytest.raises(UserError) as refused:
            save(saver, session, small_disk, LAST, 2)
    message = str(refused.value)
    assert f"{small_disk / 'model.ckpt-2'}: No space left on device" in message and "\n" not in message
    assert names_in(small_disk) == before
    assert find_whole(small_disk, LAST) == str(small_disk / "model.ckpt-1")


def test_a_diverging_run_stops_with_its_step_rate_and_last_good_checkpoint(records, begun, says):
    files = {path: path.read_bytes() for path in begun.glob("*.ckpt*")}
    same = "train", "--data", records, "--models", begun, *BRIEF
    message = says(*same, 3, "--learning_rate", "inf")  # the loss is still finite then, the weights are not
    assert "at step 3, at a learning rate of inf" in message
    assert message.endswith(f"the last checkpoint before it is {begun / 'model.ckpt-2'}")
    assert {path: path.read_bytes() for path in begun.glob("*.ckpt*")} == files
    assert find_whole(begun, LAST) == str(begun / "model.ckpt-2")


def test_a_killed_run_loses_at_most_1000_steps_or_5_minutes():
    assert [step for step in range(1, 5001) if is_due(step, 150_000, 10)] == [1000, 2000, 3000, 4000, 5000]
    assert is_due(17, 150_000, 300) and not is_due(17, 150_000, 299)
    assert [step for step in range(1, 251) if is_due(step, 250, 10)] == [100, 200, 250]


def test_a_checkpoint_can_be_named_by_any_of_its_files():
    for suffix in "", ".index", ".meta", ".data-00000-of-00001":
        assert prefix_of(f"models/x.ckpt-40{suffix}") == "models/x.ckpt-40"
