"""What the tests share: a small data set in the layout of 300W_LP, runs of the scripts, checkpoints without zeros."""

# First: TensorFlow, OpenCV and NumPy read their settings as they are imported.
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as data/head.py has it; two that wait for each other are slow
from landmark.startup import SETTINGS

# isort: split

import fcntl
import importlib
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow.compat.v1 as tf

REPO = Path(__file__).resolve().parents[1]
# For scripts that run in a process of their own: without the settings made by the import above, as they make their own.
OURS = {*SETTINGS, "OPENCV_IO_MAX_IMAGE_PIXELS", "OPENBLAS_NUM_THREADS"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OURS}
ENVIRONMENT |= {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPO)}

# A shell's background jobs ignore Ctrl-C, and so would the processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The original network, from the table in landmark/README.md: kernel side, channels in and out of Conv ... Conv_16,
CONVOLUTIONS = [
    (3, 3, 32),
    (1, 32, 8), (3, 8, 8), (1, 8, 64), (1, 32, 64),
    (1, 64, 16), (3, 16, 16), (1, 16, 128), (1, 64, 128),
    (1, 128, 32), (3, 32, 32), (1, 32, 256), (1, 128, 256),
    (1, 256, 64), (3, 64, 64), (1, 64, 512), (1, 256, 512),
]  # fmt: skip
# and inputs and outputs of fully_connected ... fully_connected_9.
FULLY_CONNECTED = [
    (64, 4), (4, 64), (128, 8), (8, 128), (256, 16), (16, 256), (512, 32), (32, 512), (512, 1024), (1024, 136),
]  # fmt: skip


def call(script, *arguments):
    """Runs a script's main() in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        importlib.import_module(script).main()


def names_in(folder):
    """The names that a user sees in a folder."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def numbered(name, i):
    return f"{name}_{i}" if i else name


@pytest.fixture(scope="session")
def spec_shapes():
    """Name -> shape of the original's 105 variables, in creation order: each block's convolutions, then its squeeze."""
    shapes = {}

    def conv(i):
        size, inputs, outputs = CONVOLUTIONS[i]
        shapes[f"{numbered('Conv', i)}/weights"] = (size, size, inputs, outputs)
        for part in "beta", "gamma", "moving_mean", "moving_variance":
            shapes[f"{numbered('Conv', i)}/BatchNorm/{part}"] = (outputs,)

    def fully_connected(i):
        shapes[f"{numbered('fully_connected', i)}/weights"] = FULLY_CONNECTED[i]
        shapes[f"{numbered('fully_connected', i)}/biases"] = FULLY_CONNECTED[i][1:]

    conv(0)
    for block in range(4):
        for i in range(4):
            conv(1 + 4 * block + i)
        fully_connected(2 * block)
        fully_connected(2 * block + 1)
    fully_connected(8)
    fully_connected(9)
    return shapes


@pytest.fixture(scope="session")
def live_values(spec_shapes):
    """Values of the original's 105 variables, none of them all zeros or ones; most of the 136 outputs are in 0..1."""
    rng = np.random.default_rng(7)
    values = {}
    for name, shape in spec_shapes.items():
        part = name.rpartition("/")[2]
        if part == "weights":
            value = rng.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape) / (100 if name == "Conv/weights" else 1)
        elif part in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.2, shape)
        values[name] = value.astype(np.float32)
    values["fully_connected_9/weights"] *= 0.05
    values["fully_connected_9/biases"] = rng.uniform(0.2, 0.8, 136).astype(np.float32)
    return values


@pytest.fixture(scope="session")
def save_variables():
    """save_variables(values, prefix, step=None): writes a checkpoint without senet.py; returns its path."""

    def save(values, prefix, step=None, latest_filename="checkpoint"):
        with tf.Graph().as_default(), tf.Session() as session:
            for name, value in values.items():
                tf.get_variable(name, initializer=value)
            session.run(tf.global_variables_initializer())
            return tf.train.Saver().save(session, str(prefix), step, latest_filename, write_meta_graph=False)

    return save


@pytest.fixture(scope="session")
def live_checkpoint(tmp_path_factory, live_values, save_variables):
    return save_variables(live_values, tmp_path_factory.mktemp("live") / "model.ckpt", 7)


