import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from landmark.evaluation import find_records
from landmark.records import read_batches, read_records, summarize_records, to_record
from landmark.tfrecords import read_raw


def test_what_preparation_counted_is_what_the_records_hold(records, tmp_path, read_records):
    known = summarize_records(records)
    faces = {side: read_records(records / f"{side}.tfrecords") for side in ("train", "test")}
    assert (known.points, known.train, known.test) == ("pts_2d", len(faces["train"]), len(faces["test"]))
    np.testing.assert_allclose(known.mean_face, np.mean([label for _, _, label, _ in faces["train"]], 0, np.float64))
    for side in faces:  # records without what preparation wrote down: they are read
        (tmp_path / f"{side}.tfrecords").write_bytes((records / f"{side}.tfrecords").read_bytes())
    for damaged in None, "{", "{}":
        if damaged:
            (tmp_path / "records.json").write_text(damaged)
        read = summarize_records(tmp_path)
        np.testing.assert_array_equal(read.mean_face, known.mean_face)
        assert read[2:] == known[2:]


def test_records_newer_than_what_was_counted_are_read_again(records, tmp_path):
    for name in "records.json", "train.tfrecords", "test.tfrecords":
        (tmp_path / name).write_bytes((records / name).read_bytes())
    whole = (tmp_path / "test.tfrecords").read_bytes()
    (tmp_path / "test.tfrecords").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"test.tfrecords: record \d+, at byte [\d,]+, is damaged"):
        summarize_records(tmp_path)


def test_the_kind_of_points_stays_with_the_records_and_two_kinds_are_refused(records, tmp_path):
    faces = list(read_records(records / "test.tfrecords"))
    assert {face.kind for face in faces} == {"pts_2d"}
    for side in "train", "test":
        with tf.io.TFRecordWriter(str(tmp_path / f"{side}.tfrecords")) as writer:
            for face in faces:
                writer.write(to_record(face._replace(kind="pts_3d")))
    assert summarize_records(tmp_path).points == "pts_3d"
    assert find_records([tmp_path / "test.tfrecords"]).kind == "pts_3d"
    for name in "train2.tfrecords", "test.tfrecords":
        (tmp_path / name).write_bytes((records / "test.tfrecords").read_bytes())
        with pytest.raises(ValueError, match=f"{name} holds pts_2d and a file beside it pts_3d"):
            summarize_records(tmp_path)
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="train.tfrecords holds pts_3d and a file beside it pts_2d"):
        find_records([records / "test.tfrecords", tmp_path / "train.tfrecords"])


@pytest.fixture
def damage(records, tmp_path):
    """damage(name): a folder of the records with one of its files damaged, as of DAMAGE."""

    def damage(name):
        folder = tmp_path / name
        shutil.copytree(records, folder)
        content = bytearray((folder / "train.tfrecords").read_bytes())
        starts = [at for at, _ in read_raw(folder / "train.tfrecords")]
        content, lost = DAMAGE[name](content, starts)
        (folder / "train.tfrecords").write_bytes(content)
        now = max(path.stat().st_mtime_ns for path in folder.iterdir()) + 1
        os.utime(folder / "records.json", ns=(now, now))  # a disk that goes bad tells nobody
        return folder, lost

    return damage


def flip(content, *at):
    for place in at:
        content[place] ^= 1
    return content


# What happens to the train file, from its bytes and where its records start: (bytes, {number of a lost record: byte}).
DAMAGE = {
    "a byte": lambda content, starts: (flip(content, starts[5] + 1000), {5: starts[5]}),
    "a length": lambda content, starts: (flip(content, starts[5] + 2), {5: starts[5]}),
    "the CRC of a length": lambda content, starts: (flip(content, starts[0] + 9), {0: starts[0]}),
    "the last CRC": lambda content, starts: (flip(content, len(content) - 1), {len(starts) - 1: starts[-1]}),
    "some": lambda content, starts: (
        flip(content, starts[3] + 1, starts[3] + 99, starts[7] + 50_000, starts[9] + 5),
        {3: starts[3], 7: starts[7], 9: starts[9]},
    ),
    "a tail": lambda content, starts: (content[: starts[-1] + 5000], {len(starts) - 1: starts[-1]}),
    "a hole": lambda content, starts: (content[: starts[4] + 40] + content[starts[6] :], {4: starts[4]}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_records_are_found_at_the_start_and_left_out_if_asked(name, damage, records, says):
    folder, lost = damage(name)
    first = min(lost)
    place = f"{folder / 'train.tfrecords'}: record {first}, at byte {lost[first]:,}, is damaged"
    assert place in says("train", "--data", folder, "--models", folder / "models", "--steps", 1)
    assert not (folder / "models").exists()
    assert place in says("evaluate", "--records", folder / "train.tfrecords")
    whole = [face.name for i, face in enumerate(read_records(records / "train.tfrecords"))]
    lines = []
    left = [face.name for face in read_records(folder / "train.tfrecords", lines)]
    gone = {*lost, 5} if name == "a hole" else lost
    assert left == [face for i, face in enumerate(whole) if i not in gone]
    assert len(lines) == len(lost)


def test_training_goes_on_without_damaged_records_and_says_so(damage, run, capsys):
    folder, lost = damage("some")
    options = "--network", "original", "--batch_size", 4, "--steps", 2, "--skip_damaged"
    done = run("train.py", "--data", folder, "--models", folder / "models", *options)
    assert done.returncode == 0, done.stderr
    assert f"{len(lost)} damaged records are left out, the first of them {folder / 'train.tfrecords'}" in done.stdout
    assert len(find_records([folder / "train.tfrecords"], True).names) == 56 - len(lost)
    assert "3 damaged records are left out" in capsys.readouterr().err


def test_an_empty_file_is_named(records, tmp_path, says):
    for side in "train", "test":
        shutil.copytree(records, tmp_path / side)
        (path := tmp_path / side / f"{side}.tfrecords").write_bytes(b"")
        assert f"{path} is empty" in says("train", "--data", tmp_path / side, "--models", tmp_path / "models")
        message = says("train", "--data", tmp_path / side, "--models", tmp_path / "models", "--skip_damaged")
        assert f"no record in {path}" in message


def test_batches_without_damaged_records_are_the_others(damage, records):
    folder, lost = damage("some")
    with tf.Graph().as_default(), tf.Session() as session:
        batches = [
            tf.data.make_one_shot_iterator(read_batches([path / "train.tfrecords"], 100, skip_damaged=skip)).get_next()
            for path, skip in ((records, False), (folder, True))
        ]
        (crops, labels, *_), (left, labels_left, *_) = session.run(batches)
    kept = [i for i in range(len(crops)) if i not in lost]
    np.testing.assert_array_equal(left, crops[kept])
    np.testing.assert_array_equal(labels_left, labels[kept])


def test_a_file_of_anything_takes_no_time(tmp_path):
    rng = np.random.default_rng(0)
    for content in b"\0" * 3_000_000, rng.bytes(3_000_000), b"\0\0\1" * 1_000_000, b"\1\1\1\1\0\0\0\0" * 300_000:
        (tmp_path / "train.tfrecords").write_bytes(content)
        lines = []
        assert list(read_records(tmp_path / "train.tfrecords", lines)) == [] and len(lines) == 1


def test_no_pass_waits_for_tensorflows_tuner(records):
    """Its end can miss the word that a pass has ended, and hold the next one up for a minute."""
    for seed in None, 1:
        assert read_batches([records / "test.tfrecords"], 2, seed).options().autotune.enabled is False
