import json

import cv2
import numpy as np
import pytest
import scipy.io

import evaluate
from landmark.pose import estimate_yaw, read_yaw


@pytest.fixture(scope="module")
def output(tmp_path_factory, run, records, landmark_pb):
    """evaluate.py on the test records: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("evaluated")
    test = records / "test.tfrecords"
    done = run("evaluate.py", "--pb", landmark_pb, "--records", test, "--output", folder, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_results_equal_an_independent_computation(output, records, read_records, live_checkpoint, checkpoint_outputs):
    faces = read_records(records / "test.tfrecords")
    outputs = checkpoint_outputs(live_checkpoint, np.stack([crop for _, crop, _, _ in faces]))
    inter_ocular, box_nme, eyes, groups = [], [], [], []
    for shares, (name, _, label, (x_min, y_min, x_max, y_max)) in zip(outputs, faces, strict=True):
        sides = np.array([x_max - x_min, y_max - y_min])
        p, q = shares.reshape(68, 2) * sides, label.reshape(68, 2) * sides
        errors = np.hypot(*(p - q).T)
        inter_ocular.append(errors.mean() / np.hypot(*(q[36] - q[45])))
        eyes.append(errors[36:48].mean() / np.hypot(*(q[36] - q[45])))
        width, height = q.max(0) - q.min(0)
        box_nme.append(errors.mean() / np.sqrt(width * height))
        groups.append(name.split("/")[0])
    inter_ocular, groups = np.array(inter_ocular), np.array(groups)
    results = next(iter(json.loads((output[0] / "results.json").read_text())["results"].values()))
    assert results["all"]["faces"] == len(faces)
    assert results["all"]["nme_mean"] == pytest.approx(inter_ocular.mean(), rel=1e-4)
    assert results["all"]["nme_median"] == pytest.approx(np.median(inter_ocular), rel=1e-4)
    assert results["all"]["nme_box"] == pytest.approx(np.mean(box_nme), rel=1e-4)
    assert results["eyes"]["nme_mean"] == pytest.approx(np.mean(eyes), rel=1e-4)
    for group in set(groups):
        assert results[group]["nme_mean"] == pytest.approx(inter_ocular[groups == group].mean(), rel=1e-4)
    assert results["shaken"]["faces"] == evaluate.SHAKES * len(faces)


def test_what_is_printed_is_what_is_written(output):
    folder, printed = output
    for name, measures in next(iter(json.loads((folder / "results.json").read_text())["results"].values())).items():
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert f"{measures['nme_mean']:.2%}" in line and f" {measures['faces']} " in line
    assert "Protocol:" in printed
    assert cv2.imread(str(folder / "worst.png")) is not None
    assert cv2.imread(str(folder / "ced.png")) is not None


def test_a_folder_gives_what_its_records_give(tmp_path, small_set, run, records):
    from_folder = evaluate.find_folders([small_set], "pts_2d")
    from_records = evaluate.find_records([records / "train.tfrecords", records / "test.tfrecords"])
    at = {name: i for i, name in enumerate(from_records.names)}
    assert set(at) == set(from_folder.names)
    order = [at[name] for name in from_folder.names]
    in_records = list(from_records.read())
    for face, i in zip(from_folder.read(), order, strict=True):
        np.testing.assert_array_equal(face.crop, in_records[i].crop)
    np.testing.assert_array_equal(from_folder.boxes, from_records.boxes[order])
    np.testing.assert_allclose(from_folder.points, from_records.points[order], atol=1e-3)


def test_shaken_crops_lie_where_their_boxes_say(small_set):
    faces = evaluate.find_folders([small_set], "pts_2d")
    moved = []
    rng = np.random.default_rng(0)
    for face, box in zip(faces.read(), faces.boxes, strict=True):
        crops, boxes = evaluate.shake_box(face, rng.normal(0, evaluate.SHAKE, [evaluate.SHAKES, 4]))
        assert len(crops) == evaluate.SHAKES
        moved.append((boxes - box) / np.tile(box[2:] - box[:2], 2))
        picture = cv2.imdecode(np.frombuffer(face.photo, np.uint8), cv2.IMREAD_COLOR)
        padded = np.pad(picture, ((500, 500), (500, 500), (0, 0)))
        for crop, (x_min, y_min, x_max, y_max) in zip(crops, boxes, strict=True):
            cut = padded[y_min + 500 : y_max + 500, x_min + 500 : x_max + 500]
            np.testing.assert_array_equal(crop, cv2.resize(cut, (128, 128), interpolation=cv2.INTER_LINEAR))
    assert np.std(moved) == pytest.approx(evaluate.SHAKE, rel=0.1)
    assert np.abs(np.mean(moved, axis=(0, 1))).max() < evaluate.SHAKE / 3


def test_yaw_from_the_points_is_near_that_of_the_pose_file(tmp_path, run):
    folder = tmp_path / "sample"
    assert run("data/make_sample.py", "--out", folder, "--faces", 8, "--variants", 3).returncode == 0
    off = []
    for path in sorted(folder.glob("landmarks/*/*.mat")):
        points = scipy.io.loadmat(path)["pts_2d"].astype(float)
        pose = folder / "SAMPLE" / path.name.replace("_pts", "")
        true = np.rad2deg(scipy.io.loadmat(pose)["Pose_Para"][0, 1])
        assert read_yaw(pose, points) == pytest.approx(true)
        off.append(abs(estimate_yaw(points)) - abs(true))
    assert np.median(np.abs(off)) < 6


def test_no_face_to_measure_is_one_line(tmp_path, says):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in says("evaluate", "--data", tmp_path / "empty")
    assert "none.tfrecords" in says("evaluate", "--records", tmp_path / "none.tfrecords")
