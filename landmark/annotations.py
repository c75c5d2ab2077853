"""From a folder to its faces: their photos and landmarks, which of them are the same face, which are for testing."""

import contextlib
import functools
import hashlib
import itertools
import multiprocessing
import os
import re
import sys
from collections import Counter, deque, namedtuple
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from landmark.cli import CORES, UserError, defer_signals, follow_parent
from landmark.formats import FORMATS, find_annotated, rank_of, read_points, source_of
from landmark.pictures import decode_picture, read_picture
from landmark.points import JAW, LANDMARK_TYPES, OVERLAP, bounds, crop_box, crop_face, overlap, to_crop
from landmark.pose import estimate_pose, fit_mean_head, read_pose
from landmark.recipe import DEFAULT

REAL_SET = Path("data/300W_LP")
SAMPLE_SET = Path("data/sample")
TEST_SHARE = 0.1
MAX_CROP = 10  # times the photo: a larger crop would be black but for a corner, and fill the memory
MAX_OUTSIDE = 0.5  # of the crop's side: a point that leaves the photo further is not in the photo's pixels
MAX_BEYOND = 0.1  # of the sides of the box of the points that are there: see find_crop
ONE_FACE, LABELLED_TWICE = 0.5, 0.8  # for labels of equal rank, in place of OVERLAP: see _are_one_face
ROUNDED = 1  # pixel, by which the points of two labels may differ if one of them is in whole pixels
# The eight EXIF orientations, as functions of a picture.
ORIENTATIONS = [lambda picture, k=k: np.rot90(picture, k) for k in range(4)]
ORIENTATIONS += [lambda picture, k=k: np.rot90(picture[:, ::-1], k) for k in range(4)]
VARIANT = re.compile(r"_\d+$")
DERIVED = re.compile("(_(Flip|turned))+$")  # the ending of a set of mirrors, or of data/turn_faces.py's
TURNED = re.compile(r"(#\d+)?_\d+$")  # a variant in a set of data/turn_faces.py, also of a photo's further faces
STORED_CROP = 160  # pixels: a side of the crop in the photo that a record keeps
# Augmentation hardly ever goes further: half a side of the crop with its jitter, in sides; the largest turn, radians.
REACH, TURN = 0.67, np.deg2rad(3 * DEFAULT.rotation_std)
CHUNK = 16  # faces a worker takes at a time
CHUNKS_AHEAD = 64  # read before they are written: 70 MB

# name: <SET>/<stem>; crop: uint8 [128, 128, 3]; label: float32 [136], NaN for a point without one; box: (x_min, y_min,
# x_max, y_max), ints, in pixels of the photo; photo: the bytes of a picture file, or empty; yaw: float, degrees, 0 or
# more, NaN if unknown; landmark_type: one of LANDMARK_TYPES.
AnnotatedFace = namedtuple("AnnotatedFace", "name crop label box photo yaw landmark_type")


# The faces, and the split


def find_annotations(folders):
    """The annotated faces of folders (Paths), in all of formats.FORMATS that they hold; prints how many in which.

    A photo that is reached twice is one photo, and two labels of one face are one face: see merge_labels.
    Returns: list of Annotation, in an order that looks random but depends on their names alone, so that neighbours in a
        record file are not the same face or set.
    Raises UserError: a folder is missing or holds no faces, or two labels of a face differ; the message names it.
    """
    found = {}  # by folder and format
    roots = {Path(folder).resolve(): folder for folder in folders}
    for path, folder in roots.items():
        if not path.is_dir():
            raise UserError(f"no data in {folder}: see data/README.md, or run python data/make_sample.py")
        if any(not re.search(r"/\.", str(path)[len(str(root)) :]) for root in roots.keys() & {*path.parents}):
            print(f"{folder} is inside another --data folder and is read with it")
            continue
        sets = find_annotated(path)
        if not sets:
            raise UserError(
                f"no faces in {folder}: it holds none of {', '.join(FORMATS)} (see data/README.md); files that"
                " scripts of this project wrote there are ignored"
            )
        found |= {(folder, name): annotations for name, annotations in sets.items()}
    merged = merge_labels([annotation for annotations in found.values() for annotation in annotations])
    kept = {id(annotation) for annotation in merged}
    for (folder, name), annotations in found.items():
        if some := [annotation for annotation in annotations if id(annotation) in kept]:
            types = " and ".join(kind.removeprefix("pts_").upper() for kind in sorted(types_of(some)))
            print(f"{len(some):,} faces in {folder}: {name}, {types or 'no readable'} points")
    return sorted(name_faces(merged), key=lambda annotation: _hash(annotation.name))


