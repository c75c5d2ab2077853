"""The record of contract 3: written from faces, read, checked, and batched inside the graph."""

import contextlib
import json
import math
import os
import re
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from landmark.annotations import LabelledFace
from landmark.files import whole_file
from landmark.formats import KINDS
from landmark.points import GREEN, IMAGE_SIZE, JAW, LANDMARKS, WHOLE_CROP, contact_sheet
from landmark.tfrecords import read_raw

SIDES = "train", "test"
SUMMARY = "records.json"  # beside the record files
PREVIEW_CROPS = 25
SHUFFLE = 512  # records, 50 MB; the files are in random order already
FRONTAL = 30  # degrees of yaw
SHARD = re.compile(r"-\d{5}-of-(\d{5})\.tfrecords$")
READ_AT_ONCE = 16  # shards
WRITE_AGAIN = "write it again with python prepare_tfrecords.py"

# Records from elsewhere may have two features alone: errors are then measured in the crop, and augment has no margin.
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([2 * LANDMARKS], tf.float32),
    "name": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "box": tf.io.FixedLenFeature([4], tf.int64, default_value=WHOLE_CROP),
    "photo": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "yaw": tf.io.FixedLenFeature([], tf.float32, default_value=0),
}  # and "kind", of the points: where it is missing, that of old, KINDS[0]
LISTS = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}  # of tf.train.Feature

# points: the kind of points, of formats.KINDS; mean_face: float64 [136], the mean label of the training records; train,
# test: their numbers of records; frontal: the share of the training records within FRONTAL degrees of yaw.
Summary = namedtuple("Summary", "points mean_face train test frontal")


# Writing


def to_record(face):
    """The record of a LabelledFace: a serialized tf.train.Example.

    The photo's file as it is leaves train.py the room to turn and shift the crop, costs no time here, and is smaller
    than the pixels of the crop (40 KB in 300W_LP).
    """
    record = tf.train.Example()
    feature = record.features.feature  # filled in place: a message given to another is copied, 90 KB each time
    feature["image"].bytes_list.value.append(face.crop.tobytes())
    feature["label"].float_list.value.extend(face.label)
    feature["name"].bytes_list.value.append(os.fsencode(face.name))
    feature["box"].int64_list.value.extend(face.box)
    feature["photo"].bytes_list.value.append(face.photo)
    feature["yaw"].float_list.value.append(face.yaw)
    feature["kind"].bytes_list.value.append(face.kind.encode())
    return record.SerializeToString(deterministic=True)


class _Sums:
    """What a Summary says of training records, as they come."""

    def __init__(self):
        self.label, self.labelled, self.frontal, self.count = np.zeros(2 * LANDMARKS), 0, 0, 0
        self.kind = None

    def add(self, face):
        self.label += np.nan_to_num(face.label)
        self.labelled += np.isfinite(face.label)
        self.frontal += not face.yaw >= FRONTAL  # nor is it where it is not known
        self.count += 1
        self.kind = face.kind

    def summary(self, test):
        mean_face = np.divide(self.label, self.labelled, out=np.full(2 * LANDMARKS, 0.5), where=self.labelled > 0)
        return Summary(self.kind, mean_face, self.count, test, self.frontal / self.count)


def write_records(is_test, faces, out, shard=""):
    """Writes train.tfrecords, test.tfrecords, records.json, preview.png and skipped.txt into a folder.

    Args:
        is_test: list of bool, of split_faces.
        faces: for each, what read_faces yields.
        out: Path of a folder that exists.
        shard: "" or "-00000-of-00004", which then stands in all these names; there is no records.json of a shard.

    Returns:
        (Summary, number of faces left out).

    Raises:
        ValueError: train or test would be empty; only skipped.txt is written then.
    """
    skipped_txt = out / f"skipped{shard}.txt"
    counts, sums, skipped, preview = [0, 0], _Sums(), [], []
    with contextlib.ExitStack() as files:
        paths = [files.enter_context(whole_file(out / f"{side}{shard}.tfrecords")) for side in SIDES]
        writers = [files.enter_context(tf.io.TFRecordWriter(os.fsencode(path))) for path in paths]
        everyone = zip(is_test, faces, strict=True)
        for side, face in tqdm(everyone, total=len(is_test), unit="face", disable=None):
            if isinstance(face, str):
                skipped.append(face)
                continue
            writers[side].write(to_record(face))
            counts[side] += 1
            if not side:
                sums.add(face)
            if len(preview) < PREVIEW_CROPS:
                preview.append(face)
        with whole_file(skipped_txt) as path:
            path.write_bytes(os.fsencode("".join(f"{line}\n" for line in sorted(skipped))))
        if not all(counts):
            raise ValueError(
                f"{sum(counts)} usable faces of {len(is_test)} are too few to train and test on"
                f"{', give fewer --shards' if shard else ''}; {skipped_txt} says what is wrong with the others"
            )
    summary = sums.summary(counts[1])
    if not shard:
        with whole_file(out / SUMMARY) as path:
            path.write_text(json.dumps(summary._asdict() | {"mean_face": summary.mean_face.tolist()}) + "\n")
    labels = [(np.reshape([face.label for face in preview], [-1, LANDMARKS, 2]), GREEN)]
    with whole_file(out / f"preview{shard}.png") as path:
        path.write_bytes(cv2.imencode(".png", contact_sheet(np.array([face.crop for face in preview]), labels))[1])
    return summary, len(skipped)


