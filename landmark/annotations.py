"""From a folder to its faces: where their photos and landmarks are, who is who, who is for testing."""

import hashlib
import os
import signal
from collections import deque, namedtuple
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from landmark.files import read_picture
from landmark.points import LANDMARKS, crop_box, crop_face, to_crop

REAL_SET = Path("data/300W_LP")
SAMPLE_SET = Path("data/sample")
TEST_SHARE = 0.1
MAX_CROP = 10  # a crop this many times its photo's side has points that are not in the photo's pixels
CORES = len(os.sched_getaffinity(0))
CHUNK = 16  # faces a worker takes at a time
CHUNKS_AHEAD = 64  # read before they are written, 90 MB: what two cores read while TensorFlow loads

# One face of a data set. name: <SET>/<stem>; points: Path of the file of its landmarks; photo: Path.
Annotation = namedtuple("Annotation", "name points photo")

# name: <SET>/<stem>; crop: uint8 [128, 128, 3]; label: float32 [136]; box: (x_min, y_min, x_max, y_max), ints, in
# pixels of the photo; photo: the bytes of its file, empty where there is none.
LabelledFace = namedtuple("LabelledFace", "name crop label box photo")


# Where the faces are, and on which side


def find_annotations(folders):
    """The faces of folders in the layout of contract 1.

    Args:
        folders: Paths; one named twice is taken once.

    Returns:
        list of Annotation, in an order that looks random but depends on their names alone, so that neighbours in a
        record file are not the same face or set; empty where there are none.
    """
    folders = dict.fromkeys(Path(folder).resolve() for folder in folders)
    found = [_annotation(path) for folder in folders for path in sorted(folder.glob("landmarks/*/*_pts.mat"))]
    return sorted(found, key=lambda annotation: _hash(annotation.name))


def _annotation(points):
    """DIR/landmarks/<SET>/<stem>_pts.mat, whose photo is DIR/<SET>/<stem>.jpg."""
    group, stem = points.parent.name, points.name.removesuffix("_pts.mat")
    return Annotation(f"{group}/{stem}", points, points.parents[2] / group / f"{stem}.jpg")


def split_faces(names):
    """Which records are for testing.

    All pose variants of a face and its mirror fall on one side: a face is the stem less its last number.

    Args:
        names: `<SET>/<stem>` of each record.

    Returns:
        list of bool, True for test: a tenth of the faces, at least one, by the hash of their names.
    """
    faces = [name.rpartition("/")[2].rpartition("_")[0] for name in names]
    ordered = sorted(set(faces), key=_hash)
    test = set(ordered[: max(1, round(TEST_SHARE * len(ordered)))])
    return [face in test for face in faces]


def _hash(text):
    return hashlib.md5(text.encode()).hexdigest()


# Reading a face


def read_points(path):
    """Reads `pts_2d` of a landmarks file: float64 [68, 2], x and y in pixels of the photo.

    Raises:
        ValueError: the file is no MAT file, or its points are missing, of another shape or not finite.
    """
    try:
        mat = scipy.io.loadmat(path, variable_names=["pts_2d"])
    except Exception as error:  # scipy raises a dozen types for a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"not a readable MAT file: {reason}") from None
    if "pts_2d" not in mat:
        raise ValueError("no pts_2d in the MAT file")
    points = mat["pts_2d"]
    if points.shape != (LANDMARKS, 2) or points.dtype.kind not in "fiu":
        raise ValueError(f"pts_2d is {points.dtype} {list(points.shape)}, not numbers [{LANDMARKS}, 2]")
    if not np.isfinite(points).all():
        raise ValueError("pts_2d holds NaN or infinite points")
    return points.astype(np.float64)


def read_face(annotation):
    """Reads and crops one face.

    Args:
        annotation: Annotation.

    Returns:
        LabelledFace.

    Raises:
        ValueError: the face cannot be used; the message names the file and the reason.
    """
    path = annotation.points
    try:
        points = read_points(path)
        box = x_min, y_min, x_max, y_max = crop_box(points)
        if x_min >= x_max or y_min >= y_max:
            raise ValueError("the points span no area: all alike, or on one line")
        path = annotation.photo
        photo, data = read_picture(path)
        height, width = photo.shape[:2]
        if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
            raise ValueError(f"crop {box} lies wholly outside the photo of {width}x{height}")
        if x_max - x_min > MAX_CROP * width or y_max - y_min > MAX_CROP * height:
            raise ValueError(f"crop {box} is over {MAX_CROP} times the photo of {width}x{height}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    label = to_crop(points, box).astype(np.float32).ravel()
    return LabelledFace(annotation.name, crop_face(photo, box), label, box, data)


def _work_quietly():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells us to stop


def _read_chunk(annotations):
    faces = []
    for annotation in annotations:
        try:
            faces.append(read_face(annotation))
        except ValueError as error:
            faces.append(str(error))
    return faces


def read_faces(annotations, workers=CORES, ahead=CHUNKS_AHEAD):
    """Reads many faces in some processes; the chunks under way are few, however long the list.

    Args:
        annotations: list of Annotation.
        workers: number of processes.
        ahead: chunks of 16 faces that are read before they are asked for.

    Yields:
        for each, in order, what read_face returns, or the message of its ValueError.
    """
    # There is a worker for each core; and a fork does not copy OpenCV's threads: a worker would wait for them for ever.
    cv2.setNumThreads(1)
    with ProcessPoolExecutor(workers, initializer=_work_quietly) as pool:
        pending = deque()
        try:
            for start in range(0, len(annotations), CHUNK):
                pending.append(pool.submit(_read_chunk, annotations[start : start + CHUNK]))
                if len(pending) > ahead:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
