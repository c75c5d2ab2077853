"""load_model() and FaceTracker: from photos to points in a Python program, with NumPy and OpenCV alone."""

import importlib.util
import inspect
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import REPO

from landmark import FaceTracker, load_model
from landmark.cli import UserError
from landmark.detectors import load_detector
from landmark.inference import FaceFinder
from landmark.runtimes import load_session

SHIPPED = REPO / "models" / "landmark.pb"
ASTRONAUT = REPO / "images" / "astronaut.jpg"


def make_frames():
    """A photo, and five frames of a video in which its face moves to the right."""
    face = cv2.imread(str(ASTRONAUT))
    small = cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    frames = [cv2.copyMakeBorder(small, 40, 80, 60 + x, 80 - x, cv2.BORDER_REPLICATE) for x in range(0, 20, 4)]
    return face, frames


def find_all(find_faces):
    """The faces of the photo, then of each frame: list of lists of Face."""
    photo, frames = make_frames()
    track = FaceTracker(find_faces)
    return [find_faces(photo), *(track(frame) for frame in frames)]


PROGRAM = f"""
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[3].split():
            raise ImportError(f"{{name}} is not installed")


sys.meta_path.insert(0, Refuse())
import cv2
import numpy as np
from landmark import FaceTracker, load_model

ASTRONAUT = {str(ASTRONAUT)!r}
{inspect.getsource(make_frames)}
{inspect.getsource(find_all)}
found = find_all(load_model(sys.argv[1]))
assert all(len(faces) == 1 for faces in found), found
np.savez(sys.argv[2], points=[face.points for face, in found], box=[face.box for face, in found])
"""


@pytest.fixture(scope="module")
def expected():
    """What a TensorFlow session finds."""
    found = find_all(FaceFinder(load_session(SHIPPED), load_detector()))
    assert [len(faces) for faces in found] == [1] * 6 and {face.number for (face,) in found} == {0}
    return [face for (face,) in found]


def assert_same(points, boxes, expected):
    for found, box, face in zip(points, boxes, expected, strict=True):
        sides = np.linalg.norm(face.box[[1, 3]] - face.box[0], axis=-1)
        assert np.abs(found - face.points).max() < 1e-3 * sides.min()
        assert np.abs(box - face.box).max() < 1e-3 * sides.min()


IN_THREADS = """
import sys
import cv2
from concurrent.futures import ThreadPoolExecutor
from landmark import load_model
find_faces = load_model(sys.argv[1])
picture = cv2.imread("examples/photos/astronaut.jpg")
pictures = [picture, picture[:, ::-1].copy(), cv2.resize(picture, None, fx=0.5, fy=0.5), picture[:, 100:].copy()]
expected = [[face.points.tolist() for face in find_faces(each)] for each in pictures]
with ThreadPoolExecutor(4) as pool:
    for _ in range(10):
        found = [[face.points.tolist() for face in faces] for faces in pool.map(find_faces, pictures)]
        assert found == expected
"""


@pytest.mark.parametrize("suffix, package", [("pb", "cv2"), ("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")])
def test_threads_can_share_a_model(suffix, package, run):
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")
    done = run("-c", IN_THREADS, SHIPPED.with_suffix(f".{suffix}"), cwd=REPO)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("suffix, package", [("pb", "cv2"), ("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")])
def test_points_without_tensorflow_are_those_of_its_session(suffix, package, expected, tmp_path, run):
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")
    refused = "tensorflow tf_keras keras" + " scipy PIL tqdm matplotlib google onnx" * (suffix == "pb")
    done = run("-c", PROGRAM, SHIPPED.with_suffix(f".{suffix}"), tmp_path / "found.npz", refused, cwd=tmp_path)
    assert done.returncode == 0 and not done.stdout, done.stderr
    assert not done.stderr or suffix == "tflite", done.stderr  # LiteRT says which delegate it takes
    found = np.load(tmp_path / "found.npz")
    assert_same(found["points"], found["box"], expected)


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_each_runtime_gives_the_points_of_the_session(suffix, expected):
    """In this process, where TFLite may be TensorFlow's."""
    found = find_all(load_model(str(SHIPPED.with_suffix(f".{suffix}"))))
    assert_same(*zip(*((face.points, face.box) for (face,) in found), strict=True), expected)


