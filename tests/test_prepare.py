import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import tensorflow.compat.v1 as tf
from conftest import call, names_in, spec_box, spec_crop

from landmark import records as record_files
from landmark.annotations import find_annotations, read_faces
from landmark.augment import augment_batch
from landmark.cli import UserError
from landmark.evaluation import jitter_box, predict_faces
from landmark.outputs import PARTIAL
from landmark.pose import MEAN_HEAD
from landmark.recipe import DEFAULT


def test_records_are_the_crops_and_labels_of_their_photos(records, small_set, read_records):
    faces = read_records(records / "train.tfrecords") + read_records(records / "test.tfrecords")
    assert len(faces) == len({name for name, *_ in faces}) == 64  # a folder that is given to --data twice counts once
    for name, crop, label, box in faces:
        group, _, stem = name.partition("/")
        points = scipy.io.loadmat(small_set / "landmarks" / group / f"{stem}_pts.mat")["pts_2d"]
        photo = cv2.imread(str(small_set / group / f"{stem}.jpg"))
        assert max(box[2] - box[0], box[3] - box[1]) <= 160  # in the photo as the record keeps it
        box = spec_box(points)
        np.testing.assert_array_equal(crop, spec_crop(photo, box))
        x_min, y_min, x_max, y_max = box
        np.testing.assert_allclose(label[0::2], (points[:, 0] - x_min) / (x_max - x_min), atol=1e-6)
        np.testing.assert_allclose(label[1::2], (points[:, 1] - y_min) / (y_max - y_min), atol=1e-6)


def test_a_reader_of_image_and_label_alone_works(records):
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([136], tf.float32)}
    for record in tf.io.tf_record_iterator(str(records / "test.tfrecords")):
        with tf.Graph().as_default(), tf.Session() as session:
            parsed = session.run(tf.io.parse_single_example(record, features))
        assert len(parsed["image"]) == 49152
        assert parsed["label"].shape == (136,)


def test_no_face_is_in_both_splits(records, read_records):
    train, test = (
        {name.partition("/")[2].rpartition("_")[0] for name, *_ in read_records(records / f"{split}.tfrecords")}
        for split in ("train", "test")
    )
    assert not train & test
    assert (len(train), len(test)) == (22, 2)


def test_records_do_not_depend_on_workers_or_on_the_folder(tmp_path, small_set, records, run):
    copy = tmp_path / "elsewhere"
    for path in sorted((path for path in small_set.rglob("*.*") if path.is_file()), reverse=True):
        (copy / path.relative_to(small_set)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.relative_to(small_set))
    program = f"""
from pathlib import Path
from landmark.annotations import find_annotations, read_faces, split_faces
from landmark.records import write_records
annotations = find_annotations([Path({str(copy)!r})])
for workers in 1, 2:
    out = Path({str(tmp_path)!r}) / str(workers)
    out.mkdir()
    write_records(split_faces(annotations), read_faces(annotations, workers=workers), out)
"""
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((records / "records.json").read_text())
    assert manifest["fingerprint"]  # of the script's list of faces
    for out in tmp_path / "1", tmp_path / "2":
        for name in "train.tfrecords", "test.tfrecords", "preview.png":
            assert (out / name).read_bytes() == (records / name).read_bytes()
        assert json.loads((out / "records.json").read_text()) == manifest | {"fingerprint": None}


