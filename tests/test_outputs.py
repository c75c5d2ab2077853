"""What may be written over what: other people's files are kept, and two runs do not disturb each other."""

import csv
import fcntl
import os

import cv2
import numpy as np
import pytest
from conftest import REPO, call, names_in

from landmark.cli import UserError
from landmark.outputs import LEDGER, PARTIAL, Outputs, read_ledger, whole_file, whole_folder

SHIPPED = REPO / "models" / "landmark.pb"


def write(path, text="ours", source=None, overwrite=False):
    with Outputs({path: source}, overwrite).write(path) as partial:
        partial.write_text(text)


def test_only_what_an_earlier_run_wrote_is_replaced(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("theirs")
    with pytest.raises(UserError, match="points.csv is in the way.*--overwrite"):
        write(path)
    assert path.read_text() == "theirs" and not (tmp_path / LEDGER).exists()
    write(path, "first", overwrite=True)
    write(path, "second")
    assert path.stat().st_mode == (tmp_path / LEDGER).stat().st_mode  # not executable
    assert [*read_ledger(tmp_path)][-1] == (path.name, (len("second"), path.stat().st_mtime_ns))
    path.write_text("corrected")
    with pytest.raises(UserError, match="changed since"):
        write(path)
    assert path.read_text() == "corrected"
    (tmp_path / "link.csv").symlink_to(path)
    (tmp_path / "folder.csv").mkdir()
    for name in "link.csv", "folder.csv":
        with pytest.raises(UserError, match=name):
            write(tmp_path / name)
    assert names_in(tmp_path) == {"points.csv", "link.csv", "folder.csv"}


def test_a_file_made_of_another_source_is_not_replaced(tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, "one", source="a/clip.mov")
    write(path, "two", source="a/clip.mov")
    with pytest.raises(UserError, match="made of a/clip.mov"):
        write(path, source="b/clip.mov")
    (tmp_path / LEDGER).write_text('["clip.m' + (tmp_path / LEDGER).read_text())  # a line that was cut short
    assert path.read_text() == "two"
    write(path, "three", source="a/clip.mov")


def test_a_file_that_appears_or_changes_during_a_run_is_kept(tmp_path):
    path = tmp_path / "points.csv"
    for text in "theirs", "changed again":
        outputs = Outputs({path: None}, overwrite=True)
        changed = pytest.raises(UserError, match="points.csv was changed by another program meanwhile, and is kept")
        with changed, outputs.write(path) as partial:
            partial.write_text("ours")
            path.write_text(text)
        assert path.read_text() == text and names_in(tmp_path) == {"points.csv"} and not partial.exists()


def test_a_run_may_write_a_file_twice(tmp_path):
    path = tmp_path / "points.csv"
    outputs = Outputs({path: None})
    for text in "one", "two":
        with outputs.write(path) as partial:
            partial.write_text(text)
    assert path.read_text() == "two"


def test_another_run_is_named_and_what_a_killed_one_left_is_removed(tmp_path):
    path = tmp_path / "points.csv"
    left, other = tmp_path / f"{PARTIAL}{os.getpid()}-points.csv", tmp_path / f"{PARTIAL}1-others.csv"
    for partial in left, other:
        partial.write_text("cut")
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as long as its process lives
    with pytest.raises(UserError, match="points.csv is being written by another run"):
        write(path)
    os.close(descriptor)
    write(path)
    assert not left.exists() and other.exists() and path.read_text() == "ours"
    (tmp_path / f"{PARTIAL}7-new").mkdir()
    with whole_folder(tmp_path / "new") as partial:
        assert not (tmp_path / f"{PARTIAL}7-new").exists()
        (partial / "a").write_text("a")
    assert names_in(tmp_path) == {"points.csv", "new"} and names_in(tmp_path / "new") == {"a"}


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path):
    (tmp_path / "a").write_text("")
    long = tmp_path / ("n" * 256)
    reasons = {tmp_path / "none" / "b": "No such file or directory", tmp_path / "a" / "b": "Not a directory"}
    for path, reason in (reasons | {long: "File name too long"}).items():
        for whole in whole_file, whole_folder:
            with pytest.raises(UserError) as refused, whole(path):
                pass
            assert str(refused.value) == f"cannot write {path}: {reason}"
    assert names_in(tmp_path) == {"a"} and not list(tmp_path.glob(f"{PARTIAL}*"))


