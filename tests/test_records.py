import numpy as np
import pytest

from landmark.records import summarize_records


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
