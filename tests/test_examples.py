"""The programs of examples/, run as they stand: each loader gives the points of the checkpoint."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPO

EXAMPLES = REPO / "examples"
OPENCV_5 = "import runpy, sys; sys.path.insert(0, sys.argv[1]); import cv2; assert cv2.__version__[0] == '5'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make, landmark_pb):
    """landmark.pb, landmark.tflite, landmark.onnx and images/astronaut.jpg."""
    folder = tmp_path_factory.mktemp("examples")
    for suffix in ".pb", ".tflite", ".onnx":
        shutil.copy(landmark_pb.with_suffix(suffix), folder)
    (folder / "images").mkdir()
    # Without loss, and each column twice: no version of OpenCV decodes or resizes it in another way.
    picture = make.photo(1, 128, 128).repeat(2, axis=1)
    (folder / "images" / "astronaut.jpg").write_bytes(cv2.imencode(".png", picture)[1])
    return folder


@pytest.fixture(scope="module")
def same_points(make, live_checkpoint, checkpoint_outputs):
    """same_points(done): a program ended well and printed the checkpoint's 136 numbers, in pixels."""
    expected = checkpoint_outputs(live_checkpoint, make.photo(1, 128, 128)[None])
    assert (expected > 0.1).sum() > 100 and expected.std() > 0.1

    def same(done):
        assert done.returncode == 0, done.stderr
        printed = np.array(re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?", done.stdout), float).reshape(68, 2)
        np.testing.assert_allclose((printed / [256, 128]).reshape(1, 136), expected, atol=1e-4)

    return same


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_python_example(example, folder, run, same_points):
    same_points(run("-I", EXAMPLES / example, cwd=folder))


def test_opencv_5(folder, run, same_points, request):
    opencv = request.config.cache.mkdir("opencv5")
    if not (opencv / "cv2").exists():
        package = ["--no-deps", "opencv-python-headless>=5,<6"]
        pip = run("-m", "pip", "install", "--quiet", "--retries", 0, "--timeout", 15, "--target", opencv, *package)
        if pip.returncode:
            pytest.skip(f"no OpenCV 5: {pip.stderr.strip()}")
    program = f"{OPENCV_5}; runpy.run_path(sys.argv[2])"
    same_points(run("-I", "-c", program, opencv, EXAMPLES / "opencv_dnn.py", cwd=folder))


def test_cpp_example(folder, tmp_path, same_points):
    """Built by the line that its first comment names."""
    if not shutil.which("g++") or not Path("/usr/include/opencv4/opencv2/dnn.hpp").exists():
        pytest.skip("no C++ compiler or no OpenCV for C++: apt-get install g++ libopencv-dev")
    shutil.copy(EXAMPLES / "opencv_dnn.cpp", tmp_path)
    command = shlex.split((tmp_path / "opencv_dnn.cpp").read_text().partition("\n")[0].removeprefix("// "))
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    same_points(subprocess.run([tmp_path / "opencv_dnn"], cwd=folder, capture_output=True, text=True))
