from head import rotation

import json
import shutil

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import REPO
from scipy.spatial.transform import Rotation

from fit_head import angles
from landmark.annotations import find_annotations, read_face, read_faces
from landmark.cli import UserError
from landmark.evaluation import (
    CLOSED,
    JITTER,
    JITTERS,
    OPEN,
    WORST,
    GroundTruth,
    Prediction,
    compare_openings,
    detect_points,
    jitter_box,
    measure_groups,
    measure_poses,
    predict_faces,
)
from landmark.formats import read_points
from landmark.graphs import landmark_type_of, load_graph
from landmark.inference import Face, turn_back
from landmark.measures import measure_gaps, nme
from landmark.points import LANDMARK_TYPES
from landmark.pose import MEAN_HEAD, estimate_pose, estimate_tilt, read_pose
from landmark.records import read_records as read_faces_of_records
from landmark.runtimes import load_session
from make_sample import Camera
from people import draw_person, express, landmarks, model, places


def read_folder(folder, landmark_type="pts_2d"):
    """The annotations of a folder, and their faces: (list of Annotation, list of AnnotatedFace)."""
    annotations = find_annotations([folder])
    return annotations, [*read_faces(annotations, landmark_type)]


def truth_of(faces):
    return predict_faces({}, faces, {})[0]


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
    inter_ocular, box_nme, inner, eyes, groups = [], [], [], [], []
    for shares, (name, _, label, (x_min, y_min, x_max, y_max)) in zip(outputs, faces, strict=True):
        sides = np.array([x_max - x_min, y_max - y_min])
        p, q = shares.reshape(68, 2) * sides, label.reshape(68, 2) * sides
        errors = np.hypot(*(p - q).T)
        inter_ocular.append(errors.mean() / np.hypot(*(q[36] - q[45])))
        eyes.append(errors[36:48].mean() / np.hypot(*(q[36] - q[45])))
        width, height = q.max(0) - q.min(0)
        box_nme.append(errors.mean() / np.sqrt(width * height))
        inner.append(errors[17:].mean() / np.sqrt(width * height))
        groups.append(name.split("/")[0])
    inter_ocular, groups = np.array(inter_ocular), np.array(groups)
    results = next(iter(json.loads((output[0] / "results.json").read_text())["results"].values()))
    assert results["all"]["faces"] == len(faces)
    assert results["all"]["nme_mean"] == pytest.approx(inter_ocular.mean(), rel=1e-4)
    assert results["all"]["nme_median"] == pytest.approx(np.median(inter_ocular), rel=1e-4)
    assert results["all"]["nme_box"] == pytest.approx(np.mean(box_nme), rel=1e-4)
    assert results["all"]["nme_inner"] == pytest.approx(np.mean(inner), rel=1e-4)
    assert results["eyes"]["nme_mean"] == pytest.approx(np.mean(eyes), rel=1e-4)
    for group in set(groups):
        assert results[group]["nme_mean"] == pytest.approx(inter_ocular[groups == group].mean(), rel=1e-4)
    assert results["jittered"]["faces"] == JITTERS * len(faces)


def test_the_same_numbers_are_printed_and_written(output):
    folder, printed = output
    results = next(iter(json.loads((folder / "results.json").read_text())["results"].values()))
    for name in "eye_open", "mouth_open":
        line = next(line for line in printed.splitlines() if line[:12].rstrip() == name)
        assert all(f" {key} {number:.4g}" in line for key, number in results.pop(name).items()) and "error" in line
    for name, measures in results.items():
        line = next(line for line in printed.splitlines() if line[:12].rstrip() == name)
        assert f"{measures['nme_box']:.2%}" in line and f" {measures['faces']} " in line
    assert "Protocol:" in printed
    assert cv2.imread(str(folder / "worst.png")) is not None
    worst = json.loads((folder / "results.json").read_text())["worst"]
    errors = [*worst.values()]
    assert errors == sorted(errors, reverse=True) and len(errors) == min(25, results["all"]["faces"])
    assert cv2.imread(str(folder / "ced.png")) is not None


