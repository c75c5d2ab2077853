"""Predictions on faces with known points, and their errors: by set, pose, expression and part of the face."""

import contextlib
import heapq
import itertools
import sys
import time
from collections import namedtuple

import cv2
import numpy as np
from tqdm import tqdm

from landmark.annotations import find_crop, read_labels
from landmark.cli import UserError
from landmark.formats import read_points
from landmark.measures import BOX_LIMIT, LIMIT, NME, face_sizes, measure_faces, measure_gaps, measure_openings, nme
from landmark.pictures import decode_picture
from landmark.points import LANDMARKS, PARTS, WHOLE_CROP, bounds, crop_face, match_box, to_crop, to_photo
from landmark.pose import YAW_BINS, estimate_pose, read_pose

BATCH = 32
WORST = 25
JITTERS, JITTER = 5, 0.05  # jittered crops a face; standard deviation of each side of the box, in sides of the crop
# Gaps over the length of the nose. At any yaw, the median gap between the lids is 14.5% to 16.5%; 2% of the faces are
# under CLOSED, and one in eight over OPEN.
CLOSED, OPEN = 0.06, 0.35
SHUT = 0.12  # eye aspect ratio below which an eye is taken for closed
PROTOCOL = (
    "Protocol: face crops cut around the true points; errors in pixels of the photo over |p36 - p45| (inter-ocular) or"
    f" sqrt(w h) of the points' box; failure above, AUC up to {LIMIT:.0%} inter-ocular and {BOX_LIMIT:.0%} box;"
    " nme_inner: points 17 to 67 over the box; yaw: Pose_Para of the MAT file, else estimated from the true points;"
    " pose: Pose_Para, against the pose estimated from the predicted points;"
    f" eyes closed, mouth open: lids, or lips, less than {CLOSED:.0%}, or more than {OPEN:.0%}, of |p27 - p33| apart;"
    f" eye_open (eye aspect ratio), mouth_open: for telling these faces from the others; below: less than {SHUT};"
    f" jittered: each side of the crop moved by a normal draw of {JITTER:.0%} of its length, {JITTERS} draws a face."
)

# Rows of the table: a set of such a name is printed as "set NAME".
ROWS = {"all", *(f"yaw {low}-{high}" for low, high in YAW_BINS), "yaws", "eyes closed", "mouth open", *PARTS}
ROWS |= {"jittered", "detected", "true crops", "eye_open", "mouth_open"}

# The faces that predictions are compared with. names: str [N], <SET>/<stem>; points: float64 [N, 68, 2] in pixels of
# the photo, NaN for a point without a label; boxes: int64 [N, 4] of the crops, x_min y_min x_max y_max; yaws: float64
# [N], degrees, 0 or more; numbers: int [N], the position of each among the faces read.
GroundTruth = namedtuple("GroundTruth", "names points boxes yaws numbers")

# What one model predicts. points: float64 [N, 68, 2] in pixels of the photo; errors: NME; jittered: NME of N * JITTERS
# crops; worst: list of (error, number, crop uint8 [128, 128, 3], its points), the largest error by the box first.
Prediction = namedtuple("Prediction", "points errors jittered worst")


def jitter_box(face, jitters):
    """An AnnotatedFace cut by boxes that are a little off, by `jitters`, float [K, 4], in sides of its box.

    Returns: (crops uint8 [K, 128, 128, 3], boxes int64 [K, 4] in pixels of the photo).
    """
    # without a photo the crop is all there is
    picture, own = (decode_picture(face.photo), face.box) if face.photo else (face.crop, WHOLE_CROP)
    cuts, boxes = (
        np.round(box + jitters * np.tile(np.subtract(box[2:], box[:2]), 2)).astype(np.int64) for box in (own, face.box)
    )
    return np.array([crop_face(picture, cut) for cut in cuts.tolist()]), boxes


# Predictions


def predict_points(predict, crops, boxes):
    """Predicted points, float64 [N, 68, 2] in pixels of the photo; predict: function of crops, see runtimes.py."""
    return to_photo(predict(crops).reshape(-1, LANDMARKS, 2).astype(np.float64), boxes)


