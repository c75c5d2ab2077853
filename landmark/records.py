"""Records: written from faces, described by a manifest, and read in batches inside the graph."""

import contextlib
import json
import math
import os
import re
import sys
import threading
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from landmark.annotations import AnnotatedFace
from landmark.cli import CORES, UserError
from landmark.outputs import Outputs, whole_file
from landmark.points import GREEN, IMAGE_SIZE, JAW, LANDMARK_TYPES, LANDMARKS, PARTS, WHOLE_CROP, contact_sheet
from landmark.pose import is_face

SPLITS = "train", "test"
PREVIEW_CROPS = 25
SHUFFLE = 512  # records, 35 MB; the files are in random order already
FRONTAL = 30  # degrees of yaw
SHARD = re.compile(r"-\d{5}-of-(\d{5})\.tfrecords$")
READ_AT_ONCE = 16  # shards
WRITE_AGAIN = "write it again with python prepare_tfrecords.py"

# Records from elsewhere may have only an image and a label: errors are then measured in the crop, and augmentation has
# no margin around it.
FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([2 * LANDMARKS], tf.float32),
    "name": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "box": tf.io.FixedLenFeature([4], tf.int64, default_value=WHOLE_CROP),
    "photo": tf.io.FixedLenFeature([], tf.string, default_value=""),
    "yaw": tf.io.FixedLenFeature([], tf.float32, default_value=0),
}  # and "kind": the landmark type, LANDMARK_TYPES[0] where it is missing
LISTS = {tf.string: "bytes_list", tf.float32: "float_list", tf.int64: "int64_list"}  # of tf.train.Feature

# Describes the record files of a whole folder, or of one shard. landmark_type: one of LANDMARK_TYPES;
# train, test: numbers of records; over the training records, mean_face: float64 [136], the mean label; labelled: int
# [68], the number with a label for each landmark; frontal: the fraction within FRONTAL degrees of yaw. sizes: dict of
# each file's name to its bytes. fingerprint: str, of the list of faces that the shards share, None if unknown.
Manifest = namedtuple("Manifest", "landmark_type train test mean_face labelled frontal sizes fingerprint")


# Writing


def to_record(face):
    """The record of an AnnotatedFace: a serialized tf.train.Example.

    Its photo has a margin for train.py to turn and shift the crop, and takes fewer bytes than the crop.
    """
    record = tf.train.Example()
    feature = record.features.feature  # filled in place: a message given to another is copied, 70 KB each time
    feature["image"].bytes_list.value.append(face.crop.tobytes())
    feature["label"].float_list.value.extend(face.label)
    feature["name"].bytes_list.value.append(os.fsencode(face.name))
    feature["box"].int64_list.value.extend(face.box)
    feature["photo"].bytes_list.value.append(face.photo)
    feature["yaw"].float_list.value.append(face.yaw)
    feature["kind"].bytes_list.value.append(face.landmark_type.encode())
    return record.SerializeToString(deterministic=True)


class _Totals:
    """What a Manifest says of the training records, added up as they come."""

    def __init__(self):
        self.label, self.labelled = np.zeros(2 * LANDMARKS), np.zeros(LANDMARKS, int)
        self.frontal, self.count, self.landmark_type = 0, 0, None

    def add(self, face):
        self.label += np.nan_to_num(face.label)
        self.labelled += np.isfinite(face.label[::2])
        self.frontal += not face.yaw >= FRONTAL  # an unknown yaw (NaN) counts as frontal
        self.count += 1
        self.landmark_type = face.landmark_type

    def manifest(self, test, paths, fingerprint=None):
        sizes = {path.name: path.stat().st_size for path in paths}
        mean_face, frontal = _mean_face(self.label, self.labelled), self.frontal / self.count
        return Manifest(self.landmark_type, self.count, test, mean_face, self.labelled, frontal, sizes, fingerprint)


def _mean_face(label, labelled):
    """The mean label from the sum of all and the numbers of labels, the middle of the crop where there are none."""
    counts = labelled.repeat(2)
    return np.divide(label, counts, out=np.full(2 * LANDMARKS, 0.5), where=counts > 0)


