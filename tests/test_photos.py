"""Whole photos and videos: test_pb.py --detect, --video, --json, data/fit_detection.py, evaluate.py --detect."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import ENVIRONMENT, REPO, call, names_in

from fit_detection import fit_score
from landmark.annotations import find_annotations, split_faces
from landmark.cli import UserError
from landmark.detectors import YUNET_URL, load_detector
from landmark.inference import (
    FaceFinder,
    FaceTracker,
    box_corners,
    find_landmarks,
    find_on_crop,
    refine_face,
    turn_back,
    turn_picture,
)
from landmark.measures import measure_openings
from landmark.points import OPENINGS
from landmark.pose import estimate_tilt
from landmark.runtimes import load_session

SHIPPED = REPO / "models" / "landmark.pb"
REAL = (REPO.parent / "shared" / "300W_LP").resolve()
ASTRONAUT = cv2.imread(str(REPO / "images" / "astronaut.jpg"))
EXIF_UPSIDE_DOWN = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def predict():
    return load_session(SHIPPED)


@pytest.fixture(scope="module")
def detector():
    return load_detector()


@pytest.fixture(scope="module")
def find_faces(predict, detector):
    return FaceFinder(predict, detector)


@pytest.fixture(scope="module")
def astronaut(predict):
    """The points of images/astronaut.jpg, which is a face crop: [68, 2]."""
    return find_on_crop(predict, ASTRONAUT)[0].points


def scene(*places, height=360, width=480):
    """A blurred background with the astronaut's face at each place (x, y, share of its size)."""
    noise = np.random.default_rng(0).integers(60, 160, (height, width, 3)).astype(np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 8)
    for x, y, scale in places:
        face = cv2.resize(ASTRONAUT, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = max(-y, 0), max(-x, 0)
        face = face[top : height - y, left : width - x]
        picture[y + top :, x + left :][: face.shape[0], : face.shape[1]] = face
    return picture


def nme(points, true):
    """Mean distance over the inter-ocular one."""
    return np.linalg.norm(points - true, axis=-1).mean() / np.linalg.norm(true[36] - true[45])


def read_points(folder, name="points"):
    """(the rows of the .csv that have a face, as (picture, points [68, 2]); the .json). Asserts that every picture or
    frame is in both, with the same time and face numbers."""
    with (folder / f"{name}.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    entries = json.loads((folder / f"{name}.json").read_text())
    faces = [
        [str(entry["picture"]), "" if entry["seconds"] is None else str(entry["seconds"]), str(face["face"])]
        for entry in entries
        for face in entry["faces"] or [{"face": ""}]
    ]
    assert [row[:3] for row in rows] == faces
    assert all(set(row[3:]) == {""} for row in rows if row[2] == "")
    return [(row[0], np.array(row[3:139], float).reshape(68, 2)) for row in rows if row[2]], entries


# Photos


def test_faces_of_whole_photos(tmp_path, capsys, detector, astronaut):
    images, output = tmp_path / "photos", tmp_path / "drawn"
    images.mkdir()
    places = {
        "one.png": [(120, 60, 0.5)],
        "small.png": [(380, 250, 0.15)],
        "many.png": [(10, 10, 0.4), (250, 20, 0.3), (150, 170, 0.3)],
        "edge.png": [(-20, 100, 0.5)],
        "turned.jpg": [(60, 40, 0.5)],
        "large.png": [(900, 500, 2.0)],
        "none.png": [],
    }
    for name, faces in places.items():
        size = {"large.png": {"height": 1800, "width": 2400}}.get(name, {})
        assert cv2.imwrite(str(images / name), scene(*faces, **size))
    jpeg = cv2.imencode(".jpg", cv2.rotate(scene(*places["turned.jpg"]), cv2.ROTATE_180))[1].tobytes()
    exif = b"\xff\xe1" + (len(EXIF_UPSIDE_DOWN) + 2).to_bytes(2, "big") + EXIF_UPSIDE_DOWN
    (images / "turned.jpg").write_bytes(jpeg[:2] + exif + jpeg[2:])

    call("test_pb", "--pb", SHIPPED, "--detect", "--images", images, "--output", output, "--json")

    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if "no face" in line and str(images / "none.png") in line]
    assert f"{len(places)} pictures" in said.out and "8 faces" in said.out
    assert (output / "none.png").read_bytes() == (images / "none.png").read_bytes()
    assert names_in(output) == {*places, "points.csv", "points.json"}
    rows, entries = read_points(output)
    assert [entry["picture"] for entry in entries] == sorted(places)
    for entry in entries:
        name, faces = entry["picture"], entry["faces"]
        found = np.array([face["points"] for face in faces]).reshape(-1, 68, 2)
        np.testing.assert_array_equal(found, np.array([p for row, p in rows if row == name]).reshape(-1, 68, 2))
        assert len(faces) == len(places[name]), name
        assert [face["face"] for face in faces] == list(range(len(faces)))
        assert all(0 < face["milliseconds"] < entry["milliseconds"] for face in faces)
        for x, y, scale in places[name]:
            true = astronaut * scale + [x, y]
            assert min(nme(points, true) for points in found) < 0.05, name
        drawn = cv2.imread(str(output / name))
        assert drawn.shape == scene(**{"large.png": {"height": 1800, "width": 2400}}.get(name, {})).shape
        for face in faces:
            corners = np.array(face["box"])
            sides = corners[[1, 3]] - corners[0]
            shares = (np.array(face["points"]) - corners[0]) @ sides.T / np.square(sides).sum(1)
            assert -0.02 < shares.min() and shares.max() < 1.02, name
            for x, y in face["points"]:
                if name.endswith("png") and x >= 0:
                    assert drawn[round(y), round(x), 1] > 180 and drawn[round(y), round(x), [0, 2]].max() < 90
    assert entries[0]["picture"] == "edge.png" and entries[0]["faces"][0]["box"][0][0] < 0


def test_plain_crops_write_json_too(tmp_path):
    images, output = tmp_path / "crops", tmp_path / "drawn"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), ASTRONAUT)
    call("test_pb", "--pb", SHIPPED, "--images", images, "--output", output, "--json")
    ((name, points),), (entry,) = read_points(output)
    (face,) = entry["faces"]
    assert entry["picture"] == name == "a.png" and face["box"][2] == [ASTRONAUT.shape[1], ASTRONAUT.shape[0]]
    np.testing.assert_array_equal(face["points"], points)
    with (output / "points.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for key, ratio in zip(OPENINGS, measure_openings(points), strict=True):
        assert float(row[key]) == face[key] == pytest.approx(ratio, abs=0.002)  # points have 2 decimals


def test_a_detector_that_cannot_be_read_is_one_line(tmp_path, says, stop):
    command = ["test_pb", "--pb", SHIPPED, "--images", REPO / "images", "--output", tmp_path / "drawn"]
    bad = tmp_path / "bad.onnx"
    bad.write_text("no network\n")
    for path in bad, tmp_path / "missing.onnx", REPO / "models" / "retinaface.onnx":  # which is another detector
        message = says(*command, "--detect", "--detector", path)
        assert str(path) in message and YUNET_URL in message
        assert ("No such file" in message) == (not path.exists())
    for script in command, ["evaluate", "--data", tmp_path]:
        code, message = stop(*script, "--detector", bad)
        assert code == 2 and "--detector needs --detect" in message
    for option in ["--any_angle"], ["--score", 0.7]:
        code, message = stop(*command, *option)
        assert code == 2 and f"{option[0]} needs --detect" in message
    code, message = stop(*command, "--detect", "--score", 70)
    assert code == 2 and "--score: 70 is not in 0..1" in message
    assert not (tmp_path / "drawn").exists()


def test_yunet_gets_a_picture_it_can_take_and_gives_boxes_in_the_original(tmp_path):
    """By a network with YuNet's inputs and outputs that finds white squares of 64 pixels."""
    onnx = pytest.importorskip("onnx", reason="the package onnx makes the file")
    nodes, weights, outputs = [], [], []
    for stride in 8, 16, 32:
        for name, channels in ("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10):
            is_score = name in ("cls", "obj") and stride == 32
            weight = np.full((channels, 3, stride, stride), is_score / (3 * 255 * stride**2), np.float32)
            bias = np.array([0.5, 0.5, np.log(2), np.log(2)] if name == "bbox" else [0] * channels, np.float32)
            key = f"{name}_{stride}"
            weights += [onnx.numpy_helper.from_array(weight, f"w{key}"), onnx.numpy_helper.from_array(bias, f"b{key}")]
            nodes.append(
                onnx.helper.make_node("Conv", ["input", f"w{key}", f"b{key}"], [f"c{key}"], strides=[stride, stride])
            )
            nodes.append(onnx.helper.make_node("Transpose", [f"c{key}"], [key], perm=[0, 2, 3, 1]))
            cells = 640 // stride
            outputs.append(onnx.helper.make_tensor_value_info(key, 1, [1, cells, cells, channels]))
    shape = onnx.helper.make_tensor_value_info("input", 1, [1, 3, 640, 640])
    graph = onnx.helper.make_graph(nodes, "squares", [shape], outputs, weights)
    opset = [onnx.helper.make_opsetid("", 11)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=6), tmp_path / "squares.onnx")
    detector = load_detector(tmp_path / "squares.onnx")
    picture = np.zeros((1280, 960, 3), np.uint8)  # twice what the detector sees
    picture[640:704, 320:384] = 255
    np.testing.assert_allclose(detector.find(picture), [[288, 608, 416, 736]], atol=2)
    assert detector.find(np.zeros((100, 200, 3), np.uint8)).shape == (0, 4)


def test_points_beside_a_face_are_refused(predict, astronaut):
    """A first guess on the background gets a low score from refine_face; one on a face does not."""
    rng = np.random.default_rng(1)
    photo = scene((260, 100, 0.4), height=480, width=640)
    true = astronaut * 0.4 + [260, 100]
    refused = 0
    for _ in range(40):
        x, y = rng.uniform(0, 130), rng.uniform(0, 300)
        first = find_landmarks(predict, photo, [box_corners([x, y, x + 110, y + 130])])[0]
        face = refine_face(predict, photo, first)
        refused += face is None or face.score < 0.5
        face = refine_face(predict, photo, true + rng.normal(0, 6, 2))
        assert nme(face.points, true) < 0.06 and face.score > 0.5
        assert face.spread.shape == (68,) and 0 < face.spread.mean() < 0.1 * np.linalg.norm(true[36] - true[45])
    assert refused >= 38
    for outside in [-500, 0], [900, 0], [0, 600]:
        assert refine_face(predict, photo, true + outside) is None
    assert refine_face(predict, photo, np.full((68, 2), 100.0)) is None


def test_a_turned_copy_has_each_pixel_where_its_matrix_says(make):
    picture = make.photo(0, 50, 80)
    for quarters in 1, 2, 3:
        copy, matrix = turn_picture(picture, 90 * quarters)
        np.testing.assert_array_equal(copy, np.rot90(picture, quarters))
        x, y = (matrix @ [10.5, 20.5, 1]).astype(int)
        np.testing.assert_array_equal(copy[y, x], picture[20, 10])


@pytest.mark.parametrize("turn", [60, 90, 180, 270])
def test_faces_at_any_angle_are_found_as_exactly_as_upright_ones(turn, find_faces, astronaut):
    """And their tilt and their boxes turn with them."""
    true = astronaut * 0.45 + [140, 60]
    turned, matrix = turn_picture(scene((140, 60, 0.45)), -turn)
    (face,) = find_faces(turned)
    moved = true @ matrix[:, :2].T + matrix[:, 2]
    assert nme(face.points, moved) < 0.04 and face.score > 0.9
    assert (estimate_tilt(face.points) - estimate_tilt(true) - turn + 180) % 360 - 180 == pytest.approx(0, abs=6)
    across, ahead = face.box[1] - face.box[0], turn_back(turn)[:, 0]
    assert across @ ahead > 0.95 * np.linalg.norm(across)  # the box starts at the face's own top left


def test_any_angle_finds_a_tilted_face_beside_an_upright_one(predict, detector):
    upright = scene((120, 40, 0.45))
    two = np.hstack([upright, cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE)[:360]])
    faces = FaceFinder(predict, detector, any_angle=True)(two)
    tilts = sorted(estimate_tilt(face.points) for face in faces)
    assert len(faces) == 2 and tilts[0] < 15 and 75 < tilts[1] < 105