def types_of(annotations):
    """The landmark types, set of LANDMARK_TYPES, of the first readable face of each folder."""
    types = {}
    for annotation in annotations:
        if annotation.photo.parent not in types:
            with contextlib.suppress(UserError):
                types[annotation.photo.parent] = read_points(annotation).keys()
    return set().union(*types.values())


def merge_labels(annotations):
    """One Annotation for each face, where several files label it.

    points.csv wins over the other formats, because people correct labels there, and these win over 3DMM fits
    (Format.rank); corrections are printed. Copies of the same points count once.
    Raises UserError: two files of equal rank place different points on a face, that is, their boxes overlap.
    """
    photos, replaced, twice = {}, Counter(), []
    real, find_turn = functools.cache(os.path.realpath), functools.lru_cache(1)(_find_turn)
    for annotation in annotations:
        path = os.path.join(real(annotation.photo.parent), annotation.photo.name)
        photos.setdefault(real(path) if os.path.islink(path) else path, []).append(annotation)
    merged = []
    for some in photos.values():
        if len(some) == 1 or not some[0].photo.exists():  # their points need not be read
            merged += some
            continue
        labels, kept = {}, []
        for annotation in sorted(some, key=rank_of):
            points = _points_of(annotation, find_turn)
            copies = id(annotation) if points is None else (rank_of(annotation), str((points.round(2) + 0.0).tolist()))
            labels.setdefault(copies, (annotation, points))
        for label in labels.values():
            winner = next((other[0] for other in kept if _are_one_face(label, other)), None)
            if not winner:
                kept.append(label)
            elif rank_of(label[0]) > rank_of(winner) == 0:
                replaced[label[0].format, winner.format] += 1
        merged += [annotation for annotation, _ in kept]
        twice += [pair for pair in itertools.combinations(kept, 2) if _are_twice_in_a_list(*pair)]
    for (loser, winner), count in replaced.items():
        print(f"{count:,} faces of {loser} are corrected in {winner}, and taken from there")
    if twice:
        first, second = (source_of(annotation) for annotation, _ in twice[0])
        print(f"{len(twice):,} faces seem to be twice in one list: {first} and {second}, in {twice[0][0][0].photo}")
    return merged


def _are_twice_in_a_list(label, other):
    """Whether two labels of a photo that are in one list overlap by so much that they may be of one face."""
    (annotation, points), (other, others) = label, other
    is_one_list = annotation.points.path == other.points.path and points is not None and others is not None
    return is_one_list and overlap(bounds(points), bounds(others)) > LABELLED_TWICE


def _are_one_face(label, other):
    """Whether two labels of a photo, (Annotation, see _points_of) each, the second ranking no lower, are of one face.

    Raises UserError: they are of equal rank, in two files.
    """
    (annotation, points), (other, others) = label, other
    is_equal = rank_of(annotation) == rank_of(other)
    if rank_of(annotation) > 1 and not is_equal:
        return others is not None  # a photo with a 3DMM fit shows one face
    if points is None or others is None or is_equal and annotation.points.path == other.points.path:
        return False  # or two faces close to each other in one list
    if overlap(bounds(points), bounds(others)) <= (ONE_FACE if is_equal else OVERLAP):  # a correction may be large
        return False
    rounded = any(np.array_equal(each, np.round(each), equal_nan=True) for each in (points, others))
    if is_equal and not (rounded and np.allclose(points, others, 0, ROUNDED, equal_nan=True)):
        raise UserError(
            f"{source_of(annotation)} and {source_of(other)} place different points on one face of {annotation.photo}:"
            " delete one of them"
        )
    return True


