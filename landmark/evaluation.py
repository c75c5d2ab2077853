"""Faces with known points, and how far a network's points are from them: by set, pose, expression and part."""

import contextlib
import heapq
import itertools
import sys
import time
from collections import namedtuple

import cv2
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from landmark.annotations import CORES, find_annotations, read_faces
from landmark.files import decode_picture, read_picture
from landmark.find import bounds, detect_faces, match_box, predict
from landmark.formats import read_points
from landmark.points import (
    BOX_LIMIT,
    IMAGE_SIZE,
    LANDMARKS,
    LIMIT,
    NME,
    PARTS,
    crop_box,
    crop_face,
    face_sizes,
    measure_faces,
    nme,
    to_crop,
    to_photo,
)
from landmark.pose import YAWS, estimate_pose, read_pose
from landmark.records import read_files

BATCH = 32
WORST = 25
SHAKES, SHAKE = 5, 0.05  # draws a face; standard deviation of each side of the box, in sides of the crop
# Gaps over the length of the nose. In ../shared the lids of half the faces are within 1% of 15.5% apart at any yaw;
# 2% of the faces are under CLOSED, and one in eight over OPEN.
CLOSED, OPEN = 0.06, 0.35
PROTOCOL = (
    "Protocol: crops of landmark/README.md 2 from the true points; errors in pixels of the photo over |p36 - p45|"
    f" (inter-ocular) or sqrt(w h) of the points' box; failure above, AUC up to {LIMIT:.0%} inter-ocular and"
    f" {BOX_LIMIT:.0%} box; nme_inner: points 17 to 67 over the box; yaw: Pose_Para of the MAT file, else estimated"
    " from the true points; pose: Pose_Para, against the pose estimated from the predicted points;"
    f" eyes closed, mouth open: lids, or lips, less than {CLOSED:.0%}, or more than {OPEN:.0%}, of"
    f" |p27 - p33| apart; shaken: each side of the crop moved by a normal draw of {SHAKE:.0%} of its length, {SHAKES}"
    " draws a face, seed 0."
)

# names: list of <SET>/<stem>; points: float64 [N, 68, 2] in pixels of the photo; boxes: int64 [N, 4], x_min y_min x_max
# y_max; yaws: float64 [N], degrees, 0 or more; kind: of the points, of formats.KINDS; read: function that yields their
# LabelledFaces once more, so that no picture stays in memory; annotations: list of Annotation, None for records.
Faces = namedtuple("Faces", "names points boxes yaws kind read annotations")

# What one network does. points: float64 [N, 68, 2] in pixels of the photo; errors: NME; shaken: NME of N * SHAKES
# crops; worst: list of (error, number, crop uint8 [128, 128, 3], its points), worst by the box first.
Prediction = namedtuple("Prediction", "points errors shaken worst")


# Faces


def find_folders(folders, kind):
    """The Faces of folders of annotated photos; one that cannot be used is reported and left out.

    Args:
        folders: Paths.
        kind: of the points, as of annotations.read_face.

    Raises:
        ValueError: none can be used.
    """
    annotations = find_annotations(folders)

    def read():
        with contextlib.closing(read_faces(annotations, kind, ahead=CORES)) as faces:
            yield from faces

    return _gather(read, folders, annotations)


def find_records(paths, skip_damaged=False):
    """The Faces of record files.

    Args:
        paths: of the files.
        skip_damaged: whether damaged records are reported and left out; else they are an error.

    Raises:
        ValueError: a file is missing, damaged or empty, or its points are not of the others' kind.
    """
    damaged = [] if skip_damaged else None
    faces = _gather(lambda: read_files(paths, damaged=damaged), paths)
    if damaged:
        print(f"{len(damaged)} damaged records are left out, the first of them {damaged[0]}", file=sys.stderr)
    return faces