def test_a_folder_gives_the_faces_of_its_records(small_set, records):
    _, of_folder = read_folder(small_set)
    of_records = {face.name: face for path in records.glob("*.tfrecords") for face in read_faces_of_records([path])}
    assert of_records.keys() == {face.name for face in of_folder}
    of_records = [of_records[face.name] for face in of_folder]
    for face, other in zip(of_folder, of_records, strict=True):
        np.testing.assert_array_equal(face.crop, other.crop)
    one, other = truth_of(of_folder), truth_of(of_records)
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_allclose(one.points, other.points, atol=1e-3)


def test_each_face_is_read_once_for_all_models_and_unusable_ones_are_reported(records, capsys):
    faces = [*read_faces_of_records([records / "train.tfrecords"])]
    broken = {3: "a.jpg: JPEG is cut short", 40: "b.jpg: empty file"}
    for number, line in broken.items():
        faces.insert(number, line)
    mean = np.mean([face.label for face in faces if not isinstance(face, str)], 0)
    models = {
        "mean": lambda crops: np.tile(mean, [len(crops), 1]),
        "middle": lambda crops: np.full([len(crops), 136], 0.5),
    }
    truth, predictions = predict_faces(models, iter(faces), dict.fromkeys(models, "pts_2d"))
    assert truth.numbers.tolist() == [number for number in range(len(faces)) if number not in broken]
    assert truth.names.tolist() == [faces[number].name for number in truth.numbers]
    said = capsys.readouterr().err
    assert all(f"{line}; left out" in said for line in broken.values())
    assert predictions.keys() == models.keys()
    for prediction in predictions.values():
        assert prediction.points.shape == truth.points.shape
        np.testing.assert_array_equal(prediction.errors.box, nme(prediction.points, truth.points, truth.boxes).box)
        assert len(prediction.jittered.box) == JITTERS * len(truth.names)
        errors, numbers, crops, points = zip(*prediction.worst, strict=True)
        assert [*errors] == sorted(prediction.errors.box, reverse=True)[:WORST]
        for number, crop, shown in zip(numbers, crops, points, strict=True):
            np.testing.assert_array_equal(crop, faces[truth.numbers[number]].crop)
            np.testing.assert_array_equal(shown, prediction.points[number])
    with pytest.raises(UserError, match="none of the faces can be used"):
        truth_of(broken.values())


def test_shaken_crops_lie_where_their_boxes_say(small_set):
    moved = []
    rng = np.random.default_rng(0)
    for face in read_folder(small_set)[1]:
        crops, boxes = jitter_box(face, rng.normal(0, JITTER, [JITTERS, 4]))
        assert len(crops) == JITTERS
        box = np.array(face.box)
        moved.append((boxes - box) / np.tile(box[2:] - box[:2], 2))
        picture = cv2.imdecode(np.frombuffer(face.photo, np.uint8), cv2.IMREAD_COLOR)
        padded = np.pad(picture, ((500, 500), (500, 500), (0, 0)))
        for crop, (x_min, y_min, x_max, y_max) in zip(crops, boxes, strict=True):
            cut = padded[y_min + 500 : y_max + 500, x_min + 500 : x_max + 500]
            np.testing.assert_array_equal(crop, cv2.resize(cut, (128, 128), interpolation=cv2.INTER_LINEAR))
    assert np.std(moved) == pytest.approx(JITTER, rel=0.1)
    assert np.abs(np.mean(moved, axis=(0, 1))).max() < JITTER / 3


def from_mean_head(turn):
    """The pose, radians, of a rendered head turned by a rotation; 0 is where MEAN_HEAD looks, not MakeHuman's mesh."""
    mesh = places(model()["vertices"])
    zero = Rotation.align_vectors(MEAN_HEAD - MEAN_HEAD.mean(0), mesh - mesh.mean(0))[0].as_matrix()
    return angles(turn @ zero.T)


