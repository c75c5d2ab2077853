import re
import shutil
import subprocess

import pytest
from conftest import REPO


def test_readme_shows_the_examples_as_they_are():
    blocks = re.findall(r"^```(?:python|cpp)\n(.*?)^```", (REPO / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    programs = [path.read_text() for path in (REPO / "examples").iterdir() if path.is_file()]
    assert sorted(blocks) == sorted(programs)


@pytest.mark.parametrize("script", ["run.sh", "test.sh", ".ci/run"])
def test_shell_scripts_parse(script):
    done = subprocess.run(["bash", "-n", REPO / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ci_runs_test_sh_and_ends_as_it_does(tmp_path):
    shutil.copytree(REPO / ".ci", tmp_path / ".ci")
    (tmp_path / "test.sh").write_text("echo tested\nexit 3\n")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (3, "tested\n")


def test_run_sh_types_the_four_lines_in_order():
    lines = re.findall(r"^python (\w+\.py)", (REPO / "run.sh").read_text(), re.MULTILINE)
    assert lines == ["prepare_tfrecords.py", "train.py", "freeze_graph.py", "test_pb.py"]


def test_requirements_are_bounded_on_both_sides_and_have_one_opencv():
    text = (REPO / "requirements.txt").read_text() + (REPO / "requirements-dev.txt").read_text()
    needed = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+,<[\d.]+", line) for line in needed)
    names = [re.match(r"[\w-]+", line)[0] for line in needed]
    assert [name for name in names if name.startswith("opencv")] == ["opencv-python-headless"]
    assert {"tensorflow", "numpy", "scipy", "tensorboard", "tqdm", "matplotlib", "pytest", "ruff"} <= set(names)
