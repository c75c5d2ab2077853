"""Folders as users have them: one odd picture does not cost the others, and what is not read is named."""

import csv
import json
import os

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import ENVIRONMENT, REPO, call, names_in

from landmark.pictures import read_picture

SHIPPED = REPO / "models" / "landmark.pb"
ASTRONAUT = REPO / "images" / "astronaut.jpg"
LATIN = os.fsdecode(b"caf\xe9.jpg")  # not UTF-8


@pytest.fixture
def draw(capsys):
    """draw(*arguments): what test_pb.py prints: (stdout, lines of stderr)."""

    def draw(*arguments):
        capsys.readouterr()
        call("test_pb", "--pb", SHIPPED, *arguments)
        said = capsys.readouterr()
        return said.out, said.err.splitlines()

    return draw


def rows_of(path):
    """The lines of a points.csv: dict of a picture's name to its rows."""
    rows = {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["picture"], []).append(row)
    return rows


def test_one_odd_picture_does_not_cost_the_others(tmp_path, draw, make):
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    jpeg = ASTRONAUT.read_bytes()
    good = {"a.jpg", "n" * 246 + ".jpg", LATIN, "photo.jfif", "nameless", "zero\n.png"}
    for name in good:
        (images / name).write_bytes(jpeg)
    wide = cv2.imencode(".png", make.photo(0, 1, 2000))[1].tobytes()
    long = cv2.imencode(".png", np.zeros((2, 70_000, 3), np.uint8))[1].tobytes()
    for name, content in {"wide.png": wide, "long.jpg": long, "cut.jpg": jpeg[:-999]}.items():
        (images / name).write_bytes(content)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99
    for name, content in {"a.heic": heic, "empty.jpg": b"", "notes.txt": b"notes"}.items():
        (images / name).write_bytes(content)

    _, said = draw("--images", images, "--output", output)  # crops
    assert len(said) == 3 and "a.heic" in said[0] and "empty.jpg" in said[0] and "notes.txt" not in said[0]
    assert {line.partition(":")[0] for line in said[1:]} == {str(images / "cut.jpg"), str(images / "long.jpg")}
    assert names_in(output) == good | {"wide.png", "points.csv"} and rows_of(output / "points.csv").keys() == {
        *good,
        "wide.png",
    }
    for name in good:
        assert read_picture(output / name)[0].shape == cv2.imread(str(ASTRONAUT)).shape

    _, said = draw("--images", images, "--output", tmp_path / "detected", "--detect", "--json")
    out = {line.partition(":")[0]: line for line in said[1:]}
    assert "left out" in out[str(images / "wide.png")] and "2000x1" in out[str(images / "wide.png")]
    rows = rows_of(tmp_path / "detected" / "points.csv")
    assert rows.keys() == names_in(tmp_path / "detected") - {"points.csv", "points.json"} >= good
    for entry in json.loads((tmp_path / "detected" / "points.json").read_text()):
        assert len(rows[entry["picture"]]) == max(1, len(entry["faces"]))


def test_pictures_are_recognised_by_their_content(tmp_path, draw, says, make):
    images = tmp_path / "images"
    images.mkdir()
    kinds = [suffix for suffix in (".gif", ".avif", ".webp", ".tiff", ".jp2") if cv2.haveImageWriter(f"a{suffix}")]
    for suffix in kinds:
        content = cv2.imencode(suffix, make.photo(1, 60, 50))[1]
        (images / f"a{suffix}").write_bytes(content)
        (images / f"as_{suffix[1:]}.jpg").write_bytes(content)
    (images / "a.png").write_text("a text\n")
    _, said = draw("--images", images, "--output", tmp_path / "out")
    names = {f"a{suffix}" for suffix in kinds} | {f"as_{suffix[1:]}.jpg" for suffix in kinds}
    assert len(kinds) >= 3 and names_in(tmp_path / "out") == names | {"points.csv"}
    assert said == [f"left out, since OpenCV cannot read them: {images / 'a.png'}"]
    for chosen in [images / "a.webp"], [images / "a.webp", images / "as_tiff.jpg"], [images / "as_*.jpg"]:
        output = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        draw("--images", *chosen, "--output", output)
        expected = names if "*" not in chosen[0].name else {name for name in names if name.startswith("as_")}
        assert names_in(output) == ({path.name for path in chosen} if "*" not in chosen[0].name else expected) | {
            "points.csv"
        }
    for missing in images / "none.jpg", images / "none*.jpg":
        message = says("test_pb", "--pb", SHIPPED, "--images", images, missing, "--output", tmp_path / "none")
        assert str(missing) in message


def test_names_that_are_not_utf_8_in_the_c_locale(tmp_path, run, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "LC_ALL", "C")
    folder = tmp_path / os.fsdecode(b"fa\xe7ade")
    folder.mkdir()
    source = folder / os.fsdecode(b"cl\xe9p.avi")
    writer = cv2.VideoWriter(os.fsencode(source), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    done = run("test_pb.py", "--pb", SHIPPED, "--video", source, "--output", folder / "out")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert names_in(folder / "out") == {os.fsdecode(b"cl\xe9p.mp4"), os.fsdecode(b"cl\xe9p.csv")}


def test_evaluate_goes_on_past_odd_files(tmp_path, capsys, make):
    """A wide photo, a damaged MAT file, one without Pose_Para, eye corners that are one point, a long name."""
    points = make.points(0)
    same = points.copy()
    same[45] = same[36]
    make.face(tmp_path, "AFW", "AFW_1_0", 1)
    make.face(tmp_path, "AFW", "AFW_2_0", 2, same)
    make.face(tmp_path, "AFW", "n" * 240, 3)
    make.face(tmp_path, "AFW", "AFW_4_0", 4, points * [40, 0.004], make.photo(4, 2, 20_000))
    mat, _ = make.face(tmp_path, "AFW", "AFW_5_0", 5)
    scipy.io.savemat(tmp_path / "AFW" / "AFW_1_0.mat", {"pt2d": points.T})
    mat.write_bytes(mat.read_bytes()[:300])
    call("evaluate", "--pb", SHIPPED, "--data", tmp_path, "--output", tmp_path / "out", "--detect")
    assert str(mat) in capsys.readouterr().err
    text = (tmp_path / "out" / "results.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["results"][str(SHIPPED)]["all"]["faces"] == 4