def move_zero(path):
    """Rewrites a rendered face's Pose_Para, see from_mean_head."""
    pose = from_mean_head(rotation(*scipy.io.loadmat(path)["Pose_Para"][0, :3]))
    scipy.io.savemat(path, {"Pose_Para": np.array([pose])})


@pytest.mark.parametrize("yaw, limits", [(0, [7, 7, 4]), (45, [7, 7, 4]), (70, [9, 9, 9])])
def test_pose_from_exact_points_is_near_that_of_the_head(yaw, limits):
    errors = []
    for face in range(100):
        rest, who = draw_person(np.random.default_rng(face))
        turn = rotation(0, np.deg2rad(yaw), 0)
        points, _ = landmarks(Camera(turn, turn, 12, 100).project(rest)[0], np.array([0, 1]), who["brow"])
        pose, true = estimate_pose(points), np.rad2deg(from_mean_head(turn))
        errors.append(np.abs([pose.pitch, pose.yaw, pose.roll] - true))
    assert (np.mean(errors, 0) < limits).all()


def test_pose_from_the_points_is_near_that_of_the_pose_file(sample, tmp_path):
    annotations, faces = read_folder(shutil.copytree(sample, tmp_path / "sample"))
    truth = truth_of(faces)
    for points, annotation in zip(truth.points, annotations, strict=True):
        path = annotation.photo.with_suffix(".mat")
        move_zero(path)
        pitch, yaw, roll = np.rad2deg(scipy.io.loadmat(path)["Pose_Para"][0, :3])
        assert read_pose(path) == pytest.approx((yaw, pitch, roll))
        if abs(yaw) < 60:
            turned = (points - points.mean(0)) @ turn_back(90).T
            assert (estimate_tilt(turned) - estimate_tilt(points)) % 360 == pytest.approx(90, abs=1)
    off = measure_poses(truth.points, truth, annotations)
    for yaw, pitch, roll in off["yaw 0-30"], off["yaw 30-60"]:
        assert yaw < 7 and pitch < 7 and roll < 4
    assert max(off["yaw 60-90"]) < 9
    path.unlink()
    assert np.isnan(read_pose(path)).all() and read_face(annotation).yaw == pytest.approx(
        abs(estimate_pose(points).yaw), abs=0.1
    )
    assert np.isfinite([*measure_poses(truth.points, truth, annotations).values()]).all()
    assert np.isnan(estimate_pose(np.zeros((68, 2)))).all()


def test_no_face_to_measure_is_one_line(tmp_path, says):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in says("evaluate", "--data", tmp_path / "empty")
    missing = tmp_path / "none.tfrecords"
    assert f"cannot read {missing}" in says("evaluate", "--records", missing)


def test_outputs_that_cannot_be_written_are_said_before_the_work(small_set, tmp_path, capsys, says):
    (tmp_path / "file").touch()
    same = ["evaluate", "--pb", REPO / "models/landmark_3d.pb", "--data", small_set, "--points", "3d"]
    assert str(tmp_path / "file") in says(*same, "--output", tmp_path / "file")
    assert str(tmp_path / "none.onnx") in says(*same, "--detect", "--detector", tmp_path / "none.onnx")
    assert "faces in" not in capsys.readouterr().out


def test_records_have_one_type_of_points(stop):
    code, message = stop("evaluate", "--records", "test.tfrecords", "--points", "3d")
    assert code == 2 and "--points needs --data" in message


