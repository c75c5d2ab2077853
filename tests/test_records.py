"""Record files and their manifest, records.json."""

import itertools
import json
import re
import shutil
import struct
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import BRIEF, names_in

from landmark import records as record_files
from landmark.checkpoints import LAST, find_whole
from landmark.cli import UserError
from landmark.outputs import Outputs
from landmark.records import read_batches, read_manifest, read_records, to_record

SPLITS = "train", "test"


@pytest.fixture
def copy(records, tmp_path):
    """A copy of the folder of the records."""
    return shutil.copytree(records, tmp_path / "copy")


def flip(path, *places):
    """Flips a bit of the byte at each place of a file, which keeps its size."""
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 1
    path.write_bytes(content)


# The manifest


def test_the_manifest_says_what_the_records_hold(records):
    known = read_manifest(records)
    train, test = ([*read_records([records / f"{split}.tfrecords"])] for split in SPLITS)
    assert (known.landmark_type, known.train, known.test) == ("pts_2d", len(train), len(test))
    np.testing.assert_allclose(known.mean_face, np.mean([face.label for face in train], 0, np.float64))
    assert known.labelled.tolist() == [len(train)] * 68
    assert known.frontal == pytest.approx(np.mean([face.yaw < 30 for face in train]))
    assert known.sizes == {f"{split}.tfrecords": (records / f"{split}.tfrecords").stat().st_size for split in SPLITS}


def test_records_without_a_manifest_are_read_once_and_get_one(copy, records):
    manifest = copy / "records.json"
    manifest.unlink()
    read = read_manifest(copy)
    expected = json.loads((records / "records.json").read_text())
    assert json.loads(manifest.read_text()) == expected | {"fingerprint": None}
    flip(copy / "train.tfrecords", 1000)  # which only reading the records would find
    again = read_manifest(copy)
    np.testing.assert_array_equal(again.mean_face, read.mean_face)
    assert again.sizes == read.sizes and (again.train, again.test) == (56, 8)


def test_a_manifest_that_training_wrote_is_not_in_the_way_of_the_next_preparation(copy):
    Outputs({copy / "records.json": None})
    (copy / "records.json").unlink()
    read_manifest(copy)
    Outputs({copy / "records.json": None})


@pytest.mark.parametrize("theirs", ["", "{", "[1, 2]", "{}", '{"train": 3}', '["\\u00e9"]', b"\xff\xfe"])
def test_a_records_json_that_is_not_ours_is_never_replaced(theirs, copy):
    content = theirs if isinstance(theirs, bytes) else theirs.encode()
    (copy / "records.json").write_bytes(content)
    assert read_manifest(copy).train == 56
    assert (copy / "records.json").read_bytes() == content
    flip(copy / "test.tfrecords", 1000)
    with pytest.raises(UserError, match="test.tfrecords: record 0 is damaged"):  # they are read each time
        read_manifest(copy)


def test_records_of_another_size_than_the_manifest_says_are_read_again(copy):
    path = copy / "test.tfrecords"
    faces = [*read_records([path])]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for face in faces[1:]:
            writer.write(to_record(face))
    assert read_manifest(copy).test == len(faces) - 1
    manifest = json.loads((copy / "records.json").read_text())
    assert manifest["test"] == len(faces) - 1 and manifest["sizes"][path.name] == path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{path}: record {len(faces) - 2} is damaged"):
        read_manifest(copy)


def test_the_records_json_of_an_earlier_version_is_replaced_by_a_manifest(copy):
    known = read_manifest(copy)
    former = {"points": "pts_2d", "mean_face": known.mean_face.tolist(), "train": 56, "test": 8, "frontal": 0.5}
    (copy / "records.json").write_text(json.dumps(former))
    again = read_manifest(copy)
    assert again._replace(mean_face=0, labelled=0) == known._replace(mean_face=0, labelled=0, fingerprint=None)
    assert json.loads((copy / "records.json").read_text())["sizes"] == known.sizes


def test_points_without_a_label_do_not_count_in_the_mean_face(copy):
    train = [*read_records([copy / "train.tfrecords"])]
    train[3].label[:34] = np.nan
    with tf.io.TFRecordWriter(str(copy / "train.tfrecords")) as writer:
        for face in train:
            writer.write(to_record(face))
    (copy / "records.json").unlink()
    manifest = read_manifest(copy)
    np.testing.assert_allclose(manifest.mean_face, np.nanmean([face.label for face in train], 0, np.float64))
    assert manifest.labelled.tolist() == [len(train) - 1] * 17 + [len(train)] * 51


def test_records_keep_their_landmark_type_and_two_types_in_a_folder_are_refused(records, tmp_path):
    faces = [*read_records([records / "test.tfrecords"])]
    assert {face.landmark_type for face in faces} == {"pts_2d"}
    for split in SPLITS:
        with tf.io.TFRecordWriter(str(tmp_path / f"{split}.tfrecords")) as writer:
            for face in faces:
                writer.write(to_record(face._replace(landmark_type="pts_3d")))
    assert read_manifest(tmp_path).landmark_type == "pts_3d"
    for name in "train2.tfrecords", "test.tfrecords":
        (tmp_path / name).write_bytes((records / "test.tfrecords").read_bytes())
        (tmp_path / "records.json").unlink()
        with pytest.raises(UserError, match=f"{name} holds pts_2d and a file beside it pts_3d"):
            read_manifest(tmp_path)
        assert not (tmp_path / "records.json").exists()
        (tmp_path / "records.json").touch()
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="train.tfrecords holds pts_3d and a file beside it pts_2d"):
        [*read_records([records / "test.tfrecords", tmp_path / "train.tfrecords"])]


