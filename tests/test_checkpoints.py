import json

import pytest

from landmark.recipe import DEFAULT, ORIGINAL


def test_a_run_that_goes_on_keeps_its_recipe_and_may_have_other_steps(records, tmp_path, run, says):
    common = ["--data", records, "--models", tmp_path, "--batch_size", 4, "--steps"]
    assert run("train.py", *common, 1).returncode == 0
    written = json.loads((tmp_path / "run.json").read_text())
    assert written.items() >= {"recipe": "default", "network": "deep", "label": "pts_2d", "steps": 1}.items()
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
