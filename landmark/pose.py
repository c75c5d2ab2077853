"""How a face is turned."""

import contextlib
import math
from collections import namedtuple

import cv2
import numpy as np

from landmark.cli import UserError
from landmark.mat import read_mat
from landmark.points import LANDMARKS, MIRROR

YAW_BINS = [(0, 30), (30, 60), (60, 90)]  # degrees: bins that errors are reported in
# The mean head's landmarks in centimetres, x to the picture's right, y down, z towards the camera, the middle of the
# head at the origin: those of the half at the picture's right.
HALF_HEAD = {
    16: [7.0, 0.3, 1.2], 15: [6.9, 2.6, 1.5], 14: [6.6, 4.8, 2.0], 13: [6.1, 6.9, 2.8], 12: [5.4, 8.6, 4.0],
    11: [4.3, 10.0, 5.6], 10: [3.0, 11.0, 7.4], 9: [1.5, 11.6, 8.9], 8: [0, 11.8, 9.5], 26: [5.7, -2.0, 6.5],
    25: [4.8, -2.8, 8.0], 24: [3.6, -3.0, 9.0], 23: [2.4, -2.7, 9.6], 22: [1.2, -2.2, 9.9], 27: [0, -0.6, 9.6],
    28: [0, 0.7, 10.4], 29: [0, 2.0, 11.25], 30: [0, 3.3, 12.05], 35: [1.45, 4.3, 10.4], 34: [0.75, 4.6, 11.0],
    33: [0, 4.8, 11.2], 45: [4.5, 0.05, 7.4], 44: [3.6, -0.52, 8.15], 43: [2.45, -0.5, 8.3], 42: [1.65, 0.25, 8.1],
    47: [2.5, 0.55, 8.15], 46: [3.6, 0.55, 8.0], 54: [2.55, 6.85, 9.4], 53: [1.5, 6.1, 10.7], 52: [0.55, 5.75, 11.3],
    51: [0, 5.95, 11.35], 57: [0, 8.1, 11.0], 56: [0.8, 8.0, 10.9], 55: [1.7, 7.6, 10.3], 64: [2.3, 6.85, 9.6],
    63: [1.0, 6.6, 10.9], 62: [0, 6.65, 11.2], 66: [0, 7.15, 11.0], 65: [1.0, 7.1, 10.8],
}  # fmt: skip
MEAN_HEAD = np.array([HALF_HEAD.get(i) or np.multiply(HALF_HEAD[MIRROR[i]], [-1, 1, 1]) for i in range(LANDMARKS)])
POSE_LANDMARKS = [*range(17, 36), 36, 39, 42, 45]  # brows, nose, corners of the eyes: they move least with expressions
MIN_POSE_POINTS = 8
POSE_MODEL = MEAN_HEAD[POSE_LANDMARKS] * [1, 1, -1]  # z away from the camera
# Least-squares map from the POSE_LANDMARKS in a picture to the head's axes there (weak perspective).
AXES = np.linalg.pinv(POSE_MODEL - POSE_MODEL.mean(0))
# A head's angles in degrees, those of 300W_LP: see estimate_pose.
Pose = namedtuple("Pose", "yaw pitch roll")
AXES_LENGTH, AXES_COLOURS = 0.5, ((0, 0, 255), (0, 200, 0), (255, 80, 0))  # in sides of the face; BGR
MAX_ERROR, MIN_FACING = 0.15, -0.2  # see is_face
CAMERA = 10  # how far away the camera is, in sizes of what the points span


def fit_mean_head(points):
    """Fits the mean head to points, float [68, 2], some NaN, by least squares (affine camera).

    Returns: (its three axes in the picture, float64 [3, 2], per centimetre; where its 68 points are, float64 [68, 2]).
    """
    there, head = np.isfinite(points).all(1), np.column_stack([MEAN_HEAD, np.ones(LANDMARKS)])
    camera = np.linalg.lstsq(head[there], points[there], rcond=None)[0]
    return camera[:3], head @ camera


