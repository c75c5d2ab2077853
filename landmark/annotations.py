"""From a folder to its faces: where their photos and landmarks are, who is who, who is for testing."""

import contextlib
import hashlib
import math
import os
import re
from collections import deque, namedtuple
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from landmark.ending import follow_parent, held
from landmark.files import read_picture
from landmark.formats import FORMATS, KINDS, read_points, recognise, source_of
from landmark.points import JAW, crop_box, crop_face, to_crop
from landmark.pose import read_yaw

REAL_SET = Path("data/300W_LP")
SAMPLE_SET = Path("data/sample")
TEST_SHARE = 0.1
MAX_CROP = 10  # times the photo: a larger crop would be black but for a corner, and fill the memory
MOST_OUTSIDE = 0.5  # of the crop's side: a point that leaves the photo further is not in the photo's pixels
VARIANT = re.compile(r"_\d+$")
MADE_OF = re.compile("_(Flip|turned)$")  # a set of mirrors; data/turn_faces.py's
STORED_SIDE = 450  # pixels: the photos of 300W_LP
REACH = 0.8  # times the diagonal of a crop, from its centre
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has it not
CHUNK = 16  # faces a worker takes at a time
CHUNKS_AHEAD = 64  # read before they are written, 90 MB: what two cores read while TensorFlow loads

# name: <SET>/<stem>; crop: uint8 [128, 128, 3]; label: float32 [136], NaN for a point without one; box: (x_min, y_min,
# x_max, y_max), ints, in pixels of the photo; photo: the bytes of a picture file, empty where there is none; yaw:
# float, degrees, 0 or more; NaN in records that do not hold it; kind: of the points, of formats.KINDS.
LabelledFace = namedtuple("LabelledFace", "name crop label box photo yaw kind")


# Where the faces are, and on which side


def find_annotations(folders):
    """The faces of folders, each in one of formats.FORMATS.

    Args:
        folders: Paths; one named twice is taken once.

    Returns:
        list of Annotation, in an order that looks random but depends on their names alone, so that neighbours in a
        record file are not the same face or set.

    Raises:
        ValueError: one is no folder or holds no faces; the message names it.
    """
    found = []
    for path, folder in {Path(folder).resolve(): folder for folder in folders}.items():
        if not path.is_dir():
            raise ValueError(
                f"no data in {folder}: put the photos there as data/README.md says, or render some with"
                " python data/make_sample.py"
            )
        name, annotations = recognise(path)
        if not annotations:
            raise ValueError(f"no faces in {folder}: it holds none of {', '.join(FORMATS)} (see data/README.md)")
        print(f"{len(annotations):,} faces in {folder}: {name}, {_say_kinds(annotations)} points")
        found += annotations
    return sorted(found, key=lambda annotation: _hash(annotation.name))


def _say_kinds(annotations):
    """The kinds of points of a face of each set, for the screen."""
    kinds = set()
    for annotation in {annotation.name.partition("/")[0]: annotation for annotation in annotations}.values():
        with contextlib.suppress(ValueError):
            kinds |= read_points(annotation).keys()
    return " and ".join(kind.removeprefix("pts_").upper() for kind in sorted(kinds)) or "no readable"


def split_faces(annotations):
    """Which faces are for testing.

    All pose variants of a face, its mirror, and all faces of a photo fall on one side.

    Args:
        annotations: list of Annotation.

    Returns:
        list of bool, True for test: a tenth of the faces, at least one, by the hash of their names.
    """
    faces = identify(annotations)
    ordered = sorted(set(faces), key=lambda face: (_hash(face[1]), face))
    test = set(ordered[: max(1, round(TEST_SHARE * len(ordered)))])
    return [face in test for face in faces]


def deal(is_test, shards):
    """Which faces go into which shard: those of either side are dealt out in turn, so that the shards, read in turn,
    give the faces in the order of one file.

    Args:
        is_test: list of bool, of split_faces.
        shards: number of shards.

    Returns:
        for each shard a list of positions in is_test.
    """
    sides = [[i for i, test in enumerate(is_test) if test == side] for side in (False, True)]
    return [sorted(i for side in sides for i in side[shard::shards]) for shard in range(shards)]


def identify(annotations):
    """Whose face each is.

    In a format with variants their number is one or two digits after the last `_`; but not where a whole set has the
    same stem but for it, or where the numbers go on to three digits: those are numbered faces.

    Args:
        annotations: list of all Annotations.

    Returns:
        list of (set, stem without the number of a variant), the same for all faces of a photo and for its mirror.
    """
    faces, families = [], {}
    for annotation in annotations:
        group, _, stem = annotation.name.partition("#")[0].rpartition("/")
        stem = stem.removesuffix("_mirror")  # as dlib names them
        family = VARIANT.sub("", stem) if FORMATS[annotation.format].variants else stem
        faces.append((group, stem, family))
        families.setdefault(group, set()).add(family)
    numbered = {(group, family) for group, stem, family in faces if len(stem) > len(family) + len("_00")}
    numbered |= {(group, *only) for group, only in families.items() if len(only) == 1}
    return [(MADE_OF.sub("", group), stem if (group, family) in numbered else family) for group, stem, family in faces]