def _gather(read, sources, annotations=None):
    rows, usable = [], []
    for i, face in enumerate(tqdm(read(), "read", unit="face", disable=None)):
        if isinstance(face, str):
            print(f"{face}; left out", file=sys.stderr)
        else:
            rows.append((face.name, face.label, face.box, face.yaw, face.kind))
            usable.append(i)
    if not rows:
        raise ValueError(f"no face in {', '.join(map(str, sources))}")
    names, labels, boxes, yaws, kinds = zip(*rows, strict=True)
    boxes = np.array(boxes, np.int64)
    points = to_photo(np.array(labels, np.float64).reshape(-1, LANDMARKS, 2), boxes)
    yaws = np.array([abs(estimate_pose(points[i])[0]) if np.isnan(yaw) else yaw for i, yaw in enumerate(yaws)])

    def read_usable():
        return (face for face in read() if not isinstance(face, str))

    return Faces(names, points, boxes, yaws, kinds[0], read_usable, annotations and [annotations[i] for i in usable])


def shake_box(face, shakes):
    """A face cut by boxes that are a little off.

    Args:
        face: LabelledFace.
        shakes: float [K, 4], how far each side of its box is moved, in its sides.

    Returns:
        (crops uint8 [K, 128, 128, 3], boxes int64 [K, 4] in pixels of the photo).
    """
    box = np.array(face.box)
    sides = np.tile(box[2:] - box[:2], 2)
    shaken = cuts = np.round(box + shakes * sides).astype(np.int64)
    if face.photo:
        picture = decode_picture(face.photo)
    else:  # the crop is all there is
        picture = face.crop
        cuts = np.round((shaken - np.tile(box[:2], 2)) / sides * IMAGE_SIZE).astype(np.int64)
    return np.array([crop_face(picture, cut) for cut in cuts.tolist()]), shaken


# Predictions


def predict_points(session, crops, boxes):
    """Predicted points, float64 [N, 68, 2] in pixels of the photo."""
    return to_photo(predict(session, crops).reshape(-1, LANDMARKS, 2), boxes)


def predict_faces(session, faces):
    """Predicts every face once with its true crop and SHAKES times with a shaken one.

    Args:
        session: tf.Session on a graph of find.load_graph.
        faces: Faces.

    Returns:
        Prediction.
    """
    count = len(faces.names)
    shakes = np.random.default_rng(0).normal(0, SHAKE, [SHAKES, count, 4])
    predicted, errors, shaken, worst, batch = [], [], [], [], []
    for i, face in enumerate(tqdm(faces.read(), "predict", count, unit="face", disable=None)):
        true, box = (np.repeat(rows[i : i + 1], SHAKES, axis=0) for rows in (faces.points, faces.boxes))
        shaken.append(nme(predict_points(session, *shake_box(face, shakes[:, i])), true, box))
        batch.append(face.crop)
        if len(batch) < BATCH and i < count - 1:
            continue
        now = slice(i + 1 - len(batch), i + 1)
        points = predict_points(session, np.array(batch), faces.boxes[now])
        errors.append(nme(points, faces.points[now], faces.boxes[now]))
        predicted.append(points)
        worst += zip(errors[-1].box, range(now.start, now.stop), batch, points, strict=True)
        worst, batch = heapq.nlargest(WORST, worst, key=lambda row: row[0]), []
    errors, shaken = (NME(*map(np.concatenate, zip(*parts, strict=True))) for parts in (errors, shaken))
    return Prediction(np.concatenate(predicted), errors, shaken, worst)


def detect_points(session, detector, faces):
    """The faces found in their whole photos.

    Args:
        session: tf.Session on a graph of find.load_graph.
        detector: of detectors.load_detector.
        faces: Faces of folders.

    Returns:
        (points float64 [N, 68, 2] in pixels of what faces.points are in, NaN where no face overlaps the true crop;
        their spread, float64 [N, 68], in the same; seconds of each photo, float [N]).
    """
    points, seconds = np.full(faces.points.shape, np.nan), []
    spreads = np.full(points.shape[:2], np.nan)
    everyone = enumerate(tqdm(faces.annotations, "detect", unit="face", disable=None))
    for photo, some in itertools.groupby(everyone, key=lambda face: face[1].photo):  # a photo's faces come together
        picture, _ = read_picture(photo, stored=True)
        began = time.perf_counter()
        found = []
        with contextlib.suppress(cv2.error):  # it scales no photo of 20,000x2 pixels
            found = detect_faces(session, detector, picture)
        seconds.append(time.perf_counter() - began)
        boxes = [bounds(face.points) for face in found]
        for i, annotation in some:
            true = next(iter(read_points(annotation).values()))
            box = crop_box(true)
            best = match_box(bounds(true), boxes)
            if best is not None:
                points[i] = to_photo(to_crop(found[best].points, box), faces.boxes[i])
                spreads[i] = found[best].spread * (faces.boxes[i][3] - faces.boxes[i][1]) / (box[3] - box[1])
    return points, spreads, np.array(seconds)


