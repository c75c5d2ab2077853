"""What scripts print and how they end: their own lines alone; one for a mistake of the user; a traceback for a bug."""

from landmark.startup import SETTINGS, describe_device

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ENVIRONMENT, REPO, call

from landmark.cli import CORES, UserError

SHIPPED = REPO / "models" / "landmark.pb"
ON_CPU = f", on {CORES} CPU core{'s' * (CORES > 1)}"
ON_DEVICE = f", on {describe_device()}"

# Ending


@pytest.fixture
def end(tmp_path):
    """end(body, **options): runs a script whose main() has this body: (exit code, stderr). Options: see Popen."""

    def end(body, **options):
        program = "import os, sys\nfrom landmark.cli import UserError, command\n"
        program += f"\n@command\ndef main():\n    {body}\n\nmain()\n"
        options = {"stdout": subprocess.DEVNULL, "env": ENVIRONMENT, "cwd": tmp_path} | options
        with subprocess.Popen([sys.executable, "-c", program], stderr=-1, text=True, **options) as process:
            _, stderr = process.communicate(timeout=60)
        return process.returncode, stderr

    return end


def test_what_the_user_can_mend_is_one_line(end):
    assert end("raise UserError('a.jpg: empty file')") == (1, "a.jpg: empty file\n")
    assert not issubclass(UserError, (ValueError, OSError))


@pytest.mark.parametrize("bug", ["ValueError('shapes differ')", "KeyError('x')", "OSError(5, 'no file is named')"])
def test_a_bug_of_ours_keeps_its_traceback(bug, end):
    code, stderr = end(f"raise {bug}")
    assert code == 1 and stderr.startswith("Traceback") and "in main" in stderr
    assert stderr.strip().rpartition("\n")[2].startswith(bug.partition("(")[0])


@pytest.mark.parametrize("script, name", [("test_pb", "FaceFinder"), ("train", "read_manifest"), ("evaluate", "nme")])
def test_a_bug_inside_a_script_keeps_its_traceback(script, name, records, tmp_path, run):
    """A shape error of NumPy is a ValueError, which once was taken for the user's mistake."""
    options = {
        "test_pb": ["--pb", SHIPPED, "--images", REPO / "images", "--detect", "--output", tmp_path],
        "train": ["--data", records, "--models", tmp_path / "models"],
        "evaluate": ["--pb", SHIPPED, "--records", records / "test.tfrecords"],
    }[script]
    module = "landmark.evaluation" if name == "nme" else script
    program = f"import sys, {module} as module, {script}\nimport numpy as np\n"
    program += f"module.{name} = lambda *_: np.zeros(2) + np.zeros(3)\nsys.argv[0] = {script!r}\n{script}.main()\n"
    done = run("-c", program, *options)
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert done.stderr.strip().endswith("ValueError: operands could not be broadcast together with shapes (2,) (3,)")


def test_a_file_error_names_its_file_and_its_reason(end):
    assert end("open('none.txt')") == (1, "none.txt: No such file or directory\n")
    assert end("os.mkdir('none/a')") == (1, "none/a: No such file or directory\n")


def test_the_parsers_exit_code_stays(end):
    assert end("sys.exit(2)") == (2, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("body", ["print('done')", "print('x' * 10**6)"])
def test_a_closed_pipe_is_one_line(body, unbuffered, end):
    read, write = os.pipe()
    os.close(read)
    try:
        ended = end(body, stdout=write, env=ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered})
    finally:
        os.close(write)
    assert ended == (1, "cannot write to standard output: its reader is gone\n")


def test_a_closed_pipe_while_a_file_is_written_is_one_line_and_leaves_no_part(end, tmp_path):
    body = "from landmark.outputs import whole_file\n    with whole_file('a.txt') as partial: print('x' * 10**6)"
    read, write = os.pipe()
    os.close(read)
    ended = end(body, stdout=write)
    os.close(write)
    assert ended == (1, "cannot write to standard output: its reader is gone\n")
    assert not list(tmp_path.iterdir())


