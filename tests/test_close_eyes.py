"""data/close_eyes.py: photos of closed eyes become labelled faces."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import REPO, call, names_in

from landmark import load_model
from landmark.annotations import find_annotations
from landmark.formats import read_points
from landmark.measures import measure_openings

SHUT = REPO / "tests" / "blink" / "shut.jpg"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(SHUT, folder / "shut.jpg")
    face = cv2.imread(str(SHUT))
    cv2.imwrite(str(folder / "more" / "two.png"), np.hstack([cv2.resize(face, (120, 240)), 255 - 0 * face, face]))
    cv2.imwrite(str(folder / "none.png"), np.full([90, 90, 3], 90, np.uint8))
    cv2.imwrite(str(folder / "small.png"), cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA))
    (folder / "cut.jpg").write_bytes(SHUT.read_bytes()[:3000])
    (folder / "notes.txt").write_text("notes")
    (folder / "empty.jpg").touch()
    (folder / "phone.heic").write_bytes(b"another kind of picture")
    return folder


def test_lids_are_shut_and_all_else_is_what_the_model_finds(photos, tmp_path, capsys):
    call("close_eyes", "--data", photos, "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert "2 of 7 faces" in said.out and "5 left out" in said.out
    assert all(f"{photos / name}: " in said.err for name in ("empty.jpg", "phone.heic"))
    assert [line for line in said.err.splitlines() if line.startswith(f"{photos / 'none.png'}: no face found")]
    assert f"{photos / 'small.png'}: the face is" in said.err and f"{photos / 'cut.jpg'}: JPEG is cut short" in said.err
    assert names_in(tmp_path / "out") == {"points.csv", "shut.jpg", "more"}
    assert (tmp_path / "out" / "shut.jpg").read_bytes() == SHUT.read_bytes()

    annotations = find_annotations([tmp_path / "out"])  # as prepare_tfrecords.py reads them
    assert {annotation.photo.name for annotation in annotations} == {"shut.jpg", "two.png"}
    points = {annotation.photo.name: read_points(annotation)["pts_2d"] for annotation in annotations}
    (face,) = load_model()(cv2.imread(str(SHUT)))
    lids = [37, 38, 43, 44]
    np.testing.assert_allclose(np.delete(points["shut.jpg"], lids, 0), np.delete(face.points, lids, 0), atol=0.006)
    for found in points.values():
        np.testing.assert_array_equal(found[lids], found[[41, 40, 47, 46]])
        assert measure_openings(found)[:2].tolist() == [0, 0]
    assert points["two.png"][30, 0] > 360  # the larger face

    call("close_eyes", "--data", photos, "--out", tmp_path / "again")
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "out")).read_bytes()


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(photos, tmp_path, says):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    command = "close_eyes", "--data", photos, "--out"
    assert f"{tmp_path / 'mine'} exists" in says(*command, tmp_path / "mine")
    assert f"{photos} exists" in says(*command, photos)
    assert "none of 7 pictures" in says(*command, tmp_path / "out", "--spread", 1e-6)
    none = tmp_path / "none"
    assert f"no folder {none}" in says("close_eyes", "--data", none, "--out", tmp_path / "out")
    assert "none of 0 pictures" in says("close_eyes", "--data", tmp_path / "mine", "--out", tmp_path / "out")
    assert names_in(tmp_path) == {"photos", "mine"} and names_in(tmp_path / "mine") == {"notes.txt"}