def is_face(points):
    """Whether points lie as those of a face do: near the places of the mean head, in some pose, seen from its front.

    Labelled faces are up to 0.13 of their box away from it (root mean square; 8,000 faces, turned and shouting ones
    too), points in another order 0.16 and more. Points are mirrored, as if seen from behind, if y points up, x and y
    are swapped, or the photo was flipped without renumbering them.

    points: float [68, 2], of one unit, some may be NaN.
    """
    axes, fitted = fit_mean_head(points)
    error = math.sqrt(np.nanmean(np.square(fitted - points).sum(1)))
    facing = np.linalg.det(axes[:2]) / np.square(axes).sum()  # 1/2 from the front, 0 in profile
    return error < MAX_ERROR * math.sqrt(np.prod(np.nanmax(points, 0) - np.nanmin(points, 0))) and facing > MIN_FACING


def read_pose(path):
    """The Pose in a face's MAT file (`Pose_Para`), see estimate_pose; NaN without such a file, or a pose in it."""
    with contextlib.suppress(UserError, OSError, ValueError, LookupError):  # none, or damaged, or without a pose
        pitch, yaw, roll = np.rad2deg(read_mat(path, ["Pose_Para"])["Pose_Para"][0, :3]).tolist()
        return Pose(yaw, pitch, roll)
    return Pose(math.nan, math.nan, math.nan)


def estimate_pose(points):
    """The pose of a face by 300W_LP's angles, R = Rx(pitch) Ry(yaw) Rz(roll).

    points: float [68, 2] in pixels of the photo; those of the jaw may be NaN.
    Returns: (yaw, pitch, roll), degrees: yaw, -90..90, turns the nose to the photo's left; pitch, -180..180, raises it;
        roll, -180..180, turns the face clockwise about the way it looks. NaN where the points are hardly apart.
    """
    rotation = _rotate(points)
    yaw = math.atan2(rotation[0, 2], math.hypot(rotation[0, 0], rotation[0, 1]))
    pitch, roll = math.atan2(rotation[1, 2], rotation[2, 2]), math.atan2(-rotation[0, 1], rotation[0, 0])
    return Pose(math.degrees(yaw), math.degrees(pitch), math.degrees(roll))


def estimate_tilt(points):
    """The degrees, -180..180, by which the line from a face's chin to its brow is turned clockwise in the photo;
    points: see estimate_pose; 0 if all are one point."""
    axes = (AXES @ points[POSE_LANDMARKS]).T
    # The nearest axes of one length and at right angles are root^-1 axes, where root^2 = axes axes^T; root but for its
    # scale as Levinger, The Square Root of a 2x2 Matrix, 1980, has it.
    square = axes @ axes.T
    (xx, xy), (_, yy) = square + math.sqrt(max(np.linalg.det(square), 0)) * np.eye(2)
    x, y = axes[:, 1]
    return math.degrees(math.atan2(xy * y - yy * x, xx * y - xy * x))


def _rotate(points):
    """The rotation of the head, float64 [3, 3], in the axes of POSE_MODEL."""
    points = points[POSE_LANDMARKS]
    there = np.isfinite(points).all(1)
    points, model = points[there].astype(np.float64), POSE_MODEL[there]
    if len(points) < MIN_POSE_POINTS:
        return np.full([3, 3], np.nan)
    size, centre = np.ptp(points, axis=0).max(), points.mean(0)
    try:
        for _ in range(2):  # the camera looks at the middle of the head, as in data/make_sample.py
            camera = np.array([[CAMERA * size, 0, centre[0]], [0, CAMERA * size, centre[1]], [0, 0, 1]])
            pose = cv2.solvePnP(model, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)[1:]
            centre = cv2.projectPoints(np.zeros([1, 3]), *pose, camera, None)[0].ravel()
    except cv2.error:
        return np.full([3, 3], np.nan)
    return cv2.Rodrigues(pose[0])[0]


def draw_axes(picture, points, side):
    """Draws the axes of a head into a picture, in place, from the bridge of the nose: to the face's left red, down
    green, and ahead, where it looks, blue.

    picture: uint8 [H, W, 3], BGR.
    points: see estimate_pose; without a pose nothing is drawn.
    side: of the face in pixels, which the axes grow with.
    """
    axes = side * AXES_LENGTH * _rotate(points)[:2].T * [[1], [1], [-1]]
    if np.isfinite(axes).all():
        for axis, colour in zip(axes, AXES_COLOURS, strict=True):
            ends = np.clip([points[27], points[27] + axis], -max(picture.shape), 2 * max(picture.shape))
            start, end = ends.round().astype(int).tolist()
            cv2.arrowedLine(picture, start, end, colour, max(1, round(side / 60)), cv2.LINE_AA, tipLength=0.15)