def _points_of(annotation, find_turn):
    """The points of a face, float64 [68, 2], in stored pixels of its photo, or None if they cannot be read."""
    with contextlib.suppress(UserError):
        points = next(iter(read_points(annotation).values()))
        if _read_photo(annotation)[2] if any(annotation.points.size) else annotation.points.upright:
            origin, axes = find_turn(annotation.photo)
            points = (points - origin) @ axes  # of unit length, at right angles: the inverse is the transpose
        return points


def name_faces(annotations):
    """Gives each Annotation its name: <SET>/<stem> of its photo, and #1, #2, ... for further faces of the photo.

    Photos that would have one name get more of their path, and their suffix where that alone differs.
    """
    photos = {}
    for annotation in annotations:
        photos.setdefault(annotation.photo, []).append(annotation)
    names = {photo: f"{photo.parent.name}/{photo.stem}" for photo in photos}
    for parts in itertools.count(3):
        counts = Counter(names.values())
        alike = [photo for photo, name in names.items() if counts[name] > 1]
        if not alike:
            break
        stems = Counter(photo.with_suffix("") for photo in alike)
        for photo in alike:
            path = photo if stems[photo.with_suffix("")] > 1 else photo.with_suffix("")
            names[photo] = "/".join(path.parts[-parts:])
    return [
        face._replace(name=f"{names[photo]}#{i}" if i else names[photo])
        for photo, faces in photos.items()
        for i, face in enumerate(faces)
    ]


def split_faces(annotations):
    """Chooses the faces for testing: list of bool, True for a tenth of the faces, at least one, by their names' hash.

    All pose variants of a face, its mirror, and all faces of a photo stay together.
    """
    faces = identity_keys(annotations)
    ordered = sorted(set(faces), key=lambda face: (_hash(face[1]), face))
    test = set(ordered[: max(1, round(TEST_SHARE * len(ordered)))])
    return [face in test for face in faces]


def split_shards(is_test, shards):
    """Splits faces into shards: for each of a number of shards, a list of positions in is_test (see split_faces).

    The faces of each split are dealt round-robin, so that reading one record of each shard in turn gives the order of
    a single file.
    """
    splits = [[i for i, test in enumerate(is_test) if test == split] for split in (False, True)]
    return [sorted(i for split in splits for i in split[shard::shards]) for shard in range(shards)]


def identity_keys(annotations):
    """Identity key of each annotation: the same for all pose variants, mirrors and faces of one photo.

    In a set with variants, one or two digits after the last `_` are a variant's number; except where all stems of a set
    differ in that number alone, or where the numbers reach three digits: those are different faces. In a set that
    data/turn_faces.py wrote, they always are a variant's.

    Returns: list of (set, stem without the variant's number).
    """
    faces, families = [], {}
    names = [photo_name(annotation).rpartition("/") for annotation in annotations]
    with_variants = {
        group for (group, *_), each in zip(names, annotations, strict=True) if FORMATS[each.format].variants
    }
    for group, _, stem in names:
        if is_turned := group in with_variants and group.endswith("_turned"):
            stem = TURNED.sub("", stem)
        stem = stem.removesuffix("_mirror")  # as dlib names them
        family = VARIANT.sub("", stem) if group in with_variants and not is_turned else stem
        faces.append((group, stem, family))
        families.setdefault(group, set()).add(family)
    numbered = {(group, family) for group, stem, family in faces if len(stem) > len(family) + len("_00")}
    numbered |= {(group, *only) for group, only in families.items() if len(only) == 1}
    return [(DERIVED.sub("", group), stem if (group, family) in numbered else family) for group, stem, family in faces]


def photo_name(annotation):
    """The name of an Annotation's photo: its own, without the #1, #2, ... of a further face."""
    name, photo = annotation.name, annotation.photo
    return name if name.endswith((f"/{photo.stem}", f"/{photo.name}")) else name.rpartition("#")[0]