def test_detected_3d_points_are_those_of_the_3d_crops(sample):
    """A face that is found exactly has no error, also where the two jaws give two crops."""
    annotations, faces = read_folder(sample, "pts_3d")
    truth = truth_of(faces)
    (i,) = np.argsort(-truth.yaws)[:1]
    truth = truth_of([faces[i]])
    points = read_points(annotations[i])["pts_3d"]
    found = Face(0, None, points, None, 1, None, 0)
    detected, _ = detect_points(lambda photo: [found], truth, [annotations[i]], "pts_3d")
    np.testing.assert_allclose(detected, truth.points, atol=0.01)


def test_groups_by_yaw_and_expression_hold_the_faces_they_say(make):
    rng = np.random.default_rng(0)
    points = np.tile(make.points(0), [60, 1, 1]) + rng.normal(0, 0.1, [60, 68, 2])
    points[:, 27], points[:, 33] = (200, 100), (200, 200)
    for above, below in ((37, 41), (38, 40), (43, 47), (44, 46)):
        points[:, above] = points[:, below] + [0, 100 * CLOSED + 1]
        points[:7, above] = points[:7, below] + [0, 100 * CLOSED - 1]
    for above, below in ((61, 67), (62, 66), (63, 65)):
        points[:, above] = points[:, below] + [0, 100 * OPEN - 1]
        points[5:25, above] = points[5:25, below] + [0, 100 * OPEN + 1]
    points[-10:, :17] = np.nan
    yaws = np.repeat([0, 29, 31, 59, 61, 89], 10).astype(float)
    boxes = np.tile([0, 0, 400, 500], [60, 1])
    distances = rng.uniform(1, 9, [60, 1]) * np.where(np.arange(68) < 17, 3, 1)
    predicted = points + distances[..., None] * [0.6, 0.8]
    points[3, 45] = points[3, 36]
    errors = nme(predicted, points, boxes)
    truth = GroundTruth([f"SET/{i}" for i in range(60)], points, boxes, yaws, [*range(60)])
    results = measure_groups(Prediction(predicted, errors, errors, []), truth)
    json.dumps(results, allow_nan=False)
    assert [results[f"yaw {name}"]["faces"] for name in ("0-30", "30-60", "60-90")] == [20, 20, 20]
    assert results["eyes closed"]["faces"] == 7 and results["mouth open"]["faces"] == 20
    assert results["eyes closed"]["nme_inner"] == pytest.approx(errors.inner[:7].mean())
    assert results["yaw 60-90"]["nme_box"] == pytest.approx(errors.box[40:].mean())
    assert results["jaw"]["faces"] == 50 and results["eyes"]["faces"] == 60
    assert results["jaw"]["nme_box"] > 2 * results["eyes"]["nme_box"]
    points[:, :17] = np.nan
    assert measure_groups(Prediction(predicted, errors, errors, []), truth)["jaw"] == {"faces": 0}
    assert results["yaws"]["nme_inner"] == pytest.approx(errors.inner.mean())
    assert results["yaws"]["nme_box"] == pytest.approx(errors.box.mean())
    assert results["all"]["nme_mean"] == pytest.approx(np.delete(errors.inter_ocular, 3).mean())
    np.testing.assert_allclose(errors.box[-10:], errors.inner[-10:])  # points without a label do not count
    named = truth._replace(names=[f"{'all' if i < 50 else 'eyes'}/{i}" for i in range(60)])
    again = measure_groups(Prediction(predicted, errors, errors, []), named)
    assert again["all"]["faces"] == 60 and again["set all"]["faces"] == 50
    assert again["eyes"]["faces"] == 60 and again["set eyes"]["faces"] == 10


