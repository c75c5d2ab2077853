"""The measures of points: how far off they are, and how far they say that eyes and mouth are open."""

from collections import namedtuple

import numpy as np

from landmark.points import JAW, OPENINGS, face_box

LIMIT, BOX_LIMIT = 0.08, 0.10  # NME above which a face counts as failed

# Normalised mean errors, float [N] each, 0.05 is 5%: the mean distance of the 68 points over |p36 - p45| (NaN where
# these are one point), and over sqrt(w * h) of the true points' box; that of the inner points, all but the jaw, over
# the same.
NME = namedtuple("NME", "inter_ocular box inner")


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


def measure_gaps(points):
    """How far apart the lids (mean of both eyes) and the lips of points [N, 68, 2] are, float [N] each, over the length
    of the nose, foreshortened as they are."""
    nose = mean_gap(points, [27], [33])
    right, left, lips = (mean_gap(points, *gap) / nose for gap, _ in OPENINGS.values())
    return (right + left) / 2, lips


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
