"""The programs of README.md and examples/, run as they stand in a fresh clone: all find the same points."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ENVIRONMENT, REPO, names_in

from landmark.detectors import load_detector
from landmark.export import FORMATS, read_crops
from landmark.inference import FaceFinder
from landmark.runtimes import load_session

PYTHON = sorted(path.name for path in (REPO / "examples").glob("*.py"))
OF_CROPS = [name for name in PYTHON if name not in ("load_model.py", "follow_video.py", "blinks.py")]
OPENCV_5 = "import runpy, sys; sys.path[:0] = sys.argv[1], '.'; import cv2; assert cv2.__version__[0] == '5'"


@pytest.fixture(scope="module")
def clone(once):
    """A folder of what a clone has: the files that are not ignored, as they are now."""

    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=REPO, capture_output=True)
    if done.returncode:
        pytest.skip("this is not a git repository")

    def make_clone(folder):
        for name in os.fsdecode(done.stdout).split("\0"):
            if (REPO / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPO / name, folder / name)

    return once(make_clone)


@pytest.fixture
def execute(clone, tmp_path, run, monkeypatch):
    """execute(name, *arguments): runs a program of examples/ in the clone, without TensorFlow unless it names that."""

    def execute(name, *arguments):
        paths = [str(clone)]  # as its documentation says
        if "tensorflow" not in (clone / "examples" / name).read_text():
            (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow is not installed')\n")
            paths.insert(0, str(tmp_path))
        monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", os.pathsep.join(paths))
        done = run(Path("examples", name), *arguments, cwd=clone)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return execute


def read_numbers(text):
    return np.array(re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?", text), float)


def assert_points_of_the_crop(text, tolerance=1e-4):
    """Asserts that a program printed the shipped model's points on images/astronaut.jpg, to a share of its sides."""
    crop = cv2.imread(str(REPO / "images" / "astronaut.jpg"))
    expected = load_session(REPO / "models" / "landmark.pb")(cv2.resize(crop, (128, 128))[None]).reshape(68, 2)
    printed = read_numbers(text).reshape(68, 2) / crop.shape[1::-1]
    np.testing.assert_allclose(printed, expected, atol=tolerance)


@pytest.mark.parametrize("name", OF_CROPS)
def test_a_program_of_a_crop_prints_the_points_of_the_model(name, execute):
    assert_points_of_the_crop(execute(name))


def test_the_program_of_a_photo_prints_the_points_of_its_faces(execute):
    picture = cv2.imread(str(REPO / "examples" / "photos" / "astronaut.jpg"))
    faces = FaceFinder(load_session(REPO / "models" / "landmark.pb"), load_detector())(picture)
    parts = re.split(r"^face (\d+), score ([\d.]+), yaw (-?\d+) degrees$", execute("load_model.py"), flags=re.MULTILINE)
    assert faces and [int(number) for number in parts[1::4]] == [face.number for face in faces]
    for face, points in zip(faces, parts[4::4], strict=True):
        side = np.linalg.norm(face.box[1] - face.box[0])
        np.testing.assert_allclose(read_numbers(points).reshape(68, 2), face.points, atol=1e-3 * side)


def test_the_program_of_a_video_follows_one_face(execute):
    numbers, x, y = read_numbers(execute("follow_video.py")).reshape(-1, 3).T
    assert (
        numbers.tolist() == [0, 0, 0] and (np.diff(x) < -1).all() and np.ptp(y) < 4
    )  # each frame is cut 8 pixels more


def test_the_program_of_blinks_counts_those_of_a_rendered_face(execute, tmp_path):
    """The face moves a little, as people do, and the pictures have noise."""
    pictures = {name: cv2.imread(str(REPO / "tests" / "blink" / f"{name}.jpg")) for name in ("open", "half", "shut")}
    blink = ["half", "shut", "shut", "shut", "half"]
    names = ["open"] * 12 + [*blink, *["open"] * 12] * 3 + ["half"] + ["open"] * 6  # half is none
    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (240, 240))
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        moved = np.float32([[1, 0, 3 * np.sin(i / 5)], [0, 1, 2 * np.cos(i / 7)]])
        frame = cv2.warpAffine(pictures[name], moved, (240, 240), borderMode=cv2.BORDER_REPLICATE)
        video.write(np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8))
    video.release()
    assert execute("blinks.py", tmp_path / "clip.mp4").splitlines() == ["blink 1", "blink 2", "blink 3"]


def test_opencv_5(clone, run, request):
    opencv = request.config.cache.mkdir("opencv5")
    if not (opencv / "cv2").exists():
        package = ["--no-deps", "opencv-python-headless>=5,<6"]
        pip = run("-m", "pip", "install", "--quiet", "--retries", 0, "--timeout", 15, "--target", opencv, *package)
        if pip.returncode:
            pytest.skip(f"no OpenCV 5: {pip.stderr.strip()}")
    printed = []
    for program in "opencv_dnn.py", "load_model.py":
        done = run("-I", "-c", f"{OPENCV_5}; runpy.run_path(sys.argv[2])", opencv, f"examples/{program}", cwd=clone)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert_points_of_the_crop(printed[0], 1e-3)
    assert printed[1].startswith("face 0, score 0.99, ") and "face 1" not in printed[1]


def test_cpp_example(clone, tmp_path):
    """Built by the command in its first line."""
    if not shutil.which("g++") or not Path("/usr/include/opencv4/opencv2/dnn.hpp").exists():
        pytest.skip("no C++ compiler or no OpenCV for C++: apt-get install g++ libopencv-dev")
    shutil.copytree(clone / "examples", tmp_path / "examples")
    source = (tmp_path / "examples" / "opencv_dnn.cpp").read_text()
    command = shlex.split(source.partition("\n")[0].removeprefix("// "))
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "opencv_dnn"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_points_of_the_crop(done.stdout, 5e-3)  # another version may decode and resize the picture in another way


def test_the_commands_of_the_readme_draw_points_one_after_the_other(clone, tmp_path, run):
    """In a copy of the clone, which they write to."""
    copy = shutil.copytree(clone, tmp_path / "clone")
    photos = copy / "examples" / "photos"
    shutil.copytree(photos, tmp_path / "photos")
    readme = (copy / "README.md").read_text().replace("~/", f"{tmp_path}/")
    commands = re.findall(r"^    python (test_pb\.py --detect .*)$|`python (test_pb\.py)`", readme, re.MULTILINE)
    assert len(commands) == 4
    for command in map("".join, commands):
        done = run(*shlex.split(command, comments=True), cwd=copy)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert " 0 faces" not in done.stdout
    given = names_in(photos)
    assert given and names_in(copy / "drawn") == names_in(tmp_path / "drawn") == given | {"points.csv"}
    assert all((copy / "drawn" / name).read_bytes() != (photos / name).read_bytes() for name in given)


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_each_shipped_file_is_the_same_model(suffix):
    crops = read_crops(REPO / "images").crops
    expected = load_session(REPO / "models" / "landmark.pb")(crops)
    found = FORMATS[suffix].load(REPO / "models" / f"landmark.{suffix}")(crops)
    np.testing.assert_allclose(found, expected, atol=1e-4)
