"""Stops each script at seeded moments of a run, and looks at what is left.

Usage:
    python tests/kill.py                                   # kill -9 at 20 moments of each: most of an hour
    python tests/kill.py --scripts train.py --moments 5
    python tests/kill.py --signal INT                      # or TERM

Afterwards no file under a final name is cut short, no process is left, and the same command works. With INT and TERM a
script prints one line, exits with 130 or 143, and leaves no partial file.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import landmark.startup  # noqa: F401  first: TensorFlow and OpenCV read their settings as they are imported

# isort: split

import csv
import json
import os
import random
import signal
import subprocess
import tempfile
import time

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from conftest import ENVIRONMENT, REPO

from landmark.cli import script_parser
from landmark.graphs import load_graph
from landmark.mat import read_mat
from landmark.outputs import PARTIAL
from landmark.pictures import read_picture
from landmark.records import read_records
from landmark.runtimes import load_tflite

# {sample}: faces in the layout of 300W_LP; {records}: their records; {clip}: a video; {out}: where to write.
COMMANDS = {
    "prepare_tfrecords.py": "--data {sample} --out {out}",
    "train.py": "--data {records} --models {out} --steps 200 --batch_size 4 --network original",
    "freeze_graph.py": "--checkpoint models/landmark.ckpt --data {records} --output {out}/a.pb --tflite {out}/a.tflite",
    "test_pb.py": "--output {out} --detect --json --images images",
    "test_pb.py --video": "{clip} --output {out} --json",
    "evaluate.py": "--records {records}/test.tfrecords --output {out}",
    "data/make_sample.py": "--out {out}/sample --faces 12",
    "data/turn_faces.py": "--data {sample} --out {out}/turned",
}


def start(script, paths):
    """Starts a script's command in a process group of its own; returns its subprocess.Popen."""
    arguments = f"{script} {COMMANDS[script]}".format(**paths).split()
    Path(paths["out"]).mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=REPO, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True, start_new_session=True
    )


def stop(process, number):
    """Sends a signal to a process, SIGINT to its whole group as a terminal does, and waits for its end.

    Returns: (exit code, the last line on its stderr).
    """
    if process.poll() is None:
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and is_group_alive(process.pid):
        time.sleep(0.05)
    assert not is_group_alive(process.pid), "a worker is left"
    assert process.returncode in (0, -number) or "Traceback" not in stderr, stderr
    return process.returncode, stderr.rpartition("\n")[0].rpartition("\n")[2]


def is_group_alive(group):
    """Whether any process of a group is running."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            return True
    return False


def check_files(folder):
    """Asserts that every file under a final name is whole, whatever it is."""
    for path in Path(folder).rglob("*"):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if check := CHECKS.get(path.suffix):
            check(path)


def _check_csv(path):
    with open(path, newline="") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1, path


def _check_video(path):
    video = cv2.VideoCapture(str(path))
    count = sum(iter(lambda: video.read()[0], False))
    assert count and count == video.get(cv2.CAP_PROP_FRAME_COUNT), path


def _check_checkpoint(path):
    reader = tf.train.load_checkpoint(str(path.with_suffix("")))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


CHECKS = {
    ".csv": _check_csv,
    ".index": _check_checkpoint,
    ".jpg": read_picture,
    ".json": lambda path: json.loads(path.read_text()),
    ".mat": lambda path: read_mat(path, ()),
    ".mp4": _check_video,
    ".pb": load_graph,
    ".png": read_picture,
    ".tflite": lambda path: load_tflite(path)(np.zeros([1, 128, 128, 3], np.uint8)),
    ".tfrecords": lambda path: list(read_records([path])),
}


def check_left(folder, number, code, said):
    """Asserts that a signal, `number`, left nothing half-written, and all else but SIGKILL one line: `said`."""
    check_files(folder)
    if number != signal.SIGKILL:
        assert code == 128 + number, f"exit code {code}: {said}"
        assert said.startswith("interrupted"), said
        assert not list(Path(folder).rglob(f"{PARTIAL}*")), "a partial file is left"


def prepare(folder):
    """Makes what the commands read: dict of their placeholders, all but {out}."""
    sample, records = folder / "sample", folder / "records"
    commands = f"data/make_sample.py --out {sample} --faces 12", f"prepare_tfrecords.py --data {sample} --out {records}"
    for command in commands:
        subprocess.run([sys.executable, *command.split()], cwd=REPO, check=True, capture_output=True)
    return {"sample": sample, "records": records, "clip": write_clip(folder / "clip.avi")}


def write_clip(path):
    """Writes a video of a face; returns its path."""
    face = cv2.copyMakeBorder(cv2.imread(str(REPO / "images/astronaut.jpg")), *[60] * 4, cv2.BORDER_REPLICATE)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, face.shape[1::-1])
    for _ in range(100):
        writer.write(face)
    writer.release()
    return path


def main():
    parser = script_parser(__doc__)
    parser.add_argument("--scripts", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--moments", type=int, default=20, help="(20)")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    args = parser.parse_args()
    number = signal.Signals[f"SIG{args.signal}"]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(Path(folder))
        for script in args.scripts:
            process = start(script, paths | {"out": f"{folder}/{script[:4]}whole"})
            process.stdout.readline()  # its first line: what it imports is loaded, and it handles signals
            began = time.monotonic()
            *_, took = [time.monotonic() - began for _ in process.stdout]  # to its last line
            assert process.wait() == 0, process.stderr.read()
            for i in range(args.moments):
                paths["out"] = f"{folder}/{script.replace('/', '-').replace(' ', '')}-{i}"
                process, moment = start(script, paths), rng.uniform(0, took)
                process.stdout.readline()
                time.sleep(moment)
                where = f"{script:22} {args.signal:4} at {moment:5.2f} of {took:5.2f} s"
                code, said = stop(process, number)
                if code == 0 or code == -number != -signal.SIGKILL:  # its main() had ended before
                    continue
                check_left(paths["out"], number, code, said)
                again = start(script, paths)
                _, stderr = again.communicate()
                assert again.returncode == 0 or "exists" in stderr, f"{where}: {stderr}"  # it had ended just before
                check_files(paths["out"])
                print(where if number == signal.SIGKILL else f"{where}: {said}", flush=True)


if __name__ == "__main__":
    main()