# Measures


def correlate_spread(points, spreads, faces):
    """Spearman's rank correlation of spread and true error, both over the size of the face's box.

    Args:
        points, spreads: of detect_points, of the faces that are found.
        faces: Faces, the same.

    Returns:
        (over faces, whose points are averaged; over points), -1..1.
    """
    errors = np.linalg.norm(points - faces.points, axis=-1)
    known = np.isfinite(errors)
    size = face_sizes(faces.points, faces.boxes)[1][:, None]
    errors, spreads = (np.where(known, distances / size, np.nan) for distances in (errors, spreads))
    pairs = (np.nanmean(errors, 1), np.nanmean(spreads, 1)), (errors[known], spreads[known])
    return tuple(float(spearmanr(*pair).statistic) for pair in pairs)


def measure_some(errors, chosen):
    """The measures over some of the faces of an NME; chosen: bool [N]."""
    return measure_faces(NME(*(error[chosen] for error in errors)))


def _group_yaws(faces):
    return {f"yaw {low}-{high}": (low <= faces.yaws) & (faces.yaws < high) for low, high in YAWS}


def measure_groups(prediction, faces):
    """The measures of one network by set, yaw, expression and part of the face, and under a shaken box.

    Args:
        prediction: Prediction.
        faces: Faces.

    Returns:
        dict of a group's name to its measures; `yaws` are the means of the three yaws' means, of faces in all of them.
    """
    groups = {"all": np.ones(len(faces.names), bool)}
    sets = np.array([name.partition("/")[0] for name in faces.names])
    groups |= {name: sets == name for name in sorted(set(sets))}
    by_yaw = _group_yaws(faces)
    lids, lips = measure_gaps(faces.points)
    groups |= by_yaw | {"eyes closed": lids < CLOSED, "mouth open": lips > OPEN}
    results = {name: measure_some(prediction.errors, chosen) for name, chosen in groups.items() if chosen.any()}
    if by_yaw.keys() <= results.keys():
        results["yaws"] = {"faces": sum(results[name]["faces"] for name in by_yaw)}
        for measure in "nme_box", "nme_inner":
            results["yaws"][measure] = float(np.mean([results[name][measure] for name in by_yaw]))
    distances = np.linalg.norm(prediction.points - faces.points, axis=-1)
    shares = [distances / size[:, None] for size in face_sizes(faces.points, faces.boxes)]
    for part, lines in PARTS.items():
        indices = sorted({index for line in lines for index in line})
        labelled = np.isfinite(distances[:, indices]).any(1)
        if labelled.any():
            means = (float(np.nanmean(share[:, indices])) for share in shares)
            results[part] = {"faces": int(labelled.sum())} | dict(zip(("nme_mean", "nme_box"), means, strict=True))
    return results | {"shaken": measure_faces(prediction.shaken)}


def measure_poses(points, faces):
    """How far the poses of predicted points are off those that MAT files give.

    Args:
        points: float64 [N, 68, 2], as of Prediction.
        faces: Faces of folders.

    Returns:
        dict of a yaw's group, where it has faces with such a file, to the mean errors of yaw, pitch and roll, degrees.
    """
    true = np.array([read_pose(annotation.photo.with_suffix(".mat")) for annotation in faces.annotations])
    off = np.abs((np.array([estimate_pose(face) for face in points]) - true + 180) % 360 - 180)
    known = np.isfinite(off).all(1)
    groups = _group_yaws(faces).items()
    return {name: off[chosen & known].mean(0).tolist() for name, chosen in groups if (chosen & known).any()}


def measure_gaps(points):
    """How far the lids are apart, and the lips, over the length of the nose, which turns as they do.

    Args:
        points: float [N, 68, 2].

    Returns:
        (lids, the mean of both eyes; lips), float [N] each.
    """

    def apart(above, below):
        return np.linalg.norm(points[:, above] - points[:, below], axis=-1).mean(-1)

    nose = apart([27], [33])
    return apart([37, 38, 43, 44], [41, 40, 47, 46]) / nose, apart([61, 62, 63], [67, 66, 65]) / nose
