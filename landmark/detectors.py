"""Face detectors behind one interface: RetinaFace, which comes with this repository; YuNet; OpenCV's cascades."""

import functools
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np

RETINAFACE = Path(__file__).resolve().parents[1] / "models" / "retinaface.onnx"
YUNET = "face_detection_yunet_2023mar.onnx"
YUNET_URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{YUNET}"
CASCADE = "cascade"  # the name of OpenCV's, where a file's would stand
# Detectors see a picture no longer than this, pixels: the cascades find faces from a 20th of it, RetinaFace smaller.
SIDE, RETINAFACE_SIDE = 640, 448
MEAN_COLOUR = 104, 117, 123  # BGR, of its training
STRIDES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # pixels, of its cells, and the sides of the anchors there
CENTRE_VARIANCE, SIDE_VARIANCE = 0.1, 0.2  # Liu et al., "SSD", ECCV 2016, as its authors wrote it
LEAST_SCORE, LEAST_CONFIDENCE = 0.5, 0.5
MOST_SHARED = 0.4  # of the union of two boxes: with more, the less sure one is the same face
QUARTERS, TWELFTHS = (0, 90, 270, 180), (0, 30, 330, 60, 300, 90, 270, 120, 240, 150, 210, 180)
HAAR_MARGIN = 0.1  # around what the cascades see, in its longer side
# The corners of the crop of contract 2 in a detector's box, x y as shares of its sides: data/fit_detector.py.
RETINAFACE_CROP = np.array([[-0.067, 0.018], [1.063, 1.045]])
HAAR_CROP = np.array([[0.048, -0.014], [0.956, 1.108]])
# Not fitted: its training faces (WIDER FACE) are boxed from forehead to chin, as the crop is but for its margins.
YUNET_CROP = np.array([[0.0, 0.0], [1.0, 1.0]])

# find: function of a picture, uint8 [H, W, 3], BGR, that returns float64 [N, 4], x_min y_min x_max y_max in its pixels;
# crop: where the crop of contract 2 lies in such a box, float64 [2, 2], two corners x y as shares of its sides; turns:
# the degrees to turn a picture by, 0 first, so that no face can hide; any_angle: whether all of them are searched where
# there is a face in one; least_score: of a face, 0..1, by the network of the landmarks.
Detector = namedtuple("Detector", "find crop turns any_angle least_score")


def load_detector(name=None, any_angle=False, least_score=LEAST_SCORE):
    """A face detector.

    Args:
        name: CASCADE, or the path of YuNet's ONNX file; RetinaFace if there is none.
        any_angle, least_score: as of Detector.

    Returns:
        Detector.

    Raises:
        ValueError: the file is no YuNet; or this OpenCV (5) has no cascades.
    """
    if not name:
        net = cv2.dnn.readNetFromONNX(str(RETINAFACE))
        find, crop, turns = functools.partial(_find_retinaface, net), RETINAFACE_CROP, QUARTERS
    elif str(name) == CASCADE:
        if not hasattr(cv2, "CascadeClassifier"):
            raise ValueError(f"OpenCV {cv2.__version__} has no face cascades: leave --detector {CASCADE} out")
        load = (f"{cv2.data.haarcascades}haarcascade_{kind}.xml" for kind in ("frontalface_default", "profileface"))
        find, crop, turns = functools.partial(_find_haar, *map(cv2.CascadeClassifier, load)), HAAR_CROP, TWELFTHS
    else:
        try:
            model = np.fromfile(name, np.uint8)  # of OpenCV's own reading, a name that is not UTF-8 is the end
            net = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), (SIDE, SIDE))
        except (OSError, cv2.error):
            raise ValueError(f"--detector {name} is not {YUNET}: get it from {YUNET_URL}") from None
        find, crop, turns = functools.partial(_find_yunet, net), YUNET_CROP, QUARTERS
    return Detector(find, crop, turns, any_angle, least_score)


def _shrink(picture, side):
    """(the picture, no longer than a side; the share of its own size that it has then)."""
    scale = min(1, side / max(picture.shape[:2]))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture, scale


@functools.cache
def _anchors():
    """The boxes that RetinaFace moves: x and y of their centres and their side, pixels, float64 [N, 3]."""
    rows = []
    for stride, sides in STRIDES.items():
        y, x = np.mgrid[stride / 2 : RETINAFACE_SIDE : stride, stride / 2 : RETINAFACE_SIDE : stride]
        rows.append(np.stack([np.column_stack([x.ravel(), y.ravel(), np.full(x.size, side)]) for side in sides], 1))
    return np.concatenate(rows).reshape(-1, 3)


def _find_retinaface(net, picture):
    seen, scale = _shrink(picture, RETINAFACE_SIDE)
    # Always of one size: a network that gets another is planned anew.
    below, beside = np.subtract(RETINAFACE_SIDE, seen.shape[:2])
    seen = cv2.copyMakeBorder(seen, 0, int(below), 0, int(beside), cv2.BORDER_CONSTANT, value=MEAN_COLOUR)
    net.setInput(cv2.dnn.blobFromImage(seen, mean=MEAN_COLOUR))
    moves, confidences = (rows[0] for rows in net.forward(["loc", "conf"]))
    chosen = confidences[:, 1] > LEAST_CONFIDENCE
    anchors, moves = _anchors()[chosen], moves[chosen].astype(np.float64)
    sides = anchors[:, 2:] * np.exp(SIDE_VARIANCE * moves[:, 2:])
    low = anchors[:, :2] + CENTRE_VARIANCE * moves[:, :2] * anchors[:, 2:] - sides / 2
    boxes = np.hstack([low, sides])
    kept = cv2.dnn.NMSBoxes(boxes, confidences[chosen, 1], LEAST_CONFIDENCE, MOST_SHARED) if len(boxes) else []
    return _to_corners(boxes[np.array(kept, int)], scale)


def _find_yunet(net, picture):
    seen, scale = _shrink(picture, SIDE)
    net.setInputSize(seen.shape[1::-1])
    found = net.detect(seen)[1]
    return _to_corners(np.empty([0, 4]) if found is None else found[:, :4], scale)


def _find_haar(frontal, profile, picture):
    seen, scale = _shrink(picture, SIDE)
    # With a margin it finds 47 of 50 faces whose crop the photo's edge cuts by 7%, without it 35. Two neighbours keep
    # faces that the usual three or five lose; what is none, the network sorts out.
    margin = round(HAAR_MARGIN * max(seen.shape[:2]))
    grey = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY)
    grey = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_REPLICATE)

    def look(cascade, grey):
        return np.reshape(cascade.detectMultiScale(grey, 1.1, 2, minSize=(32, 32)), (-1, 4)).astype(np.float64)

    mirrored = look(profile, grey[:, ::-1].copy())  # it knows one side
    mirrored[:, 0] = grey.shape[1] - mirrored[:, 0] - mirrored[:, 2]
    found = np.concatenate([look(frontal, grey), look(profile, grey), mirrored])
    return _to_corners(found - [margin, margin, 0, 0], scale)


def _to_corners(found, scale):
    """x, y, width, height in a picture that was shrunk, [N, 4], as float64 [N, 4] of Detector."""
    found = np.asarray(found, np.float64) / scale
    return np.hstack([found[:, :2], found[:, :2] + found[:, 2:]])