def test_a_script_whose_reader_stops_is_one_line(tmp_path):
    script = f"{sys.executable} test_pb.py --pb {SHIPPED} --output {tmp_path}"
    command = ["bash", "-c", f"{script} | head -c 1; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(command, cwd=REPO, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "f")
    assert done.stderr == "cannot write to standard output: its reader is gone\n"
    assert not list(tmp_path.rglob(".partial*"))


@pytest.mark.parametrize(
    "script, options",
    [
        ("test_pb", "--output {0}/out --pb {0}/none.pb"),
        ("test_pb", "--output {0}/out --pb {0}/none.tflite"),
        ("test_pb", "--output {0}/out --detect --pb {0}/none.onnx"),
        ("evaluate", "--pb {0}/none.pb --records {0}/none.tfrecords"),
        ("evaluate", "--records {0}/none.tfrecords"),
    ],
)
def test_a_missing_input_cannot_be_read(script, options, tmp_path, says, monkeypatch):
    monkeypatch.chdir(REPO)
    options = options.format(tmp_path).split()
    message = says(script, *options)
    missing = next(option for option in options if "/none." in option)
    assert message.startswith(f"cannot read {missing}: No such file or directory")
    assert not list(tmp_path.iterdir())


# A quiet terminal


def assert_quiet(script, done, device=ON_DEVICE, what=""):
    first = done.stdout.partition("\n")[0]
    assert first.endswith(device) and what in first, f"{script}: {first}"
    assert not done.stderr, f"{script}: {done.stderr}"


def test_prepare_and_train_print_nothing_but_their_own_lines(records, trained):
    said = records.parent / "said"
    assert said.read_text().partition("\n")[0].startswith("cropping the faces of ")
    assert said.read_text().partition("\n")[0].endswith(ON_CPU)
    assert not (records.parent / "stderr").read_text() and not trained.stderr
    first, *lines = trained.stdout.splitlines()
    assert first == f"training deep on {records}{ON_DEVICE}"
    assert [line.partition(" ")[0] for line in lines] == ["step", "best", "next:"]


def test_freezing_prints_nothing_but_its_own_lines(landmark_pb, records, tmp_path, run):
    first = (landmark_pb.parent / "said").read_text().partition("\n")[0]
    assert first.startswith("freezing ") and first.endswith(ON_DEVICE)
    assert not (landmark_pb.parent / "stderr").read_text()
    options = "--output", tmp_path / "a.pb", "--tflite_int8", tmp_path / "a.tflite"
    done = run("freeze_graph.py", "--checkpoint", SHIPPED.with_suffix(".ckpt"), "--data", records, *options)
    assert_quiet("freeze_graph.py", done)


def test_drawing_and_measuring_print_nothing_but_their_own_lines(records, tmp_path, run):
    done = run("test_pb.py", "--pb", SHIPPED, "--output", tmp_path, "--detect", "--pose", "--json")
    assert_quiet("test_pb.py", done, what=f"finding points with {SHIPPED}")
    done = run("evaluate.py", "--pb", SHIPPED, "--records", records / "test.tfrecords", "--output", tmp_path / "out")
    assert_quiet("evaluate.py", done, what=f"evaluating {SHIPPED}")


def test_rendering_and_turning_print_nothing_but_their_own_lines(tmp_path, run):
    sample, turned = tmp_path / "sample", tmp_path / "turned"
    done = run("data/make_sample.py", "--out", sample, "--faces", 1, "--variants", 1)
    assert_quiet("make_sample.py", done, ON_CPU)
    done = run("data/turn_faces.py", "--data", sample, "--out", turned, "--variants", 1)
    assert_quiet("turn_faces.py", done, ON_CPU)


@pytest.mark.parametrize("script", ["test_pb", "evaluate"])
def test_the_first_line_names_the_model_that_is_used_and_the_device(script, records, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where there is no landmark.pb
    cv2.imwrite("a.png", np.zeros([50, 50, 3], np.uint8))
    capsys.readouterr()
    call(script, *{"test_pb": ["--images", "a.png"], "evaluate": ["--records", records / "test.tfrecords"]}[script])
    first = capsys.readouterr().out.partition("\n")[0]
    assert "models/landmark.pb" in first and first.endswith(ON_DEVICE)


def test_the_users_own_settings_of_tensorflow_are_kept(run):
    assert SETTINGS["TF_CPP_MIN_LOG_LEVEL"] == "3"
    program = "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '0'; import landmark.startup, sys; "
    done = run("-c", program + "print(os.environ['TF_CPP_MIN_LOG_LEVEL'], file=sys.stderr)")
    assert (done.returncode, done.stdout) == (0, "") and done.stderr.endswith("0\n")
