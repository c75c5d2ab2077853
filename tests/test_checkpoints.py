import json

import numpy as np
import pytest

from landmark.recipe import DEFAULT, ORIGINAL
from landmark.records import summarize_records


def test_a_run_that_goes_on_keeps_its_recipe_and_may_have_other_steps(records, tmp_path, run, says):
    common = ["--data", records, "--models", tmp_path, "--batch_size", 4, "--steps"]
    assert run("train.py", *common, 1).returncode == 0
    written = json.loads((tmp_path / "run.json").read_text())
    assert written.items() >= {"recipe": "default", "network": "original", "label": "pts_2d", "steps": 1}.items()
    assert written.items() >= {"loss": "l1", "turn": 12, "batch_size": 4, "seed": 0}.items()
    before = {path.name for path in tmp_path.iterdir()}
    message = says("train", *common, 2, "--recipe", "original")
    assert str(tmp_path) in message and "recipe default, not original" in message
    for name, other in ("network", "wide"), ("label", "pts_3d"), ("loss", "l2"):
        (tmp_path / "run.json").write_text(json.dumps(written | {name: other}))
        assert f"{name} {other}, not {written[name]}" in says("train", *common, 2)
    assert {path.name for path in tmp_path.iterdir()} == before
    (tmp_path / "run.json").write_text("{")
    assert str(tmp_path / "run.json") in says("train", *common, 2)
    (tmp_path / "run.json").write_text(json.dumps(written))
    done = run("train.py", *common, 2)
    assert done.returncode == 0 and "steps was 1 in" in done.stdout
    assert json.loads((tmp_path / "run.json").read_text()) == written | {"steps": 2}


def test_an_ablation_with_a_wrong_name_fails():
    assert DEFAULT._replace(average_decay=0) != DEFAULT != ORIGINAL
    with pytest.raises(ValueError, match="averge_decay"):
        DEFAULT._replace(averge_decay=0)


def test_what_preparation_counted_is_what_the_records_hold(records, tmp_path, read_records):
    known = summarize_records(records)
    faces = {side: read_records(records / f"{side}.tfrecords") for side in ("train", "test")}
    assert (known.points, known.train, known.test) == ("pts_2d", len(faces["train"]), len(faces["test"]))
    np.testing.assert_allclose(known.mean_face, np.mean([label for _, _, label, _ in faces["train"]], 0, np.float64))
    for side in faces:  # records without what preparation wrote down: they are read
        (tmp_path / f"{side}.tfrecords").write_bytes((records / f"{side}.tfrecords").read_bytes())
    for damaged in None, "{", "{}":
        if damaged:
            (tmp_path / "records.json").write_text(damaged)
        read = summarize_records(tmp_path)
        np.testing.assert_array_equal(read.mean_face, known.mean_face)
        assert read[2:] == known[2:]


def test_records_newer_than_what_was_counted_are_read_again(records, tmp_path):
    for name in "records.json", "train.tfrecords", "test.tfrecords":
        (tmp_path / name).write_bytes((records / name).read_bytes())
    whole = (tmp_path / "test.tfrecords").read_bytes()
    (tmp_path / "test.tfrecords").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="test.tfrecords is damaged"):
        summarize_records(tmp_path)