@pytest.fixture(scope="session")
def check_plain():
    """check_plain(definition): fails unless a GraphDef holds only what every reader knows."""
    # Each op with the attributes that TensorFlow 1.4 knew and that have no default.
    attributes = {
        "Placeholder": {"dtype", "shape"},
        "Const": {"dtype", "value"},
        "Conv2D": {"T", "padding", "strides"},
        "AvgPool": {"T", "ksize", "padding", "strides"},
        "ResizeNearestNeighbor": {"T"},
        **dict.fromkeys("BiasAdd Relu Mean MatMul Sigmoid Softmax Transpose Reshape Mul Add Identity".split(), {"T"}),
    }

    def check_plain(definition):
        for node in definition.node:
            assert set(node.attr) == attributes[node.op], node.name

    return check_plain


@pytest.fixture(scope="session")
def run():
    """run(*arguments): runs Python in a process of its own, in the repository: subprocess.CompletedProcess."""

    def run(*arguments, cwd=REPO, timeout=300):  # seconds; a busy machine is many times slower
        command = [sys.executable, *map(str, arguments)]
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",  # file names can be any bytes
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # its workers too
                raise
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    return run


@pytest.fixture
def stop(capsys):
    """stop(script, *arguments): (the exit code with which a script's main() ends, the last line it said)."""

    def stop(script, *arguments):
        with pytest.raises(SystemExit) as stopped:
            call(script, *arguments)
        code = stopped.value.code
        if isinstance(code, str):  # the interpreter prints it and exits with 1
            return 1, code
        return code, capsys.readouterr().err.strip().rpartition("\n")[2]

    return stop


@pytest.fixture
def says(stop):
    """says(script, *arguments): the one line with which a script's main() gives up, exit code 1."""

    def says(script, *arguments):
        code, message = stop(script, *arguments)
        assert code == 1
        assert message.strip() and "\n" not in message
        return message

    return says


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def draw_photo(seed, height=450, width=450):
    """Smooth coloured noise without pure green: uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    photo = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    photo[..., 1] //= 2
    return photo


def place_points(seed, centre=(225, 230), side=180):
    """68 points about a face's size apart: float [68, 2]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (68, 2)) * [side, 1.2 * side] + centre + rng.uniform(-15, 15, 2)


@pytest.fixture(scope="session")
def make():
    return SimpleNamespace(photo=draw_photo, points=place_points, face=write_face)


def spec_box(p):
    x_max, x_min = int(max(p[:, 0])), int(min(p[:, 0]))
    y_max, y_min = int(max(p[:, 1])), int(min(p[:, 1]))
    y_min = int(y_min - 0.30 * (y_max - y_min))
    y_max = int(y_max + 0.05 * (y_max - y_min))
    x_min = int(x_min - 0.05 * (x_max - x_min))
    x_max = int(x_max + 0.05 * (x_max - x_min))
    return x_min, y_min, x_max, y_max


def spec_crop(photo, box):
    x_min, y_min, x_max, y_max = box
    margin = 2000
    padded = np.pad(photo, [(margin, margin), (margin, margin), (0, 0)])
    cut = padded[y_min + margin : y_max + margin, x_min + margin : x_max + margin]
    return cv2.resize(cut, (128, 128), interpolation=cv2.INTER_LINEAR)


def write_face(folder, group, stem, seed, points=None, photo=None):
    """Writes one face in the 300W_LP layout; returns its landmarks file and its photo."""
    jpg = folder / group / f"{stem}.jpg"
    mat = folder / "landmarks" / group / f"{stem}_pts.mat"
    for path in jpg, mat:
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(jpg), draw_photo(seed) if photo is None else photo)
    points = place_points(seed) if points is None else points
    scipy.io.savemat(mat, {"pts_2d": points, "pts_3d": points + 1.0})
    return mat, jpg


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """once(make): the folder that make(folder) fills, once for all of pytest's workers; named after `make`."""
    own = tmp_path_factory.getbasetemp()
    base = own if worker_id == "master" else own.parent

    def once(make):
        folder = base / make.__name__
        with open(f"{folder}.lock", "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.getsize(lock.name):
                folder.mkdir()
                make(folder)
                lock.write("made")
        return folder

    return once


@pytest.fixture(scope="session")
def small_set(once):
    """24 faces, 2 pose variants each, the eight AFW ones with their mirrors: 64 records."""
    return once(make_small_set) / "300W_LP"


def make_small_set(folder):
    folder /= "300W_LP"
    for i in range(24):
        group, name = [("AFW", f"AFW_{1000 + i}_1"), ("HELEN", f"HELEN_{i}_1"), ("LFPW", f"LFPW_image_test_{i:04}")][
            i % 3
        ]
        for variant in range(2):
            write_face(folder, group, f"{name}_{variant}", 10 * i + variant)
            if group == "AFW":
                write_face(folder, "AFW_Flip", f"{name}_{variant}", 10 * i + 5 + variant)


@pytest.fixture(scope="session")
def records(once, small_set, run):
    """The folder of the records of small_set, which is given to --data twice."""

    def make_records(folder):
        twice = "--data", small_set, "--data", small_set / "AFW" / ".."
        keep_said(run("prepare_tfrecords.py", *twice, "--out", folder / "records"), folder)

    return once(make_records) / "records"


def keep_said(done, folder):
    """Asserts that a script ended well; writes what it printed to `said` and `stderr` in a folder, for test_cli.py."""
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)


@pytest.fixture(scope="session")
def trained(once, records, run):
    """20 steps of the default training: .models, the folder of its checkpoints, .stdout and .stderr."""

    def make_trained(folder):
        options = "--models", folder / "models", "--steps", 20, "--batch_size", 4
        keep_said(run("train.py", "--data", records, *options), folder)

    folder = once(make_trained)
    said, stderr = ((folder / name).read_text() for name in ("said", "stderr"))
    return SimpleNamespace(models=folder / "models", stdout=said, stderr=stderr)


BRIEF = "--network", "original", "--batch_size", 4, "--steps"  # of train.py: the network that is built soonest


@pytest.fixture
def begun(once, records, tmp_path):
    """A copy of the folder of a run that `train.py --data records --models begun *BRIEF 2` has begun."""

    def make_begun(folder):
        call("train", "--data", records, "--models", folder / "models", *BRIEF, 2)

    return shutil.copytree(once(make_begun) / "models", tmp_path / "begun")


@pytest.fixture(scope="session")
def read_records():
    """read_records(path): list of (name, crop uint8 [128, 128, 3], label [136], box) of a record file."""

    def read(path):
        faces = []
        for record in tf.io.tf_record_iterator(str(path)):
            feature = tf.train.Example.FromString(record).features.feature
            faces.append(
                (
                    feature["name"].bytes_list.value[0].decode(),
                    np.frombuffer(feature["image"].bytes_list.value[0], np.uint8).reshape(128, 128, 3),
                    np.array(feature["label"].float_list.value),
                    tuple(feature["box"].int64_list.value),
                )
            )
        return faces

    return read


@pytest.fixture(scope="session")
def checkpoint_outputs():
    """checkpoint_outputs(checkpoint, crops): what the original network returns in inference mode, [N, 136]."""
    from senet import SENet

    def outputs(checkpoint, crops):
        with tf.Graph().as_default(), tf.Session() as session:
            net, _ = SENet(tf.constant(crops, tf.float32))
            tf.train.Saver().restore(session, str(checkpoint))
            return session.run(net)

    return outputs


@pytest.fixture(scope="session")
def landmark_pb(once, records, live_checkpoint, run):
    """landmark.pb of live_checkpoint: its Path; landmark.tflite, landmark.onnx and the SavedModel "1" lie beside it."""

    def make_frozen(folder):
        path = folder / "landmark.pb"
        others = ["--tflite", path.with_suffix(".tflite"), "--onnx", path.with_suffix(".onnx")]
        others += ["--saved_model", path.with_name("1")]
        freeze = "freeze_graph.py", "--data", records, "--checkpoint", live_checkpoint, "--output", path
        keep_said(run(*freeze, *others), folder)

    return once(make_frozen) / "landmark.pb"
