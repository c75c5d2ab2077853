"""Face detectors behind one interface: RetinaFace, which comes with this repository, and YuNet."""

import functools
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np

from landmark.cli import UserError
from landmark.runtimes import one_at_a_time

RETINAFACE = Path(__file__).resolve().parents[1] / "models" / "retinaface.onnx"
YUNET = "face_detection_yunet_2023mar.onnx"
YUNET_URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{YUNET}"
YUNET_SIDE, RETINAFACE_SIDE = 640, 448  # pixels: they see pictures shrunk to this
MEAN_COLOUR = 104, 117, 123  # BGR, of its training
STRIDES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # pixels, of its cells, and the sides of the anchors there
CENTRE_VARIANCE, SIDE_VARIANCE = 0.1, 0.2  # Liu et al., "SSD", ECCV 2016, as its authors wrote it
MIN_CONFIDENCE = 0.5
MAX_OVERLAP = 0.4  # of the union of two boxes: above it, the less confident one is dropped
# The corners of the face crop in a detector's box, x y as shares of its sides: data/fit_detection.py.
RETINAFACE_CROP = np.array([[-0.067, 0.018], [1.063, 1.045]])
# Not fitted: its training faces (WIDER FACE) are boxed from forehead to chin, as the crop is but for its margins.
YUNET_CROP = np.array([[0.0, 0.0], [1.0, 1.0]])

# find: function of a picture, uint8 [H, W, 3], BGR, that returns float64 [N, 4], x_min y_min x_max y_max in its pixels;
# crop: where the face crop lies in such a box, float64 [2, 2], two corners x y as shares of its sides.
Detector = namedtuple("Detector", "find crop")


def load_detector(yunet=None):
    """A face detector.

    yunet: path of YuNet's ONNX file, or None for RetinaFace.
    Returns: Detector.
    Raises UserError: the file cannot be read, or is not YuNet.
    """
    if not yunet:
        net = cv2.dnn.readNetFromONNX(np.fromfile(RETINAFACE, np.uint8))
        return Detector(one_at_a_time(functools.partial(_detect_retinaface, net)), RETINAFACE_CROP)
    try:
        model = np.fromfile(yunet, np.uint8)  # OpenCV itself cannot open a name that is not UTF-8
        net = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), (YUNET_SIDE, YUNET_SIDE))
        _detect_yunet(net, np.zeros([YUNET_SIDE, YUNET_SIDE, 3], np.uint8))
    except OSError as error:
        raise UserError(f"cannot read {yunet}: {error.strerror}; get {YUNET} from {YUNET_URL}") from None
    except cv2.error:
        raise UserError(f"{yunet} is not the face detector {YUNET}: get it from {YUNET_URL}") from None
    return Detector(one_at_a_time(functools.partial(_detect_yunet, net)), YUNET_CROP)


def _shrink(picture, side):
    """(the picture shrunk to at most `side` pixels; its scale)."""
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


def _detect_retinaface(net, picture):
    seen, scale = _shrink(picture, RETINAFACE_SIDE)
    # The network takes this size alone: data/convert_detector.py makes its shapes constants.
    below, beside = np.subtract(RETINAFACE_SIDE, seen.shape[:2])
    seen = cv2.copyMakeBorder(seen, 0, int(below), 0, int(beside), cv2.BORDER_CONSTANT, value=MEAN_COLOUR)
    net.setInput(cv2.dnn.blobFromImage(seen, mean=MEAN_COLOUR))
    names = net.getUnconnectedOutLayersNames()  # all of them, or OpenCV 5 refuses
    outputs = dict(zip(names, net.forward(names), strict=True))
    moves, confidences = outputs["loc"][0], outputs["conf"][0]
    chosen = confidences[:, 1] > MIN_CONFIDENCE
    anchors, moves = _anchors()[chosen], moves[chosen].astype(np.float64)
    sides = anchors[:, 2:] * np.exp(SIDE_VARIANCE * moves[:, 2:])
    low = anchors[:, :2] + CENTRE_VARIANCE * moves[:, :2] * anchors[:, 2:] - sides / 2
    boxes = np.hstack([low, sides])
    kept = cv2.dnn.NMSBoxes(boxes, confidences[chosen, 1], MIN_CONFIDENCE, MAX_OVERLAP) if len(boxes) else []
    return _to_corners(boxes[np.array(kept, int)], scale)


def _detect_yunet(net, picture):
    seen, scale = _shrink(picture, YUNET_SIDE)
    net.setInputSize(seen.shape[1::-1])
    found = net.detect(seen)[1]
    return _to_corners(np.empty([0, 4]) if found is None else found[:, :4], scale)


def _to_corners(found, scale):
    """x y width height, [N, 4], in a shrunk picture to x_min y_min x_max y_max in the picture itself."""
    found = np.asarray(found, np.float64) / scale
    return np.hstack([found[:, :2], found[:, :2] + found[:, 2:]])