def write_records(is_test, faces, out, shard="", fingerprint=None, write=whole_file):
    """Writes train.tfrecords, test.tfrecords, records.json, preview.png and skipped.txt into a folder.

    is_test: list of bool, from split_faces.
    faces: for each, what read_faces yields.
    out: Path of a folder that exists.
    shard: "" or "-00000-of-00004", which is then part of all these names.
    fingerprint: str, of the list of faces that all shards share.
    write: whole_file or Outputs.write.
    Returns: (Manifest, number of faces left out).
    Raises UserError: train or test would be empty; only skipped.txt is written then.
    """
    skipped_txt = out / f"skipped{shard}.txt"
    counts, totals, skipped, preview, odd = [0, 0], _Totals(), [], [], []
    paths = [out / f"{split}{shard}.tfrecords" for split in SPLITS]
    with contextlib.ExitStack() as files:
        partials = [files.enter_context(write(path)) for path in paths]
        writers = [files.enter_context(tf.io.TFRecordWriter(os.fsencode(partial))) for partial in partials]
        for split, face in tqdm(zip(is_test, faces, strict=True), total=len(is_test), unit="face", disable=None):
            if isinstance(face, str):
                skipped.append(face)
                continue
            writers[split].write(to_record(face))
            counts[split] += 1
            if not split:
                totals.add(face)
            if not is_face(face.label.reshape(LANDMARKS, 2) * np.subtract(face.box[2:], face.box[:2])):
                odd.append(face.name)
            if len(preview) < PREVIEW_CROPS:
                preview.append(face)
        with write(skipped_txt) as path:
            path.write_bytes(os.fsencode("".join(f"{line}\n" for line in sorted(skipped))))
        if not all(counts):
            raise UserError(
                f"{sum(counts)} usable faces of {len(is_test)} are too few to train and test on"
                f"{', give fewer --shards' if shard else ''}"
                f"{f'; {skipped_txt} says what is wrong with the others' if skipped else ''}"
            )
        if not shard:  # of shards, only all together must have all labels
            check_labels(totals.labelled, counts[0], totals.landmark_type)
    if odd:
        names = f"{', '.join(sorted(odd)[:3])}{', ...' if len(odd) > 3 else ''}"
        print(f"{len(odd):,} faces have points unlike a face's, mirrored or in another order: look at {names}")
    manifest = totals.manifest(counts[1], paths, fingerprint)
    points = np.reshape([face.label for face in preview], [-1, LANDMARKS, 2])
    sheet = contact_sheet(np.array([face.crop for face in preview]), [(points, GREEN)])
    with write(out / f"records{shard}.json") as path:
        path.write_text(_to_json(manifest))
    with write(out / f"preview{shard}.png") as path:
        path.write_bytes(cv2.imencode(".png", sheet)[1])
    return manifest, len(skipped)


def check_labels(labelled, count, landmark_type):
    """Prints how many training faces have labels for each part, where not all have.

    labelled: int [68], the number of training faces with a label for each landmark; count: of all of them.
    Raises UserError: no face has a label for some landmark.
    """
    missing = np.flatnonzero(labelled == 0)
    if len(missing):
        other = {"pts_2d": "3d", "pts_3d": "2d"}[landmark_type]
        what = "the jaw" if {*missing} == {*JAW} else f"points {', '.join(map(str, missing))}"
        raise UserError(f"no training face has a label for {what}: prepare with --points {other}, or add such faces")
    for part, lines in PARTS.items():
        fewest = min(labelled[index] for line in lines for index in line)
        if fewest < count:
            print(f"{fewest:,} of {count:,} training faces have labels for all of the {part}")


def _to_json(manifest):
    return json.dumps(manifest._asdict(), default=np.ndarray.tolist) + "\n"


# Reading


def find_record_files(folder, split):
    """The record files of a split, "train" or "test", in a folder: list of Path, sorted, at least one.

    Raises UserError if there are none, or shards are missing, or not alone.
    """
    paths = sorted(Path(folder).glob(f"{split}*.tfrecords"))
    if not paths:
        raise UserError(f"no {split}*.tfrecords in {folder}: run python prepare_tfrecords.py")
    names = {path.name for name in SPLITS for path in Path(folder).glob(f"{name}*.tfrecords")}
    if counts := {match[1] for name in names if (match := SHARD.search(name))}:
        count = max(counts)
        shards = {f"{name}-{i:05}-of-{count}.tfrecords" for name in SPLITS for i in range(int(count))}
        if missing := sorted(shards - names):
            raise UserError(f"{folder} lacks {missing[0]}: run python prepare_tfrecords.py with --shards {int(count)}")
        if others := sorted(names - shards):
            raise UserError(f"{folder} holds {others[0]} beside the {int(count)} shards of other records: delete one")
    return paths


