"""The documentation, the shell scripts and the requirements."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPO

PAGES = [path for path in [*REPO.glob("*.md"), *REPO.glob("*/*.md"), *REPO.glob("examples/*/*.md")]]


def test_every_program_in_the_documentation_is_a_file_in_examples():
    """test_examples.py runs these."""

    def blocks(path):
        return re.findall(r"^```(?:python|cpp)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)

    examples = REPO / "examples"
    programs = {path.read_text() for path in examples.iterdir() if path.suffix in (".py", ".cpp")}
    assert {*blocks(examples / "README.md")} == programs
    assert blocks(REPO / "README.md")
    for page in PAGES:
        assert {*blocks(page)} <= programs, page


@pytest.mark.parametrize("script", ["run.sh", "test.sh", ".ci/run", ".ci/environment.sh"])
def test_shell_scripts_parse(script):
    done = subprocess.run(["bash", "-n", REPO / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ci_runs_test_sh_and_exits_with_its_code(tmp_path):
    shutil.copytree(REPO / ".ci", tmp_path / ".ci")
    (tmp_path / "test.sh").write_text("echo tested\nexit 3\n")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (3, "tested\n")


def test_run_sh_shows_the_shipped_model_and_types_the_four_lines_in_order():
    lines = re.findall(r"^python (\w+\.py)", (REPO / "run.sh").read_text(), re.MULTILINE)
    assert lines == ["test_pb.py", "prepare_tfrecords.py", "train.py", "freeze_graph.py", "test_pb.py"]


def test_requirements_are_bounded_on_both_sides_and_have_one_opencv():
    text = (REPO / "requirements.txt").read_text() + (REPO / "requirements-dev.txt").read_text()
    needed = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+,<[\d.]+", line) for line in needed)
    names = [re.match(r"[\w-]+", line)[0] for line in needed]
    assert [name for name in names if name.startswith("opencv")] == ["opencv-python-headless"]
    needed = "tensorflow numpy scipy pillow tensorboard tqdm matplotlib pytest ruff"
    assert {*needed.split()} <= {*names}


def test_the_same_pythons_are_named_everywhere():
    versions = re.findall(r'"(3\.\d+)"', (REPO / ".github/workflows/ci.yml").read_text())
    target = re.search(r'target-version = "py3(\d+)"', (REPO / "pyproject.toml").read_text())[1]
    assert versions[0] == f"3.{target}" and versions == [f"3.{int(target) + i}" for i in range(len(versions))]
    named = f"Python {', '.join(versions[:-1])} or {versions[-1]}"
    assert named in (REPO / "README.md").read_text() and named in (REPO / ".ci/environment.sh").read_text()


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_lead_somewhere(page):
    for path, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        if "://" not in path:
            target = page.parent / path if path else page
            assert target.exists(), path
            assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.fixture
def start(tmp_path):
    """start(script, python): runs a shell script in a folder of its own, where python3 is `python`, a line of Python
    that says what it does, and the other programs do nothing."""

    def start(script, python):
        shutil.copy(REPO / script, tmp_path)
        shutil.copytree(REPO / ".ci", tmp_path / ".ci")
        (tmp_path / "data" / "sample").mkdir(parents=True)
        (tmp_path / "bin").mkdir()
        for name in "python3", "python", "pip", "ruff", "pytest":
            program = tmp_path / "bin" / name
            program.write_text(f"#!{sys.executable}\nimport sys\n{python if name == 'python3' else ''}\n")
            program.chmod(0o755)
        environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
        return subprocess.run(["bash", tmp_path / script], env=environment, capture_output=True, text=True)

    return start


@pytest.mark.parametrize("script", ["run.sh", "test.sh"])
def test_an_environment_that_is_half_made_is_made_anew(script, start, tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    done = start(script, "'venv' in sys.argv and open('.venv/bin/activate', 'w')")
    assert done.returncode == 0 and (tmp_path / ".venv/bin/activate").exists(), done.stderr


@pytest.mark.parametrize("script", ["run.sh", "test.sh"])
@pytest.mark.parametrize("version, fits", [((3, 9), False), ((3, 10), False), ((3, 11), True), ((3, 14), False)])
def test_a_python_that_is_too_old_or_too_new_is_one_line(script, version, fits, start, tmp_path):
    python = f"sys.version_info = {(*version, 0)}\nif '-c' in sys.argv: exec(sys.argv[-1])\n"
    python += f"if '--version' in sys.argv: print('Python {version[0]}.{version[1]}.0')\n"
    python += "if 'venv' in sys.argv: import os; os.makedirs('.venv/bin'); open('.venv/bin/activate', 'w')"
    done = start(script, python)
    if fits:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"Python {version[0]}.{version[1]}.0" in done.stderr and "3.11, 3.12 or 3.13" in done.stderr
        assert not (tmp_path / ".venv").exists()
