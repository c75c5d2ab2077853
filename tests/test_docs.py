import re
import shutil
import subprocess

import pytest
from conftest import REPO


def test_readme_shows_the_examples_as_they_are():
    def blocks(path):
        return re.findall(r"^```(?:python|cpp)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)

    examples = REPO / "examples"
    programs = [path.read_text() for path in examples.iterdir() if path.suffix in (".py", ".cpp")]
    assert sorted(blocks(examples / "README.md")) == sorted(programs)
    assert blocks(REPO / "README.md") == [(examples / "opencv_dnn.py").read_text()]


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


def test_readme_and_pyproject_name_the_same_oldest_python():
    oldest = re.search(r'target-version = "py3(\d+)"', (REPO / "pyproject.toml").read_text())[1]
    assert f"Python 3.{oldest} to 3." in (REPO / "README.md").read_text()


def test_links_of_the_docs_lead_somewhere():
    for page in [*REPO.glob("*.md"), *REPO.glob("*/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("script", ["run.sh", "test.sh"])
def test_an_environment_that_is_half_made_is_made_anew(script, tmp_path):
    shutil.copy(REPO / script, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in "python3", "python", "pip", "ruff", "pytest":
        program = tmp_path / "bin" / name
        program.write_text('#!/bin/sh\ncase "$*" in *venv*) touch .venv/bin/activate ;; esac\n')
        program.chmod(0o755)
    done = subprocess.run(["bash", tmp_path / script], env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"})
    assert done.returncode == 0 and (tmp_path / ".venv/bin/activate").exists()