def read_records(paths, landmark_type=None):
    """Reads record files outside a graph: yields AnnotatedFace.

    paths: of the files, str or Path.
    landmark_type: one of LANDMARK_TYPES, or None for that of the first record.
    Raises UserError: a file is missing, empty or damaged, or holds records of another size or landmark type; the
        message names it.
    """
    for path in paths:
        count = 0
        try:
            for record in tf.io.tf_record_iterator(os.fsencode(path)):
                face = _parse(record, path)
                landmark_type = landmark_type or face.landmark_type
                if face.landmark_type != landmark_type:
                    raise UserError(
                        f"{path} holds {face.landmark_type} and a file beside it {landmark_type}: give each landmark"
                        " type a folder of its own (--out of prepare_tfrecords.py)"
                    )
                yield face
                count += 1
        except tf.errors.DataLossError:
            raise UserError(f"{path}: record {count} is damaged: {WRITE_AGAIN}") from None
        except tf.errors.OpError as error:
            reason = error.message.rpartition("; ")[2]  # PATH; REASON
            raise UserError(f"cannot read {path}: {reason}; prepare_tfrecords.py writes the records") from None
        except ValueError as error:
            raise UserError(f"{path}: record {count} {error}: {WRITE_AGAIN}") from None
        if not count:
            raise UserError(f"{path} is empty: {WRITE_AGAIN}")