@pytest.mark.parametrize("error", [KeyError, FileNotFoundError(2, "No such file or directory", "input.txt")])
def test_an_error_in_the_block_stays_what_it_is_and_leaves_no_part(error, tmp_path):
    with pytest.raises(type(error) if isinstance(error, Exception) else error) as raised:
        with whole_file(tmp_path / ("n" * 255)) as partial:
            partial.write_text("cut")
            raise error
    assert getattr(raised.value, "filename", "input.txt") == "input.txt"  # a missing input is no failed output
    assert not list(tmp_path.iterdir())


def draw(*arguments):
    """Runs test_pb.py with the model that comes with the repository."""
    call("test_pb", "--pb", SHIPPED, *arguments)


def test_pictures_are_not_drawn_over_other_pictures(tmp_path, says, stop, make):
    one, two, output = tmp_path / "one", tmp_path / "two", tmp_path / "out"
    for seed, folder in enumerate([one, two]):
        folder.mkdir()
        cv2.imwrite(str(folder / "a.png"), make.photo(seed))
    theirs = (two / "a.png").read_bytes()
    command = ["test_pb", "--pb", SHIPPED, "--images", one, "--output"]
    assert str(two / "a.png") in says(*command, two)
    assert (two / "a.png").read_bytes() == theirs and names_in(two) == {"a.png"}
    draw("--images", one, "--output", output)
    first = (output / "a.png").read_bytes()
    draw("--images", one, "--output", output)
    assert str(one / "a.png") in says("test_pb", "--pb", SHIPPED, "--images", two, "--output", output)
    assert (output / "a.png").read_bytes() == first
    code, message = stop("test_pb", "--pb", SHIPPED, "--images", one, two, "--output", output)
    assert code == 2 and "same name" in message
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.png").symlink_to(two / "a.png")
    stop("test_pb", "--pb", SHIPPED, "--images", tmp_path / "link", "--output", two, "--overwrite")
    assert (two / "a.png").read_bytes() == theirs
    draw("--images", two, "--output", output, "--overwrite")
    assert (output / "a.png").read_bytes() != first


def test_videos_in_one_output_keep_their_points_and_the_users_video(tmp_path, says):
    for name in "one.avi", "two.mov":
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
        for _ in range(2 if name == "one.avi" else 3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.release()
    output = tmp_path / "out"
    for name in "one.avi", "two.mov", "one.avi":
        draw("--video", tmp_path / name, "--output", output)
    assert names_in(output) == {"one.mp4", "one.csv", "two.mp4", "two.csv"}
    for name, frames in ("one", 2), ("two", 3):
        with open(output / f"{name}.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == frames
    theirs = tmp_path / "two.mp4"
    theirs.write_text("my video")
    message = says("test_pb", "--pb", SHIPPED, "--video", tmp_path / "two.mov", "--output", tmp_path)
    assert str(theirs) in message and theirs.read_text() == "my video"
    assert names_in(tmp_path) == {"one.avi", "two.mov", "two.mp4", "out"}


@pytest.mark.parametrize(
    "script, options, name",
    [
        ("prepare_tfrecords", "--data none --out {0}", "preview.png"),
        ("freeze_graph", "--models none --output {0}/landmark.pb", "landmark.pb"),
        ("freeze_graph", "--models none --output {0}/a.pb --tflite {0}/landmark.tflite", "landmark.tflite"),
        ("test_pb", "--pb none --output {0}", "points.csv"),
        ("evaluate", "--data none --output {0}", "results.json"),
        ("make_sample", "--out {0}", ""),
        ("turn_faces", "--data none --out {0}", ""),
    ],
)
def test_every_script_names_a_file_in_the_way_before_any_work(script, options, name, tmp_path, says, monkeypatch):
    monkeypatch.chdir(REPO)
    theirs = tmp_path / (name or "theirs")
    theirs.write_text("theirs")
    assert str(tmp_path / name) in says(script, *options.format(tmp_path).split())
    assert theirs.read_text() == "theirs" and names_in(tmp_path) == {theirs.name}


@pytest.mark.parametrize(
    "script, options",
    [
        ("prepare_tfrecords", "--data {1} --out {0}"),
        ("test_pb", "--pb models/landmark.pb --output {0}"),
        ("freeze_graph", "--checkpoint models/landmark.ckpt --output {0}/a.pb"),
        ("evaluate", "--pb models/landmark.pb --data {1} --output {0}"),
    ],
)
def test_a_file_in_place_of_the_output_folder_is_named(script, options, tmp_path, small_set, says, monkeypatch):
    monkeypatch.chdir(REPO)
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    message = says(script, *options.format(theirs, small_set).split())
    assert str(theirs) in message and LEDGER not in message
    assert theirs.read_text() == "theirs"
