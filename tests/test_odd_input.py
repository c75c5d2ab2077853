"""Odd file systems, checkpoints, cameras, videos and environments: each works, or ends with one line."""

import errno
import fcntl
import os
import shutil

import cv2
import numpy as np
import pytest
from conftest import BRIEF, ENVIRONMENT, REPO, call, names_in
from labelled import head, photo, write_pts

from landmark.checkpoints import lock_models, read_run
from landmark.cli import UserError
from landmark.cluster import find_cluster
from landmark.outputs import Outputs, lock, whole_folder

NO_LOCKS = """
import errno, fcntl, os, runpy, sys

def flock(*_):
    raise OSError(errno.{name}, os.strerror(errno.{name}))

fcntl.flock = flock
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def few(tmp_path):
    for i in range(12):
        photo(tmp_path / f"set/{i:02}.jpg", i)
        write_pts(tmp_path / "set/x.pts", {f"{i:02}.jpg": [head(i)]})
    return tmp_path / "set"


# Locks


def test_without_file_locks_all_works_and_it_is_said_once(few, tmp_path, run):
    out = tmp_path / "out"
    arguments = "--data", few, "--out", out
    call("prepare_tfrecords", *arguments)  # which the next run replaces
    done = run("-c", NO_LOCKS.format(name="ENOSYS"), REPO / "prepare_tfrecords.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Function not implemented") == 1
    assert names_in(out) == {"train.tfrecords", "test.tfrecords", "records.json", "preview.png", "skipped.txt"}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_writers_work_without_file_locks(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_models(tmp_path / "models"), whole_folder(tmp_path / "models/new") as partial:
        (partial / "x").write_text("whole")
    outputs = Outputs({tmp_path / "models/new/y": None})
    with outputs.write(tmp_path / "models/new/y") as partial:
        partial.write_text("whole")
    assert names_in(tmp_path / "models/new") == {"x", "y"}


def test_a_lock_that_is_held_is_not_taken_for_none(tmp_path):
    with open(tmp_path / "x", "w") as first, open(tmp_path / "x") as second:
        assert lock(first)
        with pytest.raises(BlockingIOError):
            lock(second)


# --init


@pytest.mark.parametrize(
    "init", ["nosuch", "", ".", REPO / "models", REPO / "models/landmark.pb", REPO / "README.md", "/nosuch/x"], ids=str
)
def test_init_that_is_no_checkpoint_is_refused(init, records, tmp_path, says):
    message = says("train", "--data", records, "--models", tmp_path / "models", "--init", init, *BRIEF, 1)
    assert "no such checkpoint" in message and str(init) in message
    assert not (tmp_path / "models").exists()


@pytest.fixture
def deep(tmp_path):
    """A checkpoint of the shipped network, without what says which network it is."""
    for path in (REPO / "models").glob("landmark.ckpt.[di]*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "landmark.ckpt"


def test_the_variables_say_which_network_a_checkpoint_is(deep, live_checkpoint):
    assert read_run(str(deep))["network"] == "deep"
    assert read_run(live_checkpoint)["network"] == "original"
    with pytest.raises(UserError, match="no such checkpoint"):
        read_run(f"{deep}-1")


def test_init_of_another_network_is_refused_by_its_variables(deep, records, tmp_path, says):
    message = says("train", "--data", records, "--models", tmp_path / "models", "--init", deep, *BRIEF, 1)
    assert "deep, not original" in message


# Cameras and videos


@pytest.mark.parametrize("camera", ["-1", "-12", "99", "99999999999", "", "nosuch", "/dev/video99", "/dev/null"])
def test_a_camera_that_is_none_is_one_line(camera, tmp_path, stop):
    code, message = stop("test_pb", "--camera", camera, "--output", tmp_path / "out")
    assert code in (1, 2) and "camera" in message and camera in message and "\n" not in message.strip()
    assert not (tmp_path / "out").exists() or not names_in(tmp_path / "out")


def write_frames(path, codec, count=50):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    for frame in noise:
        writer.write(frame)
    writer.release()
    return path


def move_index_to_the_front(path):
    """Makes of an mp4 what cameras and browsers write: its index (moov) before its frames (mdat)."""
    data, at, atoms = path.read_bytes(), 0, {}
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        atoms[data[at + 4 : at + 8]] = data[at : at + size]
        at += size
    index = bytearray(atoms.pop(b"moov"))
    table = index.find(b"stco") + 8
    for place in range(table + 4, table + 4 + 4 * int.from_bytes(index[table : table + 4]), 4):
        index[place : place + 4] = (int.from_bytes(index[place : place + 4]) + len(index)).to_bytes(4)
    path.write_bytes(atoms.pop(b"ftyp") + index + b"".join(atoms.values()))


def is_found(video):
    return int(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT))


@pytest.mark.parametrize("name, codec", [("a.avi", "MJPG"), ("a.mkv", "MJPG"), ("a.mp4", "mp4v")])
def test_a_video_that_is_cut_short_is_said_with_both_numbers(name, codec, tmp_path, capfd):
    video = write_frames(tmp_path / name, codec)
    if name.endswith("mp4"):
        move_index_to_the_front(video)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    call("test_pb", "--video", video, "--output", tmp_path / "out")
    frames = is_found(tmp_path / "out/a.mp4")
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith(str(video))]
    assert 10 <= frames <= 31 and f" {frames} " in line and " 50 " in line
    rows = (tmp_path / "out/a.csv").read_text().splitlines()[1:]
    assert len({row.partition(",")[0] for row in rows}) == frames


def test_several_videos_in_one_run(tmp_path, capfd):
    videos = [write_frames(tmp_path / name, "MJPG", count) for name, count in (("a.avi", 4), ("b.avi", 6))]
    call("test_pb", "--video", *videos, "--output", tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a.mp4", "a.csv", "b.mp4", "b.csv"}
    assert [is_found(tmp_path / f"out/{name}.mp4") for name in "ab"] == [4, 6]
    assert "cut short" not in capfd.readouterr().err


@pytest.mark.parametrize("bad", ["missing", "damaged"])
def test_a_bad_video_among_several_is_named_and_the_others_are_written(bad, tmp_path, stop):
    videos = [write_frames(tmp_path / name, "MJPG", 4) for name in ("a.avi", "c.avi")]
    if bad == "damaged":
        (tmp_path / "b.avi").write_bytes(b"RIFF")
    try:
        call("test_pb", "--video", videos[0], tmp_path / "b.avi", videos[1], "--output", tmp_path / "out")
    except SystemExit as stopped:
        assert str(tmp_path / "b.avi") in str(stopped.code)
    written = names_in(tmp_path / "out") if (tmp_path / "out").exists() else set()
    assert written in (set(), {"a.mp4", "a.csv", "c.mp4", "c.csv"})  # refused first, or passed over


@pytest.mark.parametrize("names", [("a.avi", "a.mkv"), ("one/a.avi", "two/a.avi")])
def test_videos_whose_drawings_would_have_one_name_are_refused(names, tmp_path, stop):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_frames(tmp_path / name, "MJPG", 2)
    code, message = stop("test_pb", "--video", *(tmp_path / name for name in names), "--output", tmp_path / "out")
    assert code == 2 and "same name" in message
    assert not (tmp_path / "out").exists()


# The environment


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_tf_config_is_none(value, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    cluster = find_cluster()
    assert cluster.is_first and cluster.agree({}, 7) == 7


def test_a_learning_rate_that_is_far_too_high_is_said(records, tmp_path, says):
    arguments = "--data", records, "--models", tmp_path / "models", *BRIEF, 3, "--learning_rate", "1e30"
    message = says("train", *arguments)
    assert "learning_rate" in message and "no checkpoint is the last" not in message


def test_names_beyond_the_terminals_encoding_are_printed(tmp_path, run, monkeypatch):
    photo(tmp_path / "ü/ä.jpg")
    out = tmp_path / "ü/ö€"
    call("test_pb", "--images", tmp_path / "ü", "--output", out)  # so that a ledger names them too
    monkeypatch.setitem(ENVIRONMENT, "PYTHONIOENCODING", "ascii")
    done = run("test_pb.py", "--images", tmp_path / "ü", "--output", out)
    assert done.returncode == 0 and "Traceback" not in done.stderr and str(out) in done.stdout


def test_requirements_say_which_pythons_they_are_for():
    words = (REPO / "README.md").read_text()
    assert "3.11" in words and "3.13" in words
