"""How far a face is turned."""

import contextlib
import math

import cv2
import numpy as np

from landmark.mat import read_mat

YAWS = [(0, 30), (30, 60), (60, 90)]  # degrees, that errors are told apart by
# The mean head of data/make_sample.py in millimetres, x right, y down, z away from the camera: nose tip, chin, outer
# eye corners, mouth corners.
POSE_LANDMARKS = [30, 8, 36, 45, 48, 54]
POSE_MODEL = np.array(
    [[0, 0, 0], [0, 85, 25.5], [-45, -32.5, 46.5], [45, -32.5, 46.5], [-25.5, 35.5, 26.5], [25.5, 35.5, 26.5]]
)


def read_yaw(pose_file, points):
    """The yaw of a face in degrees, positive or negative: from `Pose_Para` of its MAT file, else from its points.

    Args:
        pose_file: Path of a file that may be missing, or hold something else.
        points: float64 [68, 2] in pixels of the photo.
    """
    if pose_file.exists():
        with contextlib.suppress(ValueError, LookupError):  # it is damaged, or has no pose
            return float(np.rad2deg(read_mat(pose_file, ["Pose_Para"])["Pose_Para"][0, 1]))
    return estimate_yaw(points)


def estimate_yaw(points):
    """The yaw of a face in degrees, positive or negative, from its points: float [68, 2] in pixels of the photo; those
    of the jaw may be NaN. In 300W_LP's IBUG it is the same to a degree with the jaw of either kind."""
    # A camera far away: 300W_LP's own fits are weak perspective.
    points = points[POSE_LANDMARKS]
    known = np.isfinite(points).all(-1)
    size = np.ptp(points[known], axis=0).max()
    centre = points[known].mean(0)
    camera = np.array([[10 * size, 0, centre[0]], [0, 10 * size, centre[1]], [0, 0, 1]])
    try:
        _, rotation, _ = cv2.solvePnP(POSE_MODEL[known], points[known], camera, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # they are hardly apart
        return math.nan
    rotation = cv2.Rodrigues(rotation)[0]
    return float(np.rad2deg(np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))))