def _hash(text):
    return hashlib.md5(os.fsencode(text)).hexdigest()


# Reading a face


def read_labels(annotation):
    """Reads a face's photo and points, in the same pixels: upright ones, or as they are stored, see Row.

    Returns: (photo uint8 [H, W, 3], BGR; the bytes of a picture file that holds these pixels as stored; dict of a
        landmark type to float64 [68, 2], x and y in them, NaN for a point without a label).
    Raises UserError: the points or the photo cannot be read, or do not belong together; the message names the file.
    """
    source = source_of(annotation)
    try:
        known = read_points(annotation)
        source = annotation.photo
        photo, data, upright = _read_photo(annotation)
        if upright and not np.array_equal(photo, decode_picture(data, stored=True)):
            data = _to_jpeg(photo)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return photo, data, known


def _read_photo(annotation):
    """The photo in whose pixels the points of a face are: (uint8 [H, W, 3], BGR; its file's bytes; whether upright)."""
    row, sizes = annotation.points, []
    for upright in row.upright, not row.upright:
        photo, data = read_picture(annotation.photo, stored=not upright)
        sizes.append(photo.shape[1::-1])
        if all(said in (None, size) for said, size in zip(row.size, sizes[-1], strict=True)):
            return photo, data, upright
    (width, height), said = sizes[0], "x".join(f"{side:g}" if side else "?" for side in row.size)
    raise UserError(f"{width}x{height} pixels, but {source_of(annotation)} says {said}")


def _find_turn(path):
    """How OpenCV turns a photo upright: (x and y where its first pixel then is; its x and y axes there, in columns)."""
    upright, photo = (read_picture(path, stored=stored)[0] for stored in (False, True))
    for turn in ORIENTATIONS:
        if np.array_equal(turn(photo), upright):
            corners = turn(np.arange(4).reshape(2, 2))
            first, right, down = (np.argwhere(corners == i)[0][::-1] for i in range(3))
            return first * np.subtract(upright.shape[1::-1], 1), np.stack([right - first, down - first], 1)
    raise UserError("its EXIF orientation is not one of the eight")


def read_face(annotation, landmark_type=LANDMARK_TYPES[0]):
    """Reads and crops one face: AnnotatedFace.

    landmark_type: one of LANDMARK_TYPES. A face that has only the other type gets labels for the points that both types
        share, all but the jaw (in 300W_LP's IBUG the two jaws are 7% of the box apart even below 30 degrees of yaw, the
        others equal).
    Raises UserError: the face cannot be used; the message names the file and the reason.
    """
    photo, data, known = read_labels(annotation)
    points = known.get(landmark_type, next(iter(known.values())))
    try:
        box = x_min, y_min, x_max, y_max = find_crop(points)
        height, width = photo.shape[:2]
        if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
            raise UserError(f"crop {box} lies wholly outside the photo of {width}x{height}")
        outside = np.nan_to_num(np.maximum(-points, points - (width, height)) / (x_max - x_min, y_max - y_min))
        if outside.max() > MAX_OUTSIDE:
            raise UserError(f"point {outside.max(1).argmax()} lies far outside the photo of {width}x{height}")
        if (x_max - x_min) * (y_max - y_min) > MAX_CROP * width * height:
            raise UserError(f"crop {box} is over {MAX_CROP} times as large as the photo of {width}x{height}")
    except UserError as error:
        raise UserError(f"{source_of(annotation)}: {error}") from None
    label = to_crop(points, box).astype(np.float32)
    if landmark_type not in known:
        label[JAW] = np.nan
    pose = read_pose(annotation.photo.with_suffix(".mat"))
    yaw = abs(estimate_pose(points).yaw if np.isnan(pose.yaw) else pose.yaw)
    fitted = _fit_photo(photo, data, box)
    return AnnotatedFace(annotation.name, crop_face(photo, box), label.ravel(), *fitted, yaw, landmark_type)


