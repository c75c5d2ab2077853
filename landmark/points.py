"""What the 68 points of a face are: their order, their crop, their drawing and the measures of their errors."""

import itertools
from collections import namedtuple

import cv2
import numpy as np

IMAGE_SIZE = 128
LANDMARKS = 68
LANDMARK_TYPES = "pts_2d", "pts_3d"  # the jaw on the visible outline; where the jaw is, behind a turned head's cheek
OVERLAP = 0.3  # boxes whose overlap is a larger share of their union belong to one face
WHOLE_CROP = 0, 0, IMAGE_SIZE, IMAGE_SIZE  # the box of a crop that is its own photo
JAW = range(0, 17)
# The parts of a face as lines through the iBUG 68 points; a closed part ends where it starts.
PARTS = {
    "jaw": [JAW],
    "brows": [range(17, 22), range(22, 27)],
    "nose": [range(27, 31), range(31, 36)],
    "eyes": [[*range(36, 42), 36], [*range(42, 48), 42]],
    "mouth": [[*range(48, 60), 48], [*range(60, 68), 60]],
}
# What opens: the points of the upper lid and those below them, and the two corners.
OPENINGS = {
    "eye_open_right": (([37, 38], [41, 40]), ([36], [39])),
    "eye_open_left": (([43, 44], [47, 46]), ([42], [45])),
    "mouth_open": (([61, 62, 63], [67, 66, 65]), ([60], [64])),
}
# The landmark that each becomes in the mirror.
MIRROR = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]  # jaw, brows, nose
MIRROR += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]  # eyes
MIRROR += [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]  # outer and inner lip
GREEN, RED = (0, 255, 0), (0, 0, 255)
SHEET_COLUMNS = 5
LIMIT, BOX_LIMIT = 0.08, 0.10  # NME above which a face counts as failed

# Normalised mean errors, float [N] each, 0.05 is 5%: the mean distance of the 68 points over |p36 - p45| (NaN where
# these are one point), and over sqrt(w * h) of the true points' box; that of the inner points, all but the jaw, over
# the same.
NME = namedtuple("NME", "inter_ocular box inner")


# The crop


def crop_box(points):
    """The box of the face crop (landmark/README.md, "The crop") around points, [68, 2], x and y in pixels of the photo.

    Returns: (x_min, y_min, x_max, y_max), ints, in pixels of the photo; it may leave the photo, and be empty if all
        points are alike.
    """
    (x_min, y_min), (x_max, y_max) = points.min(0).tolist(), points.max(0).tolist()
    x_max, x_min, y_max, y_min = int(x_max), int(x_min), int(y_max), int(y_min)
    y_min = int(y_min - 0.30 * (y_max - y_min))
    y_max = int(y_max + 0.05 * (y_max - y_min))
    x_min = int(x_min - 0.05 * (x_max - x_min))
    x_max = int(x_max + 0.05 * (x_max - x_min))
    return x_min, y_min, x_max, y_max


def face_box(box):
    """The box of a face's points, float64 [..., 4], from its crop_box: the way back, but for the cutting to pixels."""
    box = np.asarray(box, np.float64)
    # Widths grow by 5%, and that by 5%; heights by 30%, and that by 5%.
    sides = (box[..., 2:] - box[..., :2]) / [1.05 * 1.05, 1.30 * 1.05]
    low = box[..., :2] + sides * [0.05, 0.30]
    return np.concatenate([low, low + sides], -1)


def crop_face(photo, box):
    """Cuts a box (ints, overlapping the photo) out of a photo, uint8 [H, W, 3], black where it leaves the photo.

    Returns: uint8 [128, 128, 3]; the two sides scale independently.
    """
    x_min, y_min, x_max, y_max = box
    height, width = photo.shape[:2]
    inside = photo[max(y_min, 0) : max(y_max, 0), max(x_min, 0) : max(x_max, 0)]
    black = max(-y_min, 0), max(y_max - height, 0), max(-x_min, 0), max(x_max - width, 0)
    if any(black):
        inside = cv2.copyMakeBorder(inside, *black, cv2.BORDER_CONSTANT)
    return cv2.resize(inside, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)


def to_crop(points, box):
    """Points [..., 68, 2] in pixels of the photo as shares of boxes [..., 4]: the labels of the records."""
    box = np.asarray(box, np.float64)[..., None, :]
    return (points - box[..., :2]) / (box[..., 2:] - box[..., :2])


def to_photo(points, box):
    """The way back from to_crop: shares of boxes [..., 4] to points [..., 68, 2] in pixels of the photo."""
    box = np.asarray(box, np.float64)[..., None, :]
    return points * (box[..., 2:] - box[..., :2]) + box[..., :2]


def bounds(points):
    """The box x_min y_min x_max y_max, float64 [4], around points [N, 2]; NaN for a missing one."""
    return np.concatenate([np.nanmin(points, 0), np.nanmax(points, 0)])


