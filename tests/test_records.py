import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from landmark.evaluation import find_records
from landmark.records import read_records, summarize_records, to_record


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
    with pytest.raises(ValueError, match="test.tfrecords is damaged"):
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