def _hash(text):
    return hashlib.md5(os.fsencode(text)).hexdigest()


# Reading a face


def read_face(annotation, kind=KINDS[0]):
    """Reads and crops one face.

    Args:
        annotation: Annotation.
        kind: of formats.KINDS. Of a face with the other kind alone, the points that both share have labels: all but the
            jaw (in 300W_LP's IBUG the two jaws are 7% of the box apart even below 30 degrees of yaw, the others equal).

    Returns:
        LabelledFace.

    Raises:
        ValueError: the face cannot be used; the message names the file and the reason.
    """
    source = source_of(annotation)
    try:
        known = read_points(annotation)
        points = known.get(kind, next(iter(known.values())))
        box = x_min, y_min, x_max, y_max = crop_box(points)
        if x_min >= x_max or y_min >= y_max:
            raise ValueError("the points span no area: all alike, or on one line")
        source = annotation.photo
        photo, data = read_picture(source, stored=True)
        height, width = photo.shape[:2]
        if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
            raise ValueError(f"crop {box} lies wholly outside the photo of {width}x{height}")
        outside = np.maximum(-points, points - (width, height)) / (x_max - x_min, y_max - y_min)
        if outside.max() > MOST_OUTSIDE:
            raise ValueError(f"point {outside.max(1).argmax()} lies far outside the photo of {width}x{height}")
        if (x_max - x_min) * (y_max - y_min) > MAX_CROP * width * height:
            raise ValueError(f"crop {box} is over {MAX_CROP} times as large as the photo of {width}x{height}")
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    label = to_crop(points, box).astype(np.float32)
    if kind not in known:
        label[JAW] = np.nan
    crop, yaw = crop_face(photo, box), abs(read_yaw(annotation.photo.with_suffix(".mat"), points))
    return LabelledFace(annotation.name, crop, label.ravel(), *_fit_photo(photo, data, box), yaw, kind)


def _fit_photo(photo, data, box):
    """What a record keeps of a photo: a box in it, and its file.

    A photo larger than 300W_LP's is cut to what augmentation can reach of it, and scaled; the sides of the box are then
    whole pixels too, so that the label stays what it is.
    """
    if max(photo.shape[:2]) <= STORED_SIDE:
        return box, data
    low, high = np.reshape(box, [2, 2])
    sides = high - low
    # A corner of the crop is half a diagonal away; turned, and each side moved by up to 3 * 5%, it reaches further.
    reach = math.ceil(REACH * math.hypot(*sides))
    scale = min(1, STORED_SIDE / (2 * reach))
    stored = np.maximum(1, np.round(scale * sides))
    matrix = np.diag(stored / sides)
    shift = np.round(scale * (reach - sides / 2))  # of the box in the stored photo
    size = round(2 * reach * scale)
    # cv2.resize, which cuts the crops of contract 2, has pixel centres at halves.
    corner, far = np.maximum(0, (low + high) // 2 - 2 * reach), (low + high) // 2 + 2 * reach
    photo = photo[corner[1] : far[1], corner[0] : far[0]]  # smoothing all of it would take longer than reading it
    offset = matrix @ (corner + 0.5 - low) - 0.5 + shift
    smooth = cv2.GaussianBlur(photo, (0, 0), 0.4 / scale) if scale < 0.6 else photo
    picture = cv2.warpAffine(smooth, np.column_stack([matrix, offset]), (size, size), flags=cv2.INTER_LINEAR)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    return tuple(int(side) for side in (*shift, *(shift + stored))), data


def _read_chunk(annotations, kind):
    faces = []
    for annotation in annotations:
        try:
            faces.append(read_face(annotation, kind))
        except ValueError as error:
            faces.append(str(error))
    return faces


def read_faces(annotations, kind=KINDS[0], workers=CORES, ahead=CHUNKS_AHEAD):
    """Reads many faces in some processes; the chunks under way are few, however long the list.

    Args:
        annotations: list of Annotation.
        kind: as of read_face.
        workers: number of processes.
        ahead: chunks of 16 faces that are read before they are asked for.

    Yields:
        for each, in order, what read_face returns, or the message of its ValueError.
    """
    # There is a worker for each core; and a fork does not copy OpenCV's threads: a worker would wait for them for ever.
    cv2.setNumThreads(1)
    with ProcessPoolExecutor(workers, initializer=follow_parent) as pool:
        pending = deque()
        try:
            for start in range(0, len(annotations), CHUNK):
                with held():  # the first call starts the workers, which are not to take a signal for theirs
                    pending.append(pool.submit(_read_chunk, annotations[start : start + CHUNK], kind))
                if len(pending) > ahead:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