def overlap(box, other):
    """Intersection over union of two boxes (x_min, y_min, x_max, y_max): 0..1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / sum([(x_max - x_min) * (y_max - y_min) for x_min, y_min, x_max, y_max in (box, other)], -shared)


def match_box(box, others):
    """The index of the box among others that overlaps a box most, or None if none belongs to the same face."""
    shared = [overlap(box, other) for other in others]
    return int(np.argmax(shared)) if max(shared, default=0) > OVERLAP else None


# Drawing


def draw_landmarks(picture, points, colour=GREEN, side=None):
    """Draws points, [68, 2] in pixels, NaN to leave one out, and the lines along the parts of the face.

    picture: uint8 [H, W, 3], BGR, changed in place.
    colour: BGR.
    side: size of the face in pixels, to which the dots are scaled (the picture's shorter side).
    """
    side = side or min(picture.shape[:2])
    radius = max(1, round(side / 150))
    shift = 4  # OpenCV draws at 1/16 pixel
    drawn = np.nan_to_num(np.clip(points, -max(picture.shape), 2 * max(picture.shape)))
    fixed = np.round(drawn * 2**shift).astype(np.int32)
    known = np.isfinite(points).all(-1)
    for line in itertools.chain(*PARTS.values()):
        chosen = [index for index in line if known[index]]
        cv2.polylines(picture, [fixed[chosen]], False, colour, max(1, radius // 3), cv2.LINE_AA, shift)
    for point in fixed[known].tolist():
        cv2.circle(picture, point, radius << shift, colour, cv2.FILLED, cv2.LINE_AA, shift)


def contact_sheet(crops, points):
    """Crops, uint8 [N, S, S, 3], in rows of five, at twice their size: uint8 [rows * 2 * S, 5 * 2 * S, 3].

    points: list of ([N, 68, 2] shares of the crop, colour), drawn one over the other.
    """
    side, rows = 2 * crops.shape[1], -(-len(crops) // SHEET_COLUMNS)
    tiles = np.zeros((rows * SHEET_COLUMNS, side, side, 3), np.uint8)
    for i, crop in enumerate(crops):
        tiles[i] = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        for shares, colour in points:
            draw_landmarks(tiles[i], shares[i] * side, colour)
    return np.vstack([np.hstack(row) for row in np.split(tiles, rows)])


# The measures


def mean_gap(points, these, those):
    """The mean distance, float [...], between some of the points [..., 68, 2] and as many others, lists of indices."""
    return np.linalg.norm(points[..., these, :] - points[..., those, :], axis=-1).mean(-1)


def measure_openings(points):
    """How far the person's right eye, left eye and mouth are open: the mean gap of lids, or inner lips, over the
    distance of the corners. For an eye, (|p37 - p41| + |p38 - p40|) / (2 |p36 - p39|), it is the eye aspect ratio of
    Soukupova and Cech (Real-Time Eye Blink Detection using Facial Landmarks, CVWW 2016), near 0.3 when open.

    points: float [..., 68, 2]. Returns: float [..., 3], as OPENINGS; NaN if a point is missing or the corners are one.
    """
    pairs = [(mean_gap(points, *lids), mean_gap(points, *corners)) for lids, corners in OPENINGS.values()]
    return np.stack([gap / np.where(width > 0, width, np.nan) for gap, width in pairs], -1)


def face_sizes(true, boxes):
    """What errors are divided by: (|p36 - p45|, NaN if these are one point; sqrt(w * h) of the points' box), [N] each.

    true: float [N, 68, 2], in pixels of the photo; NaN for a point without a label.
    boxes: [N, 4] of the crops, which give the size of faces that lack labels.
    """
    inter_ocular = np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)
    low, high = np.split(face_box(boxes), 2, -1)
    sides = np.where(np.isnan(true).any(1), high - low, np.ptp(true, axis=1))
    return np.where(inter_ocular > 0, inter_ocular, np.nan), np.sqrt(sides.prod(-1))


def nme(predicted, true, boxes):
    """The NME of predicted points, float [N, 68, 2] in pixels of the photo; `true` and `boxes` as in face_sizes. Points
    without a label are left out."""
    distances = np.linalg.norm(predicted - true, axis=-1)
    inter_ocular, size = face_sizes(true, boxes)
    errors, inner = np.nanmean(distances, -1), np.nanmean(np.delete(distances, JAW, -1), -1)
    return NME(errors / inter_ocular, errors / size, inner / size)


def auc(errors, limit):
    """Area under the cumulative curve of errors, float [N], from 0 to limit, over limit: 1 if every error is 0."""
    return float(np.clip(1 - errors / limit, 0, None).mean())


def measure_faces(errors):
    """The error measures of some faces, from their NME: dict of faces, nme_mean, nme_median, failure_rate, auc
    (inter-ocular, if any face has such a distance), nme_box, nme_inner (box, inner points), failure_rate_box, auc_box.
    """
    inter_ocular = errors.inter_ocular[np.isfinite(errors.inter_ocular)]
    measures = {"faces": len(errors.box)}
    if len(inter_ocular):
        measures |= {
            "nme_mean": float(inter_ocular.mean()),
            "nme_median": float(np.median(inter_ocular)),
            "failure_rate": float((inter_ocular > LIMIT).mean()),
            "auc": auc(inter_ocular, LIMIT),
        }
    return measures | {
        "nme_box": float(errors.box.mean()),
        "nme_inner": float(errors.inner.mean()),
        "failure_rate_box": float((errors.box > BOX_LIMIT).mean()),
        "auc_box": auc(errors.box, BOX_LIMIT),
    }