def test_eyes_and_mouths_are_told_apart_by_how_far_they_are_open(make):
    true = np.tile(make.points(0), [40, 1, 1])
    true[:, 27], true[:, 33] = (200, 100), (200, 190)
    for corners, lids in ((36, 39), ((37, 41), (38, 40))), ((42, 45), ((43, 47), (44, 46))):
        true[:, corners] = [[0, 0], [20, 0]]
        for above, below in lids:
            true[:, above], true[:, below] = (5, 0), (5, 6)
            true[:10, below] = 5, 0
    true[:, [60, 64]] = [[0, 0], [100, 0]]
    for above, below in (61, 67), (62, 66), (63, 65):
        true[:, above], true[:, below] = (5, 0), (5, 10)
        true[30:, below] = 5, 40
    predicted = true.copy()
    for below in 41, 40, 47, 46:
        predicted[:8, below, 1] = 2  # ratio 0.1
        predicted[8:12, below, 1] = 4  # 0.2: two closed eyes and two open ones
    predicted[39, [67, 66, 65], 1] = 5  # one open mouth below all others
    results = compare_openings(predicted, true)
    eyes, mouth = results["eye_open"], results["mouth_open"]
    assert eyes["error"] == pytest.approx((8 * 0.1 + 2 * 0.2 + 2 * 0.1) / 40)
    assert eyes["closed"] == 10 and eyes["closed_median"] == pytest.approx(0.1) and eyes["closed_below"] == 0.8
    assert eyes["others"] == 30 and eyes["others_median"] == pytest.approx(0.3) and eyes["others_below"] == 0
    assert eyes["roc_auc"] == pytest.approx(1 - 0.5 * (2 * 2) / (10 * 30))
    assert mouth["open"] == 10 and mouth["others_median"] == pytest.approx(0.1) and mouth["others_below"] == 1
    assert mouth["roc_auc"] == pytest.approx(0.9) and mouth["error"] == pytest.approx(0.35 / 40)
    true[:5, 37] = np.nan
    assert compare_openings(predicted, true)["eye_open"]["closed"] == 5
    true[:, 37] = true[:, 61] = np.nan
    assert compare_openings(predicted, true) == {}


@pytest.fixture(scope="module")
def sample(once, run):
    """The folder of eight rendered adults in four poses each: children's heads differ from the mean head."""

    def make_sample(folder):
        options = "--faces", 8, "--variants", 4, "--seed", 7
        assert run("data/make_sample.py", "--out", folder / "sample", *options).returncode == 0

    return once(make_sample) / "sample"


def test_gaps_hardly_depend_on_the_yaw():
    for face in range(8):
        rest, who = draw_person(np.random.default_rng(face))
        vertices, views = express(rest, {"open": np.ones(2), "jawOpen": face / 8}), []
        for yaw in -60, -30, 0, 30, 60:
            turn = rotation(0, np.deg2rad(yaw), 0)
            seen, _ = Camera(turn, turn, 12, 100).project(vertices)
            views.append(landmarks(seen, np.array([0, 1]), who["brow"])[0])
        lids, lips = measure_gaps(np.array(views))
        assert np.ptp(lids) < 0.05 and np.ptp(lips) < 0.1


@pytest.mark.parametrize(
    "name, landmark_type", [("landmark", "pts_2d"), ("landmark_free", "pts_2d"), ("landmark_3d", "pts_3d")]
)
def test_each_shipped_graph_has_the_jaw_of_its_landmark_type(sample, name, landmark_type):
    path = REPO / "models" / f"{name}.pb"
    assert landmark_type_of(load_graph(path)) == landmark_type
    truths = {each: truth_of(read_folder(sample, each)[1]) for each in LANDMARK_TYPES}
    faces = read_folder(sample, landmark_type)[1]
    _, predictions = predict_faces({name: load_session(path)}, faces, {name: landmark_type})
    errors = {
        each: np.linalg.norm((predictions[name].points - truth.points)[:, :17], axis=-1)[truth.yaws > 30].mean()
        for each, truth in truths.items()
    }
    own = errors.pop(landmark_type)
    assert own < 0.8 * min(errors.values())


def test_faces_of_another_landmark_type_are_refused(landmark_pb, small_set, says):
    message = says("evaluate", "--pb", landmark_pb, "--data", small_set, "--points", "3d")
    assert f"{landmark_pb} was trained on pts_2d" in message and "pts_3d" in message