# Damage


def test_a_start_reads_the_manifest_alone(copy, monkeypatch):
    for split in SPLITS:
        flip(copy / f"{split}.tfrecords", 1000)
    monkeypatch.setattr(record_files, "check_records", pytest.fail)
    assert read_manifest(copy).train == 56


@pytest.mark.parametrize("split, is_new", [("train", False), ("test", False), ("test", True)])
def test_a_damaged_record_ends_a_run_with_the_name_of_its_file_and_checkpoints_are_kept(
    split, is_new, copy, begun, tmp_path, says
):
    path, models = copy / f"{split}.tfrecords", tmp_path / "new" if is_new else begun
    flip(path, path.stat().st_size // 2)
    before = {path: path.read_bytes() for path in models.glob("*.ckpt-*")}
    message = says("train", "--data", copy, "--models", models, *BRIEF, 3)
    assert re.match(rf"{path}: record \d+ is damaged: ", message) and "prepare_tfrecords.py" in message
    assert before.items() <= {path: path.read_bytes() for path in models.glob("*.ckpt-*")}.items()
    assert find_whole(models, LAST) == str(models / ("model.ckpt-3" if is_new else "model.ckpt-2"))


def starts_of(path):
    """Where the records of a file start."""
    content, starts, at = path.read_bytes(), [], 0
    while at < len(content):
        starts.append(at)
        at += 16 + struct.unpack_from("<Q", content, at)[0]  # the length, two checksums, the record
    return starts


# What is done to a file of records that start at some places, and the first record that cannot be read then.
DAMAGE = {
    "a byte": (lambda path, starts: flip(path, starts[5] + 1000), 5),
    "a length": (lambda path, starts: flip(path, starts[5] + 2), 5),
    "the checksum of a length": (lambda path, starts: flip(path, starts[0] + 9), 0),
    "the last checksum": (lambda path, starts: flip(path, path.stat().st_size - 1), 55),
    "several": (lambda path, starts: flip(path, starts[3] + 1, starts[3] + 99, starts[7] + 50_000), 3),
    "its end": (lambda path, starts: path.write_bytes(path.read_bytes()[: starts[-1] + 5000]), 55),
    "its middle": (
        lambda path, starts: path.write_bytes(path.read_bytes()[: starts[4] + 40] + path.read_bytes()[starts[6] :]),
        4,
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_anywhere_in_a_record_file_is_named_with_its_record(name, copy, records, says):
    path = copy / "train.tfrecords"
    damage, first = DAMAGE[name]
    damage(path, starts_of(path))
    message = f"{path}: record {first} is damaged"
    whole = [face.name for face in read_records([records / "train.tfrecords"])]
    with pytest.raises(UserError, match=message):
        [*read_records([path])]
    assert [face.name for face in itertools.islice(read_records([path]), first)] == whole[:first]
    if path.stat().st_size != (records / "train.tfrecords").stat().st_size:  # then a start finds it
        assert message in says("train", "--data", copy, "--models", copy / "models", "--steps", 1)
        assert not (copy / "models").exists()


def test_evaluate_names_a_damaged_record(copy, says):
    path = copy / "test.tfrecords"
    flip(path, starts_of(path)[2] + 100)
    assert f"{path}: record 2 is damaged" in says("evaluate", "--records", path, "--output", copy / "out")
    assert not (copy / "out").exists()


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_file_is_named(split, copy, says):
    path = copy / f"{split}.tfrecords"
    path.write_bytes(b"")
    before = names_in(copy)
    assert f"{path} is empty" in says("train", "--data", copy, "--models", copy / "models")
    assert names_in(copy) == before


def test_a_file_of_anything_takes_no_time(tmp_path):
    rng, began = np.random.default_rng(0), time.monotonic()
    for content in b"\0" * 3_000_000, rng.bytes(3_000_000), b"\0\0\1" * 1_000_000, b"\1\1\1\1\0\0\0\0" * 300_000:
        path = tmp_path / "train.tfrecords"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: record 0 is damaged"):
            [*read_records([path])]
    assert time.monotonic() - began < 5


def test_no_pass_waits_for_tensorflows_tuner(records):
    """The tuner can miss the end of a pass, and hold up the next one for a minute."""
    for seed in None, 1:
        assert read_batches([records / "test.tfrecords"], 2, seed).options().autotune.enabled is False


def test_faces_of_unknown_yaw_are_drawn_with_the_near_frontal_ones(records, tmp_path):
    face = next(read_records([records / "test.tfrecords"]))
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecords")) as writer:
        for yaw in np.nan, 10, 60:
            writer.write(to_record(face._replace(yaw=yaw)))
    with tf.Graph().as_default(), tf.Session() as session:
        batches = read_batches([tmp_path / "train.tfrecords"], 600, seed=0, frontal=0.7)
        yaws = session.run(tf.data.make_one_shot_iterator(batches).get_next())[3]
    assert [np.mean(drawn) for drawn in (np.isnan(yaws), yaws == 10, yaws == 60)] == pytest.approx(
        [0.35, 0.35, 0.3], abs=0.06
    )