def predict_faces(models, faces, landmark_types, total=None):
    """Reads faces once and predicts each with every model, from its true crop and from JITTERS jittered ones.

    models: dict of a name to a function of crops, see runtimes.py.
    faces: iterable of AnnotatedFace; or of str, which says why a face cannot be used, and is printed.
    landmark_types: dict of a model's name to the landmark type it was trained on, one of LANDMARK_TYPES.
    total: number of faces, for the progress bar, or None.
    Returns: (GroundTruth, dict of a name to its Prediction).
    Raises UserError: a model was trained on another landmark type, or no face can be used.
    """
    rng, first = np.random.default_rng(0), 0
    truths, parts, worst = [], {name: [] for name in models}, {name: [] for name in models}
    usable = _report_others(tqdm(faces, "evaluate", total, unit="face", disable=None))
    for batch in iter(lambda: [*itertools.islice(usable, BATCH)], []):
        numbers, faces = zip(*batch, strict=True)
        for name, landmark_type in landmark_types.items():
            if landmark_type != faces[0].landmark_type:
                raise UserError(
                    f"{name} was trained on {landmark_type} and these faces have {faces[0].landmark_type}: give"
                    " --points of the same type, here or to prepare_tfrecords.py"
                )
        truth = _gather(numbers, faces)
        truths.append(truth)
        crops = np.array([face.crop for face in faces])
        jittered = [jitter_box(face, rng.normal(0, JITTER, [JITTERS, 4])) for face in faces]
        jittered_crops, jittered_boxes = map(np.concatenate, zip(*jittered, strict=True))
        for name, predict in models.items():
            points = predict_points(predict, crops, truth.boxes)
            errors = nme(points, truth.points, truth.boxes)
            again = predict_points(predict, jittered_crops, jittered_boxes)
            jittered_errors = nme(again, *(rows.repeat(JITTERS, axis=0) for rows in (truth.points, truth.boxes)))
            parts[name].append((points, *errors, *jittered_errors))
            rows = zip(errors.box, range(first, first + len(faces)), crops, points, strict=True)
            worst[name] = heapq.nlargest(WORST, [*worst[name], *rows], key=lambda row: row[0])
        first += len(faces)
    if not truths:
        raise UserError("none of the faces can be used")
    truth = GroundTruth(*map(np.concatenate, zip(*truths, strict=True)))
    predictions = {}
    for name in models:
        points, *errors = map(np.concatenate, zip(*parts[name], strict=True))
        predictions[name] = Prediction(points, NME(*errors[:3]), NME(*errors[3:]), worst[name])
    return truth, predictions


def _report_others(faces):
    """Yields (number, face) of each AnnotatedFace, and prints each str among them."""
    for number, face in enumerate(faces):
        if isinstance(face, str):
            tqdm.write(f"{face}; left out", file=sys.stderr)
        else:
            yield number, face


def _gather(numbers, faces):
    boxes = np.array([face.box for face in faces], np.int64)
    labels = np.array([face.label for face in faces], np.float64)
    points = to_photo(labels.reshape(-1, LANDMARKS, 2), boxes)
    yaws = [
        abs(estimate_pose(each).yaw) if np.isnan(face.yaw) else face.yaw
        for each, face in zip(points, faces, strict=True)
    ]
    return GroundTruth(np.array([face.name for face in faces]), points, boxes, np.array(yaws), np.array(numbers))


def detect_points(find_faces, truth, annotations, landmark_type):
    """Finds the faces of a GroundTruth, whose Annotations are given, in their whole photos with a FaceFinder.

    landmark_type: that of the GroundTruth, one of LANDMARK_TYPES, whose crops its boxes are.
    Returns: (points float64 [N, 68, 2] in the same pixels as truth.points, NaN where no face overlaps the true crop;
        seconds of each photo, float [N]).
    """
    points, seconds = np.full(truth.points.shape, np.nan), []
    photos = {}
    for i, annotation in enumerate(annotations):
        photos.setdefault(annotation.photo, []).append((i, annotation))
    for some in tqdm(photos.values(), "detect", unit="photo", disable=None):
        photo = read_labels(some[0][1])[0]
        began = time.perf_counter()
        found = []
        with contextlib.suppress(cv2.error):  # it cannot scale a photo of 20,000x2 pixels
            found = find_faces(photo)
        seconds.append(time.perf_counter() - began)
        for i, annotation in some:
            known = read_points(annotation)
            true = known.get(landmark_type, next(iter(known.values())))
            best = match_box(bounds(true), [bounds(face.points) for face in found])
            if best is not None:
                points[i] = to_photo(to_crop(found[best].points, find_crop(true)), truth.boxes[i])
    return points, np.array(seconds)


