"""Scripts that are stopped by kill -9, Ctrl-C or SIGTERM while they write.

`python tests/kill.py` stops each script at many moments.
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill
import pytest
from conftest import ENVIRONMENT, names_in

from landmark.outputs import PARTIAL


@pytest.fixture(scope="module")
def paths(small_set, records, tmp_path_factory):
    return {"sample": small_set, "records": records, "clip": kill.write_clip(tmp_path_factory.mktemp("clip") / "a.avi")}


def wait(process, condition):
    """Waits until a condition holds, while a process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def begun(script, out):
    """Whether a script has begun to write."""
    partials = [partial for partial in Path(out).rglob(f"{PARTIAL}*") if partial.exists()]
    if script == "test_pb.py --video":
        return any(partial.suffix == ".csv" and partial.stat().st_size for partial in partials)
    return bool(partials)


@pytest.mark.parametrize("script", ["prepare_tfrecords.py", "data/make_sample.py"])
def test_after_kill_9_the_same_command_works(script, paths, tmp_path):
    paths = paths | {"out": tmp_path / "out"}
    process = kill.start(script, paths)
    wait(process, lambda: begun(script, paths["out"]))
    code, _ = kill.stop(process, signal.SIGKILL)
    kill.check_left(paths["out"], signal.SIGKILL, code, "")
    assert begun(script, paths["out"])
    again = kill.start(script, paths)
    _, stderr = again.communicate()
    assert again.returncode == 0, stderr
    kill.check_files(paths["out"])
    assert names_in(paths["out"]) and not list(paths["out"].rglob(f"{PARTIAL}*"))


@pytest.mark.parametrize(
    "script, number",
    [
        ("prepare_tfrecords.py", signal.SIGINT),
        ("test_pb.py --video", signal.SIGTERM),
        ("data/turn_faces.py", signal.SIGTERM),
    ],
)
def test_a_signal_during_the_work_is_one_line(script, number, paths, tmp_path):
    paths = paths | {"out": tmp_path / "out"}
    process = kill.start(script, paths)
    wait(process, lambda: begun(script, paths["out"]))
    kill.check_left(paths["out"], number, *kill.stop(process, number))


def test_ctrl_c_ends_all_videos_and_keeps_what_the_first_one_has(paths, tmp_path):
    second = shutil.copy(paths["clip"], tmp_path / "second.avi")
    process = kill.start("test_pb.py --video", {"clip": f"{paths['clip']} {second}", "out": tmp_path / "out"})
    wait(process, lambda: begun("test_pb.py --video", tmp_path / "out"))
    assert kill.stop(process, signal.SIGINT)[0] == 0
    kill.check_files(tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a.mp4", "a.csv", "a.json"}


def test_a_signal_waits_for_the_end_of_a_save(tmp_path):
    program = """
import signal
from pathlib import Path
from landmark.cli import command, defer_signals

@command
def main():
    with defer_signals():
        signal.raise_signal(signal.SIGTERM)
        Path("saved").touch()
    Path("after").touch()

main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (143, "interrupted; no file is half-written\n")
    assert names_in(tmp_path) == {"saved"}


def test_ctrl_c_stays_ignored_in_a_background_job(tmp_path):
    program = "import signal; from landmark.cli import command; command(lambda: signal.raise_signal(2))()"
    command = ["bash", "-c", f'trap "" INT; "{sys.executable}" -c "{program}"']
    assert subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT).returncode == 0


def test_ctrl_c_while_tensorflow_is_imported_leaves_no_traceback(tmp_path):
    command = [sys.executable, "-X", "importtime", Path(__file__).parents[1] / "train.py"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.endswith("landmark.cli\n"))  # the last import before it
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT
