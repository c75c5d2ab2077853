import cv2
import numpy as np
import pytest
import scipy.io

FACES, VARIANTS = 12, 3


@pytest.fixture(scope="module")
def samples(tmp_path_factory, run):
    """Folders of the rendered set: "first" and "again" with one seed, "other" with another."""
    root = tmp_path_factory.mktemp("sample")
    for name, seed in ("first", 5), ("again", 5), ("other", 6):
        options = ["--faces", FACES, "--variants", VARIANTS, "--seed", seed]
        done = run("data/make_sample.py", "--out", root / name, *options, timeout=60)
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
    assert (np.abs(pitch) <= 30.01).all() and (np.abs(yaw) <= 75.01).all() and (np.abs(roll) <= 30.01).all()
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


def test_only_the_jaw_of_pts_2d_slides_to_the_outline(faces):
    slid = 0
    for stem, _, fit, landmarks in faces:
        apart = np.hypot(*(landmarks["pts_2d"] - landmarks["pts_3d"]).T)
        assert apart[17:].max() < 0.01, stem
        yaw = np.rad2deg(fit["Pose_Para"].ravel()[1])
        if abs(yaw) > 45:
            far, near = (apart[:8], apart[9:17]) if yaw > 0 else (apart[9:17], apart[:8])
            assert far.max() > 2, stem
            assert far.mean() > near.mean(), stem
            outward = -1 if yaw > 0 else 1
            side = slice(0, 8) if yaw > 0 else slice(9, 17)
            moved = outward * (landmarks["pts_2d"] - landmarks["pts_3d"])[side, 0]
            assert moved[far > 2].mean() > 0, stem
            slid += 1
    assert slid >= 6


def test_the_seed_decides_every_byte(samples):
    def files(name):
        folder = samples / name
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first, again, other = map(files, ("first", "again", "other"))
    assert first == again
    assert first.keys() == other.keys() and all(first[path] != other[path] for path in first)


def test_prepare_takes_every_rendered_face(samples, tmp_path, run):
    done = run("prepare_tfrecords.py", "--data", samples / "first", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert " 0 left out" in done.stdout and (tmp_path / "skipped.txt").read_text() == ""