# Measures


def measure_some(errors, chosen):
    """The measures over some of the faces of an NME; chosen: bool [N]."""
    return measure_faces(NME(*(error[chosen] for error in errors)))


def _bin_yaws(truth):
    return {f"yaw {low}-{high}": (low <= truth.yaws) & (truth.yaws < high) for low, high in YAW_BINS}


def measure_groups(prediction, truth):
    """The measures of a Prediction by set, yaw, expression and part of the face, and under a jittered box.

    Returns: dict of a group's name to its measures; `yaws` holds the means of the three yaw bins' means.
    """
    groups = {"all": np.ones(len(truth.names), bool)}
    sets = np.array([name.partition("/")[0] for name in truth.names])
    groups |= {f"set {name}" if name in ROWS else name: sets == name for name in sorted(set(sets))}
    by_yaw = _bin_yaws(truth)
    lids, lips = measure_gaps(truth.points)
    groups |= by_yaw | {"eyes closed": lids < CLOSED, "mouth open": lips > OPEN}
    results = {name: measure_some(prediction.errors, chosen) for name, chosen in groups.items() if chosen.any()}
    if by_yaw.keys() <= results.keys():
        results["yaws"] = {"faces": sum(results[name]["faces"] for name in by_yaw)}
        for measure in "nme_box", "nme_inner":
            results["yaws"][measure] = float(np.mean([results[name][measure] for name in by_yaw]))
    distances = np.linalg.norm(prediction.points - truth.points, axis=-1)
    shares = [distances / size[:, None] for size in face_sizes(truth.points, truth.boxes)]
    for part, lines in PARTS.items():
        indices = sorted({index for line in lines for index in line})
        labelled = np.isfinite(distances[:, indices]).any(1)
        results[part] = {"faces": int(labelled.sum())}
        if labelled.any():
            means = (float(np.nanmean(share[:, indices])) for share in shares)
            results[part] |= dict(zip(("nme_mean", "nme_box"), means, strict=True))
    return results | {"jittered": measure_faces(prediction.jittered)}


def compare_openings(predicted, true):
    """How well predicted points, float64 [N, 68, 2], tell how far eyes (mean of both) and mouth are open.

    Returns: dict of "eye_open" and "mouth_open", if any face has these labels, to a dict: error, the mean absolute one;
        for the faces of the group "closed" or "open" of measure_groups, and the others, if there are any, their number,
        predicted median and fraction below SHUT; roc_auc, the area under the ROC curve for telling the two apart.
    """
    found, known = measure_openings(predicted), measure_openings(true)
    lids, lips = measure_gaps(true)
    rows = ([0, 1], "eye_open", "closed", lids < CLOSED), ([2], "mouth_open", "open", lips > OPEN)
    results = {}
    for columns, name, group, chosen in rows:
        ratios, error = found[:, columns].mean(1), np.abs(found - known)[:, columns].mean(1)
        usable = np.isfinite(error)
        if not usable.any():
            continue
        results[name] = measures = {"error": float(error[usable].mean())}
        some, others = ratios[usable & chosen], np.sort(ratios[usable & ~chosen])
        for part, values in (group, some), ("others", others):
            if len(values):
                median, below = float(np.median(values)), float((values < SHUT).mean())
                measures |= {part: len(values), f"{part}_median": median, f"{part}_below": below}
        if len(some) and len(others):  # how often one of some is above one of the others; ties count half
            above = np.mean([np.searchsorted(others, some, side) for side in ("left", "right")]) / len(others)
            measures["roc_auc"] = float(above if group == "open" else 1 - above)
    return results


def measure_poses(points, truth, annotations):
    """How far the poses of predicted points, float64 [N, 68, 2], are off those that MAT files give.

    Returns: dict of each yaw bin that has faces with such a file to the mean errors of yaw, pitch and roll, degrees.
    """
    true = np.array([read_pose(annotation.photo.with_suffix(".mat")) for annotation in annotations])
    off = np.abs((np.array([estimate_pose(face) for face in points]) - true + 180) % 360 - 180)
    known = np.isfinite(off).all(1)
    groups = _bin_yaws(truth).items()
    return {name: off[chosen & known].mean(0).tolist() for name, chosen in groups if (chosen & known).any()}