# Reading


def find_records(folder, side):
    """The record files of one side.

    Args:
        folder: Path of the folder that prepare_tfrecords.py wrote.
        side: "train" or "test".

    Returns:
        list of Path, sorted, at least one.

    Raises:
        ValueError: there are none; or shards are missing, or not alone.
    """
    paths = sorted(Path(folder).glob(f"{side}*.tfrecords"))
    if not paths:
        raise ValueError(f"no {side}*.tfrecords in {folder}: run python prepare_tfrecords.py")
    names = {path.name for name in SIDES for path in Path(folder).glob(f"{name}*.tfrecords")}
    if counts := {match[1] for name in names if (match := SHARD.search(name))}:
        count = max(counts)
        shards = {f"{name}-{i:05}-of-{count}.tfrecords" for name in SIDES for i in range(int(count))}
        if missing := sorted(shards - names):
            raise ValueError(f"{folder} lacks {missing[0]}: run python prepare_tfrecords.py with --shards {int(count)}")
        if others := sorted(names - shards):
            raise ValueError(f"{folder} holds {others[0]} beside the {int(count)} shards of other records: delete one")
    return paths


def read_records(path, damaged=None):
    """The records of one file, outside a graph.

    Args:
        path: str or Path.
        damaged: a list that is given a line for each damaged record, which is then left out; None: the first is an
            error.

    Yields:
        LabelledFace.

    Raises:
        ValueError: the file is missing, empty or damaged, or holds records of another size; the message names it.
    """
    return (face for _, face in _read_whole(path, damaged))


def _read_whole(path, damaged):
    """The whole records of a file, as of read_records: yields (their bytes, LabelledFace)."""

    def report(what):
        if damaged is None:
            raise ValueError(f"{path}{what}: {WRITE_AGAIN}, or leave out what is damaged with --skip_damaged")
        damaged.append(f"{path}{what}")

    try:
        if not os.path.getsize(path):
            return report(" is empty")
        for number, (at, record) in enumerate(read_raw(path)):
            try:
                face = _parse(record, path)
            except ValueError as error:
                report(f": record {number}, at byte {at:,}, {error}")
            else:
                yield record, face
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}; python prepare_tfrecords.py writes the records"
        ) from None