def test_a_face_has_what_the_documentation_says():
    (face,) = load_model()(cv2.imread(str(ASTRONAUT)))
    assert face.number == 0 and 0.9 < face.score <= 1 and face.milliseconds > 0
    assert face.points.shape == (68, 2) and face.points.dtype == np.float64
    assert face.box.shape == (4, 2) and face.spread.shape == (68,)
    assert [-20 < angle < 20 for angle in (face.pose.yaw, face.pose.pitch, face.pose.roll)] == [True] * 3
    inside = (face.points - face.box[0]) @ (face.box[[1, 3]] - face.box[0]).T
    shares = inside / np.square(face.box[[1, 3]] - face.box[0]).sum(1)
    assert shares.min() > -0.02 and shares.max() < 1.02
    right, left = face.eye_open
    assert 0.2 < right < 0.45 and 0.2 < left < 0.45 and 0 < face.mouth_open < 0.5  # open eyes, and a smile
    assert face._replace(points=face.points[:, ::-1]).eye_open == pytest.approx((right, left))
    assert 0 < face.spread.mean() < 0.02 * np.linalg.norm(face.box[1] - face.box[0])


def test_a_picture_without_a_face_gives_an_empty_list():
    find_faces = load_model()
    nothing = np.full([200, 300, 3], 120, np.uint8)
    assert find_faces(nothing) == [] and FaceTracker(find_faces)(nothing) == []


def test_what_is_no_picture_is_refused_in_one_line():
    find_faces, picture = load_model(), np.zeros([90, 60, 3], np.uint8)
    unusable = {"NoneType": cv2.imread("none.jpg"), "uint8 [90, 60]": picture[..., 0], "uint8 [0, 60, 3]": picture[:0]}
    unusable |= {"uint8 [90, 60, 4]": np.zeros([90, 60, 4], np.uint8), "uint16 [90, 60, 3]": picture.astype(np.uint16)}
    for find in find_faces, FaceTracker(find_faces):
        for what, each in unusable.items():
            with pytest.raises(UserError, match=re.escape(f"uint8 [H, W, 3], BGR, and not {what}")):
                find(each)


def test_a_minimum_score_of_one_drops_every_face():
    assert load_model(min_score=1)(cv2.imread(str(ASTRONAUT))) == []


@pytest.mark.parametrize("suffix", ["pb", "onnx", "tflite"])
def test_a_model_that_cannot_be_read_is_one_line(suffix, tmp_path):
    path = tmp_path / f"landmark.{suffix}"
    with pytest.raises(UserError, match=f"^cannot read {path}: No such file or directory$"):
        load_model(path)
    for content in b"", b"no model\n", SHIPPED.read_bytes()[:100_000]:
        path.write_bytes(content)
        with pytest.raises(UserError) as refused:
            load_model(path)
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("outputs", [10, 136])
def test_the_model_of_another_network_is_one_line(outputs, tmp_path):
    path = tmp_path / "other.pb"
    with tf.Graph().as_default() as graph:
        means = tf.reduce_mean(tf.placeholder(tf.float32, [None, 128, 128, 3], name="Placeholder"), [1, 2])
        if outputs == 136:
            means = tf.cumsum(means, 1)  # which OpenCV does not know
        tf.matmul(means, np.ones([3, outputs], np.float32))
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError) as refused:
        load_model(path)(cv2.imread(str(ASTRONAUT)))
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix, package", [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")])
def test_a_missing_runtime_is_one_line_with_the_command_that_installs_it(suffix, package, monkeypatch):
    for name in package, f"{package}.interpreter", "tensorflow.compat.v1.lite":
        monkeypatch.setitem(sys.modules, name, None)  # Python's own mark of a module that cannot be imported
    with pytest.raises(
        UserError,
        match=rf'{SHIPPED.with_suffix(f".{suffix}")} needs a package: pip install "{package.replace("_", "-")}',
    ):
        load_model(SHIPPED.with_suffix(f".{suffix}"))


def test_a_name_of_a_model_can_be_any_bytes(tmp_path):
    path = Path(shutil.copy(SHIPPED, tmp_path / "caf\udce9.pb"))
    assert len(load_model(path)(cv2.imread(str(ASTRONAUT)))) == 1
