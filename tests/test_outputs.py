"""Files that are not ours stay: what is written, over what, and what two runs in one folder do."""

import csv
import fcntl
import os

import cv2
import numpy as np
import pytest
from conftest import REPO, call, names_in

from landmark.files import LEDGER, PARTIAL, check_outputs, whole_file, whole_folder

SHIPPED = REPO / "models" / "landmark.pb"


def write(path, text="ours", source=None, overwrite=False):
    check_outputs({path: source}, overwrite)
    with whole_file(path) as partial:
        partial.write_text(text)


def test_only_what_an_earlier_run_wrote_is_replaced(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("theirs")
    with pytest.raises(ValueError, match="points.csv is in the way.*--overwrite"):
        write(path)
    assert path.read_text() == "theirs" and not (tmp_path / LEDGER).exists()
    write(path, "first", overwrite=True)
    write(path, "second")
    assert path.stat().st_mode == (tmp_path / LEDGER).stat().st_mode  # no program
    path.write_text("corrected")
    with pytest.raises(ValueError, match="changed since"):
        write(path)
    assert path.read_text() == "corrected"
    (tmp_path / "link.csv").symlink_to(path)
    (tmp_path / "folder.csv").mkdir()
    for name in "link.csv", "folder.csv":
        with pytest.raises(ValueError, match=name):
            write(tmp_path / name)
    assert names_in(tmp_path) == {"points.csv", "link.csv", "folder.csv"}


def test_what_was_made_of_another_source_is_not_replaced(tmp_path):
    path = tmp_path / "clip.mp4"
    write(path, "one", source="a/clip.mov")
    write(path, "two", source="a/clip.mov")
    with pytest.raises(ValueError, match="made of a/clip.mov"):
        write(path, source="b/clip.mov")
    (tmp_path / LEDGER).write_text('["clip.m' + (tmp_path / LEDGER).read_text())  # a line that was cut
    assert path.read_text() == "two"
    write(path, "three", source="a/clip.mov")


def test_a_file_that_comes_while_a_run_is_under_way_stays(tmp_path):
    path = tmp_path / "points.csv"
    check_outputs({path: None})
    with pytest.raises(ValueError, match="points.csv was written by another meanwhile"), whole_file(path) as partial:
        partial.write_text("ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs" and names_in(tmp_path) == {"points.csv"} and not partial.exists()


def test_a_run_under_way_is_named_and_what_a_killed_one_left_is_removed(tmp_path):
    path = tmp_path / "points.csv"
    left, other = tmp_path / f"{PARTIAL}{os.getpid()}-points.csv", tmp_path / f"{PARTIAL}1-others.csv"
    for partial in left, other:
        partial.write_text("cut")
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as long as its process lives
    with pytest.raises(ValueError, match="points.csv is being written by another run"):
        write(path)
    os.close(descriptor)
    write(path)
    assert not left.exists() and other.exists() and path.read_text() == "ours"
    (tmp_path / f"{PARTIAL}7-new").mkdir()
    with whole_folder(tmp_path / "new") as partial:
        assert not (tmp_path / f"{PARTIAL}7-new").exists()
        (partial / "a").write_text("a")
    assert names_in(tmp_path) == {"points.csv", "new"} and names_in(tmp_path / "new") == {"a"}


def test_errors_name_the_file_and_leave_no_part(tmp_path):
    (tmp_path / "a").write_text("")
    for path in tmp_path / "none" / "points.csv", tmp_path / "a" / "points.csv", tmp_path / ("n" * 256):
        for whole in whole_file, whole_folder:
            with pytest.raises(OSError) as error, whole(path):
                pass
            assert str(path).startswith(str(error.value.filename)) and PARTIAL not in str(error.value)
    with pytest.raises(KeyError), whole_file(tmp_path / ("n" * 255)) as partial:
        partial.write_text("cut")
        raise KeyError
    assert names_in(tmp_path) == {"a"} and not list(tmp_path.glob(f"{PARTIAL}*"))


def draw(*arguments):
    """test_pb.py with the network that comes with the repository."""
    call("test_pb", "--pb", SHIPPED, *arguments)


def test_pictures_drawn_over_others_pictures(tmp_path, says, stop, make):
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
    assert "same name" in says("test_pb", "--pb", SHIPPED, "--images", one, two, "--output", output)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.png").symlink_to(two / "a.png")
    code, _ = stop("test_pb", "--pb", SHIPPED, "--images", tmp_path / "link", "--output", two, "--overwrite")
    assert code == 2 and (two / "a.png").read_bytes() == theirs
    draw("--images", two, "--output", output, "--overwrite")
    assert (output / "a.png").read_bytes() != first


def test_videos_with_one_output_keep_their_points_and_the_users_video(tmp_path, says):
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
        ("evaluate", "--data none --output {0}", "results.json"),
        ("make_sample", "--out {0}", ""),
        ("turn_faces", "--data none --out {0}", ""),
    ],
)
def test_every_script_names_the_file_in_the_way_before_any_work(script, options, name, tmp_path, says):
    theirs = tmp_path / (name or "theirs")
    theirs.write_text("theirs")
    assert str(tmp_path / name) in says(script, *options.format(tmp_path).split())
    assert theirs.read_text() == "theirs" and names_in(tmp_path) == {theirs.name}