def _parse(record, path):
    """The LabelledFace of a record of a file, or a ValueError that says what is wrong with it."""
    try:
        feature = tf.train.Example.FromString(record).features.feature
    except (DecodeError, TypeError):  # TypeError: None
        raise ValueError("is damaged") from None
    image, name, photo = (b"".join(feature[key].bytes_list.value) for key in ("image", "name", "photo"))
    label, box = feature["label"].float_list.value, feature["box"].int64_list.value[:] or WHOLE_CROP
    if (len(image), len(label)) != (IMAGE_SIZE * IMAGE_SIZE * 3, 2 * LANDMARKS):
        raise ValueError(f"holds {len(image)} image bytes and {len(label)} label numbers")
    for key, form in FEATURES.items():  # read_batches ends where there is another number of another type
        kind = feature[key].WhichOneof("kind")
        if kind and (kind, len(getattr(feature[key], kind).value)) != (LISTS[form.dtype], math.prod(form.shape)):
            raise ValueError(f"holds another {key} than {form.shape or 'one'} of {form.dtype.name}")
    label = np.array(label, np.float32)
    if not (np.isfinite(np.delete(label.reshape(LANDMARKS, 2), JAW, 0)).all() and box[0] < box[2] and box[1] < box[3]):
        raise ValueError("holds points that are no numbers, or a crop of no size")
    crop = np.frombuffer(image, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
    yaw = [*feature["yaw"].float_list.value, math.nan][0]
    kind = [*feature["kind"].bytes_list.value, KINDS[0].encode()][0].decode(errors="replace")
    return LabelledFace(os.fsdecode(name) or str(path), crop, label, box, photo, yaw, kind)


def read_files(paths, kind=None, damaged=None):
    """The records of some files, outside a graph, whose points are of one kind.

    Args:
        paths: of the files.
        kind: of formats.KINDS; that of the first record if it is not said.
        damaged: as of read_records.

    Yields:
        LabelledFace.

    Raises:
        ValueError: a file is missing or damaged, or its points are of another kind; the message names it.
    """
    for path in paths:
        for face in read_records(path, damaged):
            kind = kind or face.kind
            if face.kind != kind:
                raise ValueError(
                    f"{path} holds {face.kind} and a file beside it {kind}: records of one kind belong in a folder"
                    " (--out of prepare_tfrecords.py)"
                )
            yield face


def check_records(train_paths, test_paths, damaged=None):
    """Reads every record of some files.

    Args:
        train_paths: as find_records returns them.
        test_paths: of the other side; may be empty.
        damaged: as of read_records.

    Returns:
        Summary.

    Raises:
        ValueError: a record file is missing, empty, damaged or of another kind; the message names it.
    """
    sums = {}
    for side, paths in zip(SIDES, (train_paths, test_paths), strict=True):
        kind = sums[SIDES[0]].kind if sums else None
        sums[side] = _Sums()
        for face in tqdm(read_files(paths, kind, damaged), f"check {side}", unit="record", disable=None):
            sums[side].add(face)
        if paths and not sums[side].count:
            raise ValueError(f"no record in {', '.join(map(str, paths))}: {WRITE_AGAIN}")
    return sums["train"].summary(sums["test"].count)


def summarize_records(folder, damaged=None):
    """What preparation wrote down of its records; where it did not, or they changed since, they are all read.

    Args:
        folder: Path of the folder that prepare_tfrecords.py wrote.
        damaged: as of read_records.

    Returns:
        Summary.

    Raises:
        ValueError: as of check_records.
    """
    sides = [find_records(folder, side) for side in SIDES]
    path = Path(folder) / SUMMARY
    if path.exists() and all(file.stat().st_mtime_ns <= path.stat().st_mtime_ns for files in sides for file in files):
        with contextlib.suppress(ValueError, TypeError):  # damaged
            known = Summary(**json.loads(path.read_text()))
            return known._replace(mean_face=np.array(known.mean_face))
    return check_records(*sides, damaged)


def read_batches(paths, batch_size, seed=None, augment=None, frontal=None, skip_damaged=False):
    """Batches of records, read inside the graph.

    Args:
        paths: record files, as find_records returns them.
        batch_size: records in a batch.
        seed: shuffles, for ever, when given; else once through the records in their order. Either way a record of each
            file comes in turn.
        augment: function of (number of the batch, images, labels, boxes, photos) as augment_batch has them, that
            returns other crops and labels.
        frontal: share of the shuffled records that are within FRONTAL degrees of yaw; as they come if None.
        skip_damaged: whether damaged records are left out; else they end a run of the session.

    Returns:
        tf.data.Dataset of (crops float32 [N, 128, 128, 3] BGR 0..255, labels float32 [N, 136], NaN for a point without
        one, boxes int64 [N, 4], yaws float32 [N], degrees, 0 where it is not known).
    """

    def whole(path):
        return (record for record, _ in _read_whole(os.fsdecode(path), []))

    def read(path):
        if skip_damaged:
            return tf.data.Dataset.from_generator(whole, tf.string, [], [path])
        return tf.data.TFRecordDataset(path)

    dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(path) for path in paths]).interleave(read, READ_AT_ONCE)
    if frontal is not None:

        def is_frontal(record):
            return tf.io.parse_single_example(record, {"yaw": FEATURES["yaw"]})["yaw"] < FRONTAL

        sides = [dataset.filter(is_frontal), dataset.filter(lambda record: not is_frontal(record))]
        sides = [side.shuffle(SHUFFLE, seed=seed).repeat() for side in sides]
        dataset = tf.data.Dataset.sample_from_datasets(sides, [frontal, 1 - frontal], seed)
    elif seed is not None:
        dataset = dataset.shuffle(SHUFFLE, seed=seed).repeat()

    def parse(number, records):
        names = "image", "label", "box", "photo", "yaw"
        parsed = tf.io.parse_example(records, {name: FEATURES[name] for name in names})
        image, labels, boxes = parsed["image"], parsed["label"], parsed["box"]
        if augment:
            inputs = [number, image, labels, boxes, parsed["photo"]]
            crops, labels = tf.numpy_function(augment, inputs, [tf.uint8, tf.float32])
            labels = tf.ensure_shape(labels, [None, 2 * LANDMARKS])
        else:
            crops = tf.io.decode_raw(image, tf.uint8)
        crops = tf.reshape(crops, [-1, IMAGE_SIZE, IMAGE_SIZE, 3])
        return tf.cast(crops, tf.float32), labels, boxes, parsed["yaw"]

    # Two batches at a time: OpenCV releases Python's lock. Their order stays.
    dataset = dataset.batch(batch_size).enumerate().map(parse, num_parallel_calls=2).prefetch(2)
    # Nothing is left to TensorFlow to tune, and the end of a pass would wait for its tuner to wake up: up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