def test_shards_together_are_what_one_run_writes(tmp_path, small_set, records, run, says):
    prepare = ["prepare_tfrecords.py", "--data", small_set, "--shards", 4, "--out"]
    with ThreadPoolExecutor() as threads:
        done, one = threads.map(
            lambda out: run(*prepare, tmp_path / out[0], *out[1:]), [["all"], ["one", "--shard", 2]]
        )
    assert done.returncode == 0 and "56 faces for training, 8 for testing, 0 left out" in done.stdout, done.stderr
    assert one.returncode == 0, one.stderr
    shards = {split: record_files.find_record_files(tmp_path / "all", split) for split in ("train", "test")}
    assert [path.name for path in shards["test"]] == [f"test-0000{i}-of-00004.tfrecords" for i in range(4)]
    one = {path.name for path in (tmp_path / "one").glob("[!.]*")}
    names = "train.tfrecords", "test.tfrecords", "records.json", "preview.png", "skipped.txt"
    assert one == {name.replace(".", "-00002-of-00004.") for name in names}
    assert all((tmp_path / "all" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in one)
    for split, paths in shards.items():
        parts = [list(tf.io.tf_record_iterator(str(path))) for path in paths]
        whole = list(tf.io.tf_record_iterator(str(records / f"{split}.tfrecords")))
        assert [record for turn in zip(*parts, strict=True) for record in turn] == whole
    with tf.Graph().as_default(), tf.Session() as session:  # read in turn, they come in the order of one run
        sets = [record_files.read_batches(paths, 56) for paths in (shards["train"], [records / "train.tfrecords"])]
        interleaved, whole = session.run([tf.data.make_one_shot_iterator(each).get_next()[0] for each in sets])
    np.testing.assert_array_equal(interleaved, whole)
    merged, single = (record_files.read_manifest(folder) for folder in (tmp_path / "all", records))
    np.testing.assert_allclose(merged.mean_face, single.mean_face, rtol=1e-9)
    np.testing.assert_array_equal(merged.labelled, single.labelled)
    assert merged.sizes == {path.name: path.stat().st_size for paths in shards.values() for path in paths}
    assert merged.frontal == pytest.approx(single.frontal)
    rest = "landmark_type", "train", "test", "fingerprint"
    assert [getattr(merged, name) for name in rest] == [getattr(single, name) for name in rest]
    train = "train", "--models", tmp_path / "models", "--data"
    assert "test-00000-of-00004.tfrecords: run python prepare_tfrecords.py with --shards 4" in says(
        *train, tmp_path / "one"
    )
    for other in "train.tfrecords", "test-00000-of-00002.tfrecords":
        (tmp_path / "all" / other).touch()
        assert f"holds {other} beside the 4 shards" in says(*train, tmp_path / "all")
        (tmp_path / "all" / other).unlink()
    shards["test"][3].unlink()
    assert "lacks test-00003-of-00004.tfrecords" in says(*train, tmp_path / "all")


def test_shards_of_different_preparations_are_refused(tmp_path, small_set):
    fewer = shutil.copytree(small_set, tmp_path / "fewer", ignore=lambda *_: ["LFPW"])
    prepare = "prepare_tfrecords", "--shards", 2, "--out", tmp_path, "--data"
    call(*prepare, small_set)
    names = "test-00000-of-00002.tfrecords and test-00001-of-00002.tfrecords"
    for other in [fewer], [small_set, "--points", "3d"]:  # other faces, or another landmark type
        call(*prepare, *other, "--shard", 1)
        with pytest.raises(UserError, match=f"{tmp_path}: {names} come from different preparations"):
            record_files.read_manifest(tmp_path)
    call(*prepare, small_set, "--shard", 1)
    assert record_files.read_manifest(tmp_path).train == 56


@pytest.mark.parametrize("options", [["--shards", 0], ["--shards", 4, "--shard", 4], ["--shard", 0]])
def test_a_wrong_number_of_a_shard_is_named(stop, options):
    code, message = stop("prepare_tfrecords", *options)
    assert code == 2 and f"argument {options[-2]}: {options[-1]}" in message


def test_preview_is_a_sheet_of_25_crops_with_green_points(records):
    sheet = cv2.imread(str(records / "preview.png"))
    assert sheet.shape == (1280, 1280, 3)
    for row in range(5):
        for column in range(5):
            tile = sheet[256 * row : 256 * (row + 1), 256 * column : 256 * (column + 1)]
            assert (tile == (0, 255, 0)).all(-1).sum() > 68


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, make, run):
    """Good faces and one of each kind of damage, prepared: ({stem: damaged file}, {good stem: numbers of its missing
    points}, the folder of the records, the subprocess.CompletedProcess)."""
    folder, out = tmp_path_factory.mktemp("damaged"), tmp_path_factory.mktemp("records")
    good = {make.face(folder, "AFW", f"AFW_{i}_1_0", i)[1].stem: [] for i in range(10)}
    bad = {}

    def face(stem, blame, **options):
        mat, jpg = make.face(folder, "IBUG", stem, 99, **options)
        bad[stem] = mat if blame == "mat" else jpg
        return bad[stem]

    face("not_mat_1_0", "mat").write_text("68 points\n")
    face("empty_mat_1_0", "mat").write_bytes(b"")
    path = face("cut_mat_1_0", "mat")
    path.write_bytes(path.read_bytes()[:700])
    scipy.io.savemat(face("lacks_1_0", "mat"), {"pts_3d": np.ones((68, 2))})
    points, head, number = make.points(99), 9 * MEAN_HEAD[:, :2] + 225, np.arange(68)[:, None]
    for stem, broken in {
        "shape_1_0": points[:67],
        "transposed_1_0": points.T,
        "text_1_0": "points",
        "infinite_1_0": np.where(number == 7, np.inf, points),
        "alike_1_0": np.full((68, 2), 200.0),
        "few_1_0": np.where(number < 49, -1, head),
        "no_jaw_1_0": np.where(number < 17, np.nan, head),  # who knows how far down the crop should reach?
    }.items():
        scipy.io.savemat(face(stem, "mat"), {"pts_2d": broken})
    for stem, points_of in {
        "far_1_0": np.where(number == 67, (225, 1400), points),
        "outside_1_0": points + 1000,
        "left_of_it_1_0": points - [1000, 0],
        "huge_1_0": (points - 225) * 1e4,
        "astronomic_1_0": (points - 225) * 1e300,
    }.items():
        face(stem, "mat", points=points_of)
    scipy.io.savemat(face("sparse_1_0", "mat"), {"pts_2d": scipy.sparse.csc_matrix(points)})
    bad["wide_1_0"], jpg = make.face(folder, "IBUG", "wide_1_0", 99)  # whose points are not in it
    jpg.write_bytes(cv2.imencode(".png", np.zeros((3, 70_000, 3), np.uint8))[1].tobytes())
    claims = cv2.imencode(".bmp", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    face("claims_1_0", "jpg").write_bytes(claims[:18] + (60_000).to_bytes(4, "little") * 2 + claims[26:])
    face("missing_1_0", "jpg").unlink()
    face("empty_1_0", "jpg").write_bytes(b"")
    for stem, share in ("cut_short_1_0", 0.5), ("cut_in_header_1_0", 0.01):
        path = face(stem, "jpg")
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    face("not_jpg_1_0", "jpg").write_text("a photo\n")
    # Points that are missing, but within the others.
    for stem, missing, place in ("nan_1_0", [30], np.nan), ("at_zero_1_0", [37, 38], 0), ("at_minus_1_0", [62], -1):
        make.face(folder, "IBUG", stem, 99, points=np.where(np.isin(number, missing), place, head))
        good[stem] = missing
    make.face(folder, "IBUG", "partly_1_0", 99, points=points - [200, 220])
    done = run("prepare_tfrecords.py", "--data", folder, "--out", out)
    assert done.returncode == 0, done.stderr
    return bad, good | {"partly_1_0": []}, out, done


def test_each_damaged_file_is_skipped_with_a_line_that_names_it(damaged):
    bad, good, out, done = damaged
    lines = (out / "skipped.txt").read_text().splitlines()
    for path in bad.values():
        about = [line for line in lines if line.startswith(f"{path}: ")]
        assert len(about) == 1 and len(about[0]) > len(f"{path}: "), path
    assert len(lines) == len(bad)
    assert f"{len(bad)} left out" in done.stdout
    assert "Traceback" not in done.stderr


def test_good_faces_among_damaged_ones_are_kept(damaged, read_records):
    bad, good, out, _ = damaged
    records = read_records(out / "train.tfrecords") + read_records(out / "test.tfrecords")
    assert sorted(name.partition("/")[2] for name, *_ in records) == sorted(good)
    for name, _, label, _ in records:
        assert np.flatnonzero(np.isnan(label[::2])).tolist() == good[name.partition("/")[2]]
    crop, box = next((crop, box) for name, crop, _, box in records if name.endswith("partly_1_0"))
    assert box[0] < 0 and box[1] < 0
    assert not crop[:5].any() and not crop[:, :5].any() and crop[-20:, -20:].any()
    assert not list(out.glob(f"{PARTIAL}*"))


def test_a_folder_with_damaged_files_is_measured_without_them(damaged, capsys):
    bad, good, _, _ = damaged
    annotations = find_annotations([next(iter(bad.values())).parents[2]])
    truth, _ = predict_faces({}, read_faces(annotations), {})
    said = [line for line in capsys.readouterr().err.splitlines() if line.endswith("; left out")]
    assert len(said) == len(bad) and len(truth.names) == len(good)
    assert truth.names.tolist() == [annotations[number].name for number in truth.numbers]


def test_labels_are_in_stored_pixels_whatever_exif_says(tmp_path, make, small_set, run, read_records):
    folder, out = tmp_path / "turned", tmp_path / "out"
    exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0"
    for i in range(12):
        photo = make.photo(i, 700 if i % 2 else 400, 300)  # some are cut
        _, jpg = make.face(folder, "SET", f"face_{i}_0", i, make.points(i, (150, 200)), photo)
        data = jpg.read_bytes()
        jpg.write_bytes(data[:2] + exif % (i % 8 + 1) + data[2:])
    assert run("prepare_tfrecords.py", "--data", folder, "--out", out).returncode == 0
    for name, crop, _, _ in read_records(out / "train.tfrecords") + read_records(out / "test.tfrecords"):
        stem = name.partition("/")[2]
        points = scipy.io.loadmat(folder / f"landmarks/SET/{stem}_pts.mat")["pts_2d"]
        photo = cv2.imread(str(folder / f"SET/{stem}.jpg"), cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(crop, spec_crop(photo, spec_box(points)))
    for face in record_files.read_records([out / "train.tfrecords"]):
        crops = [*jitter_box(face, np.zeros([1, 4]))[0]]
        batch = np.array([face.box]), [face.photo]
        plain = [augment_batch(DEFAULT, seed, 0, [b""], face.label[None].copy(), *batch)[0][0] for seed in range(8)]
        crops.append(min(plain, key=lambda crop: np.abs(crop.astype(int) - face.crop).mean()))  # some are mirrored
        for crop in crops:
            assert np.abs(crop.astype(int) - face.crop).mean() < 6


def test_nothing_usable_is_one_line_and_no_records(tmp_path, make, run):
    folder, out = tmp_path / "bad", tmp_path / "out"
    for i in range(3):
        make.face(folder, "AFW", f"AFW_{i}_1_0", i)[1].unlink()
    done = run("prepare_tfrecords.py", "--data", folder, "--out", out)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "skipped.txt" in done.stderr
    assert names_in(out) == {"skipped.txt"}
    assert len((out / "skipped.txt").read_text().splitlines()) == 3


def test_no_data_or_no_landmarks_is_one_line(tmp_path, says):
    out = tmp_path / "out"
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    assert str(missing) in says("prepare_tfrecords", "--data", missing, "--out", out)
    assert "landmarks" in says("prepare_tfrecords", "--data", empty, "--out", out)
    assert not out.exists()


def test_one_face_without_a_3d_jaw_does_not_stop_the_others(tmp_path, make):
    """Whichever face comes last: in turn each of them lacks its pts_3d."""
    for i in range(6):
        make.face(tmp_path / "set", "AFW", f"AFW_{i}_0", i, make.points(i), make.photo(i))
    for i in range(6):
        path = tmp_path / "set/landmarks/AFW" / f"AFW_{i}_0_pts.mat"
        before = path.read_bytes()
        scipy.io.savemat(path, {"pts_2d": make.points(i)})
        call("prepare_tfrecords", "--data", tmp_path / "set", "--points", "3d", "--out", tmp_path / f"out{i}")
        path.write_bytes(before)
        assert (tmp_path / f"out{i}" / "skipped.txt").read_text() == ""