def read_usable(annotations):
    """Reads the faces, an iterable of Annotation, that can be used; reports the others.

    Yields: (position in annotations; photo uint8 [H, W, 3], BGR; points float64 [68, 2] in its pixels, of the first
        landmark type that is known; their find_crop).
    """
    for i, annotation in enumerate(annotations):
        try:
            photo, _, known = read_labels(annotation)
            points = next(iter(known.values()))
            crop = find_crop(points)
        except UserError as error:
            tqdm.write(f"{annotation.name}: {error}; left out", file=sys.stderr)
            continue
        yield i, photo, points, crop


def find_crop(points):
    """The crop_box of points, [68, 2], some of which may be missing (NaN).

    The mean head is fitted to those that are there (least squares, weak perspective). The crop is known if it puts the
    missing ones into the box of the others, or outside it by no more than MAX_BEYOND of its sides.
    Raises UserError: the crop is not known, or empty.
    """
    missing = np.isnan(points).any(1)
    there = points[~missing]
    if missing.any() and np.ptp(there, axis=0).all():
        fitted = fit_mean_head(points)[1][missing]
        beyond = np.maximum(there.min(0) - fitted, fitted - there.max(0)) / np.ptp(there, axis=0)
        if (beyond > MAX_BEYOND).any():
            lost = np.flatnonzero(missing)[(beyond > MAX_BEYOND).any(1)].tolist()
            raise UserError(f"the crop is undetermined without points {', '.join(map(str, lost))}")
    box = crop_box(there)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise UserError("the points span no area: they coincide, or lie on one line")
    return box


def _fit_photo(photo, data, box):
    """What a record keeps of a photo: (the box in it, the bytes of a picture file).

    The photo is cut to what augmentation can reach, and scaled so that the box has at most STORED_CROP pixels a side,
    in whole pixels, and the label stays the same. A file that is smaller than the result is kept as it is.
    """
    low, high = np.reshape(box, [2, 2])
    sides = high - low
    reach = np.ceil(REACH * (np.cos(TURN) * sides + np.sin(TURN) * sides[::-1])).astype(int)
    start = np.maximum(0, (low + high) // 2 - reach)
    end = np.minimum(photo.shape[1::-1], (low + high) // 2 + reach)
    scale = min(1, STORED_CROP / sides.max())
    stored = np.maximum(1, np.round(scale * sides))
    matrix, shift = np.diag(stored / sides), np.ceil(scale * (low - start))  # of the box in the stored photo
    # cv2.resize, which cuts the crops, has pixel centres at halves.
    offset = matrix @ (start + 0.5 - low) - 0.5 + shift
    photo = photo[start[1] : end[1], start[0] : end[0]]
    smooth = cv2.GaussianBlur(photo, (0, 0), 0.4 / scale) if scale < 0.6 else photo
    size = (shift + np.ceil(scale * (end - low))).astype(int).tolist()
    picture = cv2.warpAffine(smooth, np.column_stack([matrix, offset]), size, flags=cv2.INTER_LINEAR)
    kept = _to_jpeg(picture)
    if len(data) <= len(kept):
        return box, data
    return tuple(int(side) for side in (*shift, *(shift + stored))), kept


def _to_jpeg(picture):
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _read_chunk(annotations, landmark_type):
    faces = []
    for annotation in annotations:
        try:
            faces.append(read_face(annotation, landmark_type))
        except UserError as error:
            faces.append(str(error))
    return faces


def read_faces(annotations, landmark_type=LANDMARK_TYPES[0], workers=CORES, ahead=CHUNKS_AHEAD):
    """Yields for each annotation, in order, what read_face returns, or the message of its UserError.

    Reads in `workers` processes, at most `ahead` chunks of 16 faces in advance, however long the list.
    """
    # Each core has a worker; and a fork does not copy OpenCV's threads, for which a worker would wait for ever.
    cv2.setNumThreads(1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), follow_parent) as pool:
        pending = deque()
        try:
            for start in range(0, len(annotations), CHUNK):
                with defer_signals():  # the first call starts the workers, which must not handle a signal as we do
                    pending.append(pool.submit(_read_chunk, annotations[start : start + CHUNK], landmark_type))
                if len(pending) > ahead:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