def test_faces_below_the_minimum_score_are_dropped(predict, detector):
    picture = scene((140, 60, 0.45))
    (face,) = FaceFinder(predict, detector)(picture)
    assert 0.5 < face.score < 1
    assert len(FaceFinder(predict, detector, min_score=face.score - 0.01)(picture)) == 1
    above = FaceFinder(predict, detector, min_score=face.score + 0.001)(picture)  # of a turned copy, if any
    assert all(other.score > face.score for other in above)
    assert not FaceFinder(predict, detector, min_score=1)(picture)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")
def test_held_out_photos_are_found_and_as_good_as_with_true_crops(tmp_path, capsys, detector):
    frontal = [face for face in find_annotations([REAL]) if not face.name.startswith("IBUG")]
    is_test = split_faces(frontal)
    for face in [face for face, test in zip(frontal, is_test, strict=True) if test][:40]:
        for file in face.points.path, face.photo:
            link = tmp_path / file.relative_to(REAL)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    call("evaluate", "--pb", SHIPPED, "--data", tmp_path, "--detect", "--output", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"][str(SHIPPED)]
    assert "% of the faces found" in capsys.readouterr().out
    assert results["detected"]["faces"] >= 36
    assert results["true crops"]["faces"] == results["detected"]["faces"]
    assert results["detected"]["nme_mean"] < 1.25 * results["true crops"]["nme_mean"] < 0.07


def test_the_fits_print_numbers_that_bring_boxes_closer_and_tell_faces_apart(tmp_path, run, make, astronaut):
    rng = np.random.default_rng(3)
    for i in range(20):
        x, y, scale = int(rng.uniform(0, 200)), int(rng.uniform(0, 80)), rng.uniform(0.3, 0.45)
        points = astronaut * scale + [x, y]
        make.face(tmp_path, "AFW", f"AFW_{i}_0", i, points, scene((x, y, scale)))
    make.face(tmp_path, "AFW", "AFW_21_0", 21)  # no face
    done = run("data/fit_detection.py", "--data", tmp_path, "--pb", SHIPPED)
    assert done.returncode == 0 and not done.stderr, done.stderr
    before, after = (
        float(re.search(rf"^{name} +(?:[\d.]+ +){{4}}([\d.]+)", done.stdout, re.M)[1]) for name in ("before", "after")
    )
    assert after < 0.7 * before and after < 5
    assert re.search(
        r"^landmark/detectors.py: RETINAFACE_CROP = np.array\(\[\[[-\d., ]+\], \[[-\d., ]+\]\]\)$", done.stdout, re.M
    )
    middle = float(
        re.search(r"^landmark/inference.py: SCORE_MIDPOINT, STEEPNESS = ([\d.]+), [\d.]+$", done.stdout, re.M)[1]
    )
    assert 0.03 < middle < 0.6 and done.stdout.endswith("then: python examples/web/constants.py\n")


def test_the_fit_of_the_score_is_calibrated():
    """The odds of two normal distributions are logistic: the steepness is their distance over the variance."""
    rng = np.random.default_rng(4)
    faces, others = (np.exp(rng.normal(np.log(middle), 0.6, n)).tolist() for middle, n in ((0.1, 4000), (0.4, 1000)))
    middle, steepness = fit_score(faces, others)
    assert middle == pytest.approx(0.2, rel=0.05) and steepness == pytest.approx(np.log(4) / 0.6**2, rel=0.1)
    middle, steepness = fit_score([0.1] * 50, [0.4] * 50)
    assert 0.1 < middle < 0.4 and 3 < steepness < 10
    for pair in (others, faces), (faces, []):
        with pytest.raises(UserError):
            fit_score(*pair)


# Videos


class CountingDetector:
    """A detector that counts its calls."""

    def __init__(self, detector):
        self.calls = 0
        self.detector = detector._replace(find=self.find)
        self.found = detector.find

    def find(self, picture):
        self.calls += 1
        return self.found(picture)


def add_noise(frame, rng):
    """A camera's noise: sigma of 5 levels."""
    return np.clip(frame + rng.normal(0, 5, frame.shape), 0, 255).round().astype(np.uint8)


def follow(predict, detector, frames):
    track = FaceTracker(FaceFinder(predict, detector))
    return [track(frame) for frame in frames]


def test_a_still_face_does_not_shake_and_is_detected_once(predict, detector):
    rng = np.random.default_rng(2)
    frame, counting = scene((120, 60, 0.4)), CountingDetector(detector)
    faces = follow(predict, counting.detector, [add_noise(frame, rng) for _ in range(110)])
    assert counting.calls == 1
    assert [[face.number for face in found] for found in faces] == [[0]] * 110
    points = np.array([found[0].points for found in faces[10:]])
    shake = np.sqrt(points.var(0).sum(-1)) / np.linalg.norm(points[0, 36] - points[0, 45])
    assert shake.max() < 0.003


@pytest.mark.parametrize("speed", [2, 4])
def test_a_moving_face_is_drawn_less_than_a_frame_late(predict, detector, speed):
    """The face moves to and fro; its lag is the shift in time with the least squared distance to the drawn points."""
    rng = np.random.default_rng(3)
    times, period = np.arange(120), 60
    way = speed * period / (2 * np.pi) * np.sin(2 * np.pi * times / period)  # at most `speed` pixels a frame
    still = scene((140, 60, 0.4))
    moves = [np.float32([[1, 0, x], [0, 1, 0]]) for x in way]
    frames = [add_noise(cv2.warpAffine(still, move, still.shape[1::-1], borderMode=1), rng) for move in moves]
    counting = CountingDetector(detector)
    faces = follow(predict, counting.detector, frames)
    assert counting.calls == 1
    drawn = np.array([found[0].points[:, 0].mean() for found in faces])[30:]

    def misfit(lag):
        off = drawn - np.interp(times[30:] - lag, times, way)
        return ((off - off.mean()) ** 2).sum()

    assert min(np.arange(-2, 6, 0.05), key=misfit) < 1


def test_a_face_that_leaves_is_dropped_and_found_again(predict, detector, astronaut):
    places = [[(40, 60, 0.4)]] * 5 + [[]] * 5 + [[(200, 90, 0.4)]] * 5 + [[(30, 20, 0.3)]] * 5
    rng, counting = np.random.default_rng(4), CountingDetector(detector)
    faces = follow(predict, counting.detector, [add_noise(scene(*place), rng) for place in places])
    assert [len(found) for found in faces] == [len(place) for place in places]
    assert counting.calls == 1 + 5 * 2 + 1 + 1  # upright, and one turn
    for found, place in zip(faces, places, strict=True):
        for face, (x, y, scale) in zip(found, place, strict=True):
            assert nme(face.points, astronaut * scale + [x, y]) < 0.05
    numbers = [found[0].number for found in faces if found]
    assert numbers == [0] * 5 + [1] * 5 + [2] * 5


def test_one_of_two_faces_is_found_again_without_losing_the_other(predict, detector):
    one, two = (20, 60, 0.4), (250, 80, 0.4)
    places = [[one, two]] * 4 + [[one]] * 4 + [[one, two]] * 4
    faces = follow(predict, detector, [scene(*place) for place in places])
    assert [len(found) for found in faces] == [2] * 4 + [1] * 4 + [2] * 4
    stays = {face.number for face in faces[0] if face.box[0, 0] < 150}
    assert all(stays < {face.number for face in found} | {-1} for found in faces)
    assert {face.number for face in faces[-1]} == stays | {2}


def test_a_face_that_turns_in_a_circle_is_followed(predict, detector, astronaut):
    still, counting, middle = scene((150, 90, 0.4)), CountingDetector(detector), (231.0, 189.0)
    true = astronaut * 0.4 + [150, 90]
    turns = [cv2.getRotationMatrix2D(middle, -6 * i, 1) for i in range(61)]
    frames = [cv2.warpAffine(still, turn, still.shape[1::-1], borderMode=cv2.BORDER_REPLICATE) for turn in turns]
    faces = follow(predict, counting.detector, frames)
    assert counting.calls == 1 and [[face.number for face in found] for found in faces] == [[0]] * 61
    for i, ((face,), turn) in enumerate(zip(faces, turns, strict=True)):
        assert nme(face.points, true @ turn[:, :2].T + turn[:, 2]) < 0.08, i
        assert (estimate_tilt(face.points) - estimate_tilt(true) - 6 * i + 180) % 360 - 180 == pytest.approx(0, abs=10)


def write_video(path, frames, rate=25):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()


def test_video_is_annotated_whole(tmp_path, capsys, detector, astronaut):
    places = [[(100 + 2 * i, 60, 0.4)] for i in range(12)] + [[]] * 3
    write_video(tmp_path / "clip.avi", [scene(*place) for place in places])
    output = tmp_path / "drawn"
    call("test_pb", "--pb", SHIPPED, "--video", tmp_path / "clip.avi", "--output", output, "--json")
    said = capsys.readouterr().out
    assert str(output / "clip.mp4") in said and "15 frames" in said and re.search(r"[\d.]+ frames a second", said)
    assert names_in(output) == {"clip.mp4", "clip.csv", "clip.json"}
    rows, entries = read_points(output, "clip")
    np.testing.assert_allclose([entry["seconds"] for entry in entries], np.arange(15) / 25, atol=1e-3)
    assert [entry["picture"] for entry in entries] == list(range(15))
    assert [name for name, _ in rows] == [str(i) for i in range(12)]
    video = cv2.VideoCapture(str(output / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    for (name, points), ((x, y, scale),) in zip(rows, places[:12], strict=True):
        frame = video.read()[1].astype(int)
        assert frame.shape == scene().shape
        assert nme(points, astronaut * scale + [x, y]) < 0.05, name
        at = frame[points[:, 1].round().astype(int), points[:, 0].round().astype(int)]
        assert np.median(at[:, 1] - at[:, [0, 2]].max(-1)) > 60, name
    assert sum(video.read()[0] for _ in range(9)) == 3


def test_a_video_that_cannot_be_read_is_one_line_and_leaves_nothing(tmp_path, says, stop, detector):
    output = tmp_path / "drawn"
    command = ["test_pb", "--pb", SHIPPED, "--output", output]
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video\n")
    for path in bad, tmp_path / "missing.mp4":
        assert str(path) in says(*command, "--video", path)
    assert "99" in says(*command, "--camera", 99)
    assert not list(output.iterdir())
    code, message = stop(*command[:-1], tmp_path, "--video", bad)
    assert code == 2 and "--output" in message


def test_ctrl_c_leaves_a_complete_video(tmp_path, detector):
    write_video(tmp_path / "long.avi", [scene((100, 60, 0.4))] * 1000)
    output = tmp_path / "drawn"
    command = [sys.executable, "test_pb.py", "--pb", SHIPPED, "--video", tmp_path / "long.avi", "--output", output]
    with subprocess.Popen(
        [*map(str, command), "--json"], cwd=REPO, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            deadline = time.monotonic() + 60
            partial = output / f".partial-{process.pid}-long.csv"
            while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and b"Traceback" not in stderr
    count = int(re.search(rb"(\d+) frames in", stdout)[1])
    assert 0 < count < 1000
    assert names_in(output) == {"long.mp4", "long.csv", "long.json"} and not list(output.glob(".partial*"))
    rows, entries = read_points(output, "long")
    video = cv2.VideoCapture(str(output / "long.mp4"))
    assert len(rows) == len(entries) == count
    assert sum(iter(lambda: video.read()[0], False)) == count