def _parse(record, path):
    """The AnnotatedFace of a record of a file, or a ValueError that says what is wrong with it."""
    try:
        feature = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        raise ValueError("is damaged") from None
    image, name, photo = (b"".join(feature[key].bytes_list.value) for key in ("image", "name", "photo"))
    label, box = feature["label"].float_list.value, feature["box"].int64_list.value[:] or WHOLE_CROP
    if (len(image), len(label)) != (IMAGE_SIZE * IMAGE_SIZE * 3, 2 * LANDMARKS):
        raise ValueError(f"holds {len(image)} image bytes and {len(label)} label numbers")
    for key, form in FEATURES.items():  # read_batches cannot parse another number, or another type
        kind = feature[key].WhichOneof("kind")
        if kind and (kind, len(getattr(feature[key], kind).value)) != (LISTS[form.dtype], math.prod(form.shape)):
            raise ValueError(f"holds a {key} that is not {form.shape or 'one'} {form.dtype.name}")
    label = np.array(label, np.float32)
    if np.isinf(label).any() or np.isnan(label).all() or not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError("holds infinite points, no points or an empty crop")
    crop = np.frombuffer(image, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
    yaw = [*feature["yaw"].float_list.value, math.nan][0]
    kind = [*feature["kind"].bytes_list.value, LANDMARK_TYPES[0].encode()][0].decode(errors="replace")
    return AnnotatedFace(os.fsdecode(name) or str(path), crop, label, box, photo, yaw, kind)


def check_records(train_paths, test_paths):
    """Reads every record of some files, with a progress bar: their Manifest. Raises UserError as read_records does."""
    totals = _Totals()
    for face in tqdm(read_records(train_paths), "check train", unit="record", disable=None):
        totals.add(face)
    test = tqdm(read_records(test_paths, totals.landmark_type), "check test", unit="record", disable=None)
    return totals.manifest(sum(1 for _ in test), [*train_paths, *test_paths])


def read_manifest(folder):
    """The Manifest of the record files in a folder, from the records*.json beside them.

    If these are missing, or say other sizes, the records are read instead, and records.json is written. Raises
    UserError as find_record_files and read_records do, and if the shards come from different lists of faces.
    """
    paths = [find_record_files(folder, split) for split in SPLITS]
    sizes = {path.name: path.stat().st_size for files in paths for path in files}
    files = sorted(Path(folder).glob("records*.json"))
    known = [manifest for path in files if (manifest := _from_json(path)) and manifest.sizes.items() <= sizes.items()]
    if sum(len(manifest.sizes) for manifest in known) == len(sizes):
        return _merge(folder, known)
    manifest, path = check_records(*paths), Path(folder) / "records.json"
    if not path.exists() or "mean_face" in path.read_text(errors="replace"):  # else it is someone else's
        outputs = Outputs({path: None}, overwrite=True)  # so that the next preparation may replace it
        with outputs.write(path) as partial:
            partial.write_text(_to_json(manifest))
    return manifest


def _from_json(path):
    """The Manifest in a file, or None if it holds something else."""
    try:
        manifest = Manifest(**json.loads(path.read_text()))
        arrays = {"mean_face": np.array(manifest.mean_face, np.float64), "labelled": np.array(manifest.labelled, int)}
        return manifest._replace(**arrays)
    except (ValueError, TypeError):
        return None


def _merge(folder, manifests):
    """The Manifest of all shards, from that of each."""
    first, *others = manifests
    for other in others:
        if (other.fingerprint, other.landmark_type) != (first.fingerprint, first.landmark_type):
            names = " and ".join(min(manifest.sizes) for manifest in (first, other))
            raise UserError(f"{folder}: {names} come from different preparations: write all --shards again")
    if not others:
        return first
    train, labelled = sum(each.train for each in manifests), sum(each.labelled for each in manifests)
    return first._replace(
        train=train,
        test=sum(each.test for each in manifests),
        mean_face=_mean_face(sum(each.mean_face * each.labelled.repeat(2) for each in manifests), labelled),
        labelled=labelled,
        frontal=sum(each.frontal * each.train for each in manifests) / train,
        sizes={name: size for each in manifests for name, size in each.sizes.items()},
    )


def read_batches(paths, batch_size, seed=None, augment=None, frontal=None, start=0):
    """Batches of `batch_size` records of some files, read inside the graph.

    seed: if given, shuffles and repeats for ever; otherwise one pass in order. Either way records come from the
        files round-robin.
    augment: function of (number of the batch, images, labels, boxes, photos), as in augment_batch, that returns crops
        and labels.
    frontal: fraction of the shuffled records to be within FRONTAL degrees of yaw; None: as they come.
    start: number of the first batch.
    Returns: tf.data.Dataset of (crops float32 [N, 128, 128, 3] BGR 0..255, labels float32 [N, 136], NaN for a point
        without one, boxes int64 [N, 4], yaws float32 [N], degrees, NaN if unknown, 0 if not stored).
    """
    dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(path) for path in paths])
    dataset = dataset.interleave(tf.data.TFRecordDataset, READ_AT_ONCE)
    if frontal is not None:

        def is_frontal(record):
            yaw = tf.io.parse_single_example(record, {"yaw": FEATURES["yaw"]})["yaw"]
            # An unknown yaw (NaN) counts as frontal. not (yaw >= FRONTAL) would become yaw < FRONTAL in the optimizer.
            return tf.is_nan(yaw) | (yaw < FRONTAL)

        splits = [dataset.filter(is_frontal), dataset.filter(lambda record: not is_frontal(record))]
        splits = [split.shuffle(SHUFFLE, seed=seed).repeat() for split in splits]
        dataset = tf.data.Dataset.sample_from_datasets(splits, [frontal, 1 - frontal], seed)
    elif seed is not None:
        dataset = dataset.shuffle(SHUFFLE, seed=seed).repeat()

    def give_way(*batch):
        """Augments at the lowest priority, when the network leaves a core idle: training is 2% faster for it."""
        if sys.platform == "linux":  # where threads have priorities of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        return augment(*batch)

    def parse(number, records):
        names = "image", "label", "box", "photo", "yaw"
        parsed = tf.io.parse_example(records, {name: FEATURES[name] for name in names})
        image, labels, boxes = parsed["image"], parsed["label"], parsed["box"]
        if augment:
            inputs = [number, image, labels, boxes, parsed["photo"]]
            crops, labels = tf.numpy_function(give_way, inputs, [tf.uint8, tf.float32])
            labels = tf.ensure_shape(labels, [None, 2 * LANDMARKS])
        else:
            crops = tf.io.decode_raw(image, tf.uint8)
        crops = tf.reshape(crops, [-1, IMAGE_SIZE, IMAGE_SIZE, 3])
        return tf.cast(crops, tf.float32), labels, boxes, parsed["yaw"]

    # A batch a core at a time, as OpenCV releases Python's lock; their order stays.
    dataset = dataset.batch(batch_size).enumerate(start).map(parse, num_parallel_calls=CORES).prefetch(2)
    # There is nothing to tune, and at the end of a pass the tuner can keep us waiting for up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = CORES  # threads of its own, see give_way
    return dataset.with_options(options)
