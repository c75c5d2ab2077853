"""data/turn_faces.py, on rendered heads whose truth is known."""

from head import rotation

import functools
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import ENVIRONMENT, REPO

import turn_faces
from bench.turned import compare, find_turns, find_variants
from fit_head import SAMPLES, angles, fit_head, head_yaw, prior, see
from landmark.annotations import find_annotations, split_faces
from landmark.formats import Annotation, Row
from make_sample import render_face, write_person

FACES, VARIANTS = 5, 3
IBUG = (REPO / "../shared/300W_LP/IBUG").resolve()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A rendered set of FACES faces, two pictures each, of which the second is no photo to turn."""
    folder = tmp_path_factory.mktemp("turn") / "photos"
    for face in range(FACES):
        write_person((folder, 5, face, 2))
    return folder


@pytest.fixture(scope="module")
def turned(data, run):
    out = data.with_name("turned")
    done = run("data/turn_faces.py", "--data", data, "--out", out, "--variants", VARIANTS)
    assert done.returncode == 0, done.stderr
    assert f"{FACES * VARIANTS} pictures of {FACES} faces" in done.stdout
    return out


@pytest.fixture
def photos(data, tmp_path):
    """A copy of the rendered photos that a test may damage."""
    return shutil.copytree(data, tmp_path / "photos", ignore=shutil.ignore_patterns("*_1.*", "*_1_pts.mat"))


@pytest.fixture(scope="module")
def rendered():
    """rendered(face): its photo, points and Fit."""

    @functools.cache
    def render(face):
        photo, points, *_ = next(render_face(5, face, 1))
        return photo, points.astype(float), fit_head(points.astype(float))

    return render


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_landmarks_turned_by_60_degrees_are_those_of_the_turned_head():
    mean, moves, _ = prior()
    errors, unturned, off = [], [], []
    for seed, move in enumerate(moves[:100]):  # heads as different from each other as people are, 300W_LP's on average
        rng = np.random.default_rng(seed)
        shape = (mean + np.sqrt(SAMPLES) * move)[:68]
        way = rng.choice([-1, 1])
        turns = [rotation(*np.deg2rad([*rng.normal(0, 7, 1), way * yaw, *rng.normal(0, 7, 1)])) for yaw in (8, 60)]
        points, true = (200 + 12 * shape @ turn[:2].T for turn in turns)
        fit = fit_head(points, is_outline=False)
        off.append(np.rad2deg(np.subtract(angles(fit.turn), angles(turns[0]))))
        _, found = see(fit, fit.turn @ turns[0].T @ turns[1])
        box = np.sqrt(np.ptp(true, axis=0).prod())
        true = true - true.mean(0)
        for answers, place in (errors, found), (unturned, points):
            answers.append(np.hypot(*(place - place.mean(0) - true).T).mean() / box)
    assert np.mean(np.abs(off), 0).max() < 5 and np.percentile(np.abs(off), 90, axis=0).max() < 8  # degrees
    assert np.mean(errors) < 0.02 and np.percentile(errors, 90) < 0.03
    assert np.mean(unturned) > 0.06  # what turning is for


@pytest.mark.skipif(not IBUG.is_dir(), reason="the authors' variants are not in ../shared/300W_LP/IBUG")
def test_points_of_profiles_are_where_the_authors_have_them():
    answers = [answer for views in find_variants(IBUG.parent)[::8] for answer in compare(views)]
    profiles = np.array([distances for yaw, distances in answers if yaw > 60])
    assert len(profiles) > 50
    pts_2d, pts_3d = profiles.transpose(1, 0, 2)
    assert pts_2d[:, 17:].mean() < 0.015
    assert pts_2d[:, :17].mean() < 0.03 and pts_3d[:, :17].mean() < 0.035


def test_turns_of_a_rigid_head_come_out_of_its_views():
    shape = prior()[0][:68]
    turns = np.array([rotation(0.2, yaw, -0.1) for yaw in np.linspace(-0.3, 1.4, 6)])
    views = 7 * (shape @ turns[:, :2].transpose(0, 2, 1)) + np.arange(6)[:, None, None]
    np.testing.assert_allclose(find_turns(views), turns @ turns[0].T, atol=1e-6)


@pytest.mark.parametrize("yaw", [-70, -30, 30, 70, 90])
def test_only_the_jaw_that_is_turned_away_slides_to_the_outline(yaw, rendered):
    pts_2d, pts_3d = see(rendered(2)[2], rotation(0, np.deg2rad(yaw), 0))
    away, near = (range(8), range(8, 17)) if yaw > 0 else (range(9, 17), range(9))
    np.testing.assert_array_equal(pts_2d[near], pts_3d[near])
    outwards = np.sign(yaw) * (pts_3d - pts_2d)[away, 0]
    assert outwards.min() >= 0 and outwards.mean() > 10
    np.testing.assert_array_equal(pts_2d[17:], pts_3d[17:])


def test_no_turn_exceeds_90_degrees(rendered):
    fit = rendered(1)[2]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        leaning = fit._replace(turn=rotation(*rng.uniform(-0.5, 0.5, 3)))
        yaws = [abs(head_yaw(turn)) for turn in turn_faces.choose_turns(rng, leaning, 8)]
        assert abs(head_yaw(leaning.turn)) + 12 < min(yaws) and 80 < max(yaws) <= 90 + 1e-6


@pytest.mark.parametrize("way", [-1, 1])
def test_the_picture_turns_with_its_points(way, rendered):
    photo, points, fit = rendered(10)  # nothing is in front of its points
    surface, turn = turn_faces.sheet(fit), rotation(0, np.deg2rad(way * 55), 0)
    seen = [30, 36, 48, 8] if way < 0 else [30, 45, 54, 8]  # nose, and the eye and mouth corner that stay in view
    for landmark in seen:
        marked = photo // 2
        cv2.circle(marked, np.round(points[landmark]).astype(int).tolist(), 3, (0, 255, 0), cv2.FILLED)
        picture, found, _ = turn_faces.turn_photo(marked, fit, surface, turn)
        green = picture[..., 1].astype(int) - picture[..., [0, 2]].max(-1) > 100
        assert green.sum() > 5
        assert np.hypot(*(np.argwhere(green).mean(0)[::-1] - found[landmark])) < 4, landmark


def test_the_photo_in_its_own_pose_is_the_photo(rendered):
    photo, points, fit = rendered(2)
    picture, pts_2d, _ = turn_faces.turn_photo(photo, fit, turn_faces.sheet(fit), fit.turn)
    assert np.abs(picture.astype(int) - photo).mean() < 2
    assert np.hypot(*(pts_2d - points).T).mean() < 1


def test_angles_are_the_way_back_from_rotation():
    for pitch_yaw_roll in np.random.default_rng(0).uniform(-1.5, 1.5, (20, 3)):
        np.testing.assert_allclose(angles(rotation(*pitch_yaw_roll)), pitch_yaw_roll)


def test_layout_is_that_of_300w_lp(data, turned):
    assert len(files(turned)) == 3 * FACES * VARIANTS
    for face in range(FACES):
        yaws = []
        for k in range(1, 1 + VARIANTS):
            stem = f"SAMPLE_{face:05d}_{k}"
            assert cv2.imread(str(turned / "SAMPLE_turned" / f"{stem}.jpg")).shape == (450, 450, 3)
            fit = scipy.io.loadmat(turned / "SAMPLE_turned" / f"{stem}.mat")
            points = scipy.io.loadmat(turned / "landmarks" / "SAMPLE_turned" / f"{stem}_pts.mat")
            assert points["pts_2d"].shape == points["pts_3d"].shape == (68, 2)
            np.testing.assert_allclose(fit["pt2d"], points["pts_2d"].T, atol=1e-3)
            assert fit["Pose_Para"].shape == (1, 7)
            yaws.append(np.rad2deg(fit["Pose_Para"][0, 1]))
            apart = np.hypot(*(points["pts_2d"] - points["pts_3d"]).T)
            assert apart[17:].max() < 0.01 and apart[:17].max() > 1
        assert (np.diff(np.abs(yaws)) > 0).all() and 40 < abs(yaws[-1]) <= 90
        photo = scipy.io.loadmat(data / "SAMPLE" / f"SAMPLE_{face:05d}_0.mat")["Pose_Para"][0, 1]
        assert abs(np.rad2deg(photo)) < 15 or (np.sign(yaws) == np.sign(photo)).all()


def test_a_face_and_its_variants_are_on_one_side(data, turned):
    annotations = find_annotations([data, turned])
    names = [annotation.name.rpartition("/")[2][:12] for annotation in annotations]
    assert len(names) == FACES * (2 + VARIANTS)
    sides = split_faces(annotations)
    held_out = {name for name, test in zip(names, sides, strict=True) if test}
    assert len(held_out) == 1
    assert sum(name in held_out for name in names) == 2 + VARIANTS == sum(sides)


def test_the_seed_decides_every_byte(data, turned, tmp_path):
    photos = turn_faces.find_photos([data])[:2]  # one by one in this process: `turned` had workers, and five photos
    for name, seed in ("again", 0), ("other", 1):
        assert all(turn_faces.turn_face((tmp_path / name, *photo, VARIANTS, seed)) for photo in photos)
    first, again, other = files(turned), files(tmp_path / "again"), files(tmp_path / "other")
    assert len(again) == 2 * 3 * VARIANTS
    assert all(first[path] == again[path] for path in again)
    assert again.keys() == other.keys()
    assert not any(again[path] == other[path] for path in again)


def test_what_cannot_be_turned_is_said_and_left_out(photos, data, tmp_path, run):
    """Three bad files, each with a line of its own, and a face that is turned too far."""
    cut, bare, small, far = (f"SAMPLE_{face:05d}_0" for face in (0, 1, 2, 3))
    landmarks = photos / "landmarks" / "SAMPLE"
    (photos / "SAMPLE" / f"{cut}.jpg").write_bytes((photos / "SAMPLE" / f"{cut}.jpg").read_bytes()[:5000])
    (landmarks / f"{bare}_pts.mat").write_bytes(b"no MAT file")
    scipy.io.savemat(landmarks / f"{small}_pts.mat", {"pts_2d": np.ones((68, 2))})
    shutil.copy(data / "landmarks" / "SAMPLE" / "SAMPLE_00001_1_pts.mat", landmarks / f"{far}_pts.mat")
    done = run("data/turn_faces.py", "--data", photos, "--out", tmp_path / "out", "--variants", 1)
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(lines) == 3 and all(any(name in line for line in lines) for name in (cut, bare, small))
    assert "1 photos left out as they are turned over 35 degrees, 3 because of their files" in done.stdout
    assert [path.stem for path in (tmp_path / "out" / "SAMPLE_turned").glob("*.jpg")] == ["SAMPLE_00004_1"]


def test_a_larger_photo_is_cut_to_the_layout(photos, tmp_path):
    landmarks = photos / "landmarks" / "SAMPLE" / "SAMPLE_00000_0_pts.mat"
    jpg = photos / "SAMPLE" / "SAMPLE_00000_0.jpg"
    photo, points = cv2.imread(str(jpg)), scipy.io.loadmat(landmarks)["pts_2d"]
    cv2.imwrite(str(jpg), cv2.resize(photo, (1350, 1350)))
    scipy.io.savemat(landmarks, {"pts_2d": 3 * points + 1})
    annotation = Annotation(name="SAMPLE/SAMPLE_00000_0", points=Row(landmarks), photo=jpg, format="300W_LP")
    cut, moved, is_outline = turn_faces.read_photo(annotation)
    assert cut.shape == (450, 450, 3) and is_outline
    assert 180 < np.sqrt(np.ptp(moved, axis=0).prod()) < 200
    before, after = (
        cv2.getRectSubPix(picture, (5, 5), place.tolist()).mean((0, 1))
        for picture, place in ((photo, np.float64(points[8])), (cut, moved[8]))
    )
    np.testing.assert_allclose(before, after, atol=12)


def test_what_is_there_is_not_written_over(data, turned, tmp_path, says):
    before = files(turned)
    assert str(turned) in says("turn_faces", "--data", data, "--out", turned)
    assert str(data) in says("turn_faces", "--data", data, "--out", data)
    (tmp_path / "file").write_text("mine")
    assert "exists" in says("turn_faces", "--data", data, "--out", tmp_path / "file")
    assert files(turned) == before and (tmp_path / "file").read_text() == "mine"


def test_no_photos_is_one_line_that_names_the_folder(tmp_path, says):
    assert str(tmp_path / "none") in says("turn_faces", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_variants_alone_are_one_line(turned, tmp_path, says):
    assert f"no photo to turn in {turned}" in says("turn_faces", "--data", turned, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_interrupted_leaves_nothing_and_says_one_line(data, tmp_path):
    command = [sys.executable, "data/turn_faces.py", "--data", data, "--out", tmp_path / "out", "--variants", "99"]
    with subprocess.Popen(
        command, cwd=REPO, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True, start_new_session=True
    ) as process:
        try:
            while not list(tmp_path.glob(".partial-*-out/SAMPLE_turned")) and process.poll() is None:
                time.sleep(0.1)
            time.sleep(1)  # into the work
            os.killpg(process.pid, signal.SIGINT)
            _, stderr = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in stderr
    assert stderr.strip().endswith("interrupted; no file is half-written")
    assert not list(tmp_path.iterdir())
