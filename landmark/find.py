"""From landmark.pb to points: on crops, on the faces of whole photos, on faces followed through a video."""

import itertools
import math
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf

from landmark.formats import KINDS
from landmark.graphs import read_graph
from landmark.points import LANDMARKS, crop_box, crop_face, to_photo
from senet import INPUT_NAME, OUTPUT_NAME

OWN_PB = Path("landmark.pb")
SHIPPED_PB = Path(__file__).resolve().parents[1] / "models" / "landmark.pb"
KIND_ATTRIBUTE = "_points"  # of the input; readers pass over names that begin so
YUNET = "face_detection_yunet_2023mar.onnx"
YUNET_URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{YUNET}"
DETECTOR_SIDE = 640  # the detector sees a picture no longer than this, pixels: faces from a 20th of it
HAAR_MARGIN = 0.1  # around what the cascade sees, in its longer side
# The corners of the crop of contract 2 in a detector's box, x y as shares of its sides: data/fit_detector.py.
HAAR_CROP = np.array([[0.048, -0.014], [0.956, 1.108]])
# Not fitted: its training faces (WIDER FACE) are boxed from forehead to chin, as the crop is but for its margins.
YUNET_CROP = np.array([[0.0, 0.0], [1.0, 1.0]])
NUDGE = 0.05  # a face's points are the mean over two crops, this share of the sides off its box to either side
# Points that follow the nudge by more than this share of it lie on no face: 99% of the held-out faces of 300W_LP stay
# under 0.28, 99% of as many crops of their backgrounds lie over 0.42.
NO_FACE = 0.4
REFINEMENTS = 3  # of a detected face: evaluate.py --detect gives 4.6% NME with 1, 4.3% with 2, 4.2% with 3
SMALLEST = 8  # side of a face in pixels
OVERLAP = 0.3  # boxes that share more than this of their union are of one face
SEARCH = 30  # frames for which a lost face is looked for while others are followed
# One Euro filter, in frames and sides of the face's box; data/README.md has what it does to noise and lag.
SLOWEST, OPENING, SPEED_SHARE = 0.02, 20, 0.2

# number: int; box: (x_min, y_min, x_max, y_max), ints, what the points were cut with; points: float64 [68, 2], both in
# pixels of the picture; milliseconds: float, for the points.
Face = namedtuple("Face", "number box points milliseconds")


def default_pb():
    """The Path of the user's own landmark.pb, else, with a word about it, of the one in models/."""
    if OWN_PB.exists() or not SHIPPED_PB.exists():
        return OWN_PB
    print(f"no {OWN_PB} yet: using {SHIPPED_PB}")
    return SHIPPED_PB


def load_graph(path):
    """Loads a frozen graph as any other program would.

    Args:
        path: of landmark.pb.

    Returns:
        tf.Graph that holds INPUT_NAME and OUTPUT_NAME.

    Raises:
        ValueError: as of graphs.read_graph.
    """
    definition = read_graph(path)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    return graph


def kind_of(graph):
    """The kind of points (formats.KINDS) that a graph of load_graph was trained on, as freeze_graph.py notes it."""
    try:
        return graph.get_tensor_by_name(INPUT_NAME).op.get_attr(KIND_ATTRIBUTE).decode()
    except ValueError:  # no such attribute: from before there was a choice
        return KINDS[0]


def predict(session, crops):
    """Points on crops, by a session on a graph of load_graph.

    Args:
        session: tf.Session.
        crops: uint8 or float32 [N, 128, 128, 3], BGR, 0..255.

    Returns:
        float32 [N, 136]: x0 y0 ... x67 y67 as shares of the crop's sides.

    Raises:
        ValueError: the graph looks like one, but cannot be run.
    """
    try:
        return session.run(OUTPUT_NAME, {INPUT_NAME: crops})
    except tf.errors.OpError as error:
        raise ValueError(
            f"the graph is damaged: write one with python freeze_graph.py ({type(error).__name__})"
        ) from None


def find_landmarks(session, picture, boxes):
    """Points in some boxes of a picture.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        boxes: ints [N, 4], x_min y_min x_max y_max in pixels of the picture, each overlapping it.

    Returns:
        float64 [N, 68, 2], x and y in pixels of the picture.
    """
    crops = np.stack([crop_face(picture, box) for box in boxes])
    return to_photo(predict(session, crops).reshape(-1, LANDMARKS, 2), boxes)


# Whole photos


def load_detector(path=None):
    """The face detector: YuNet from its ONNX file, else the Haar cascade of the installed OpenCV.

    Returns:
        cv2.FaceDetectorYN or cv2.CascadeClassifier, for detect_boxes.

    Raises:
        ValueError: the file is no YuNet; or none is given, and this OpenCV (5) has no cascade.
    """
    if path:
        try:
            return cv2.FaceDetectorYN.create(str(path), "", (DETECTOR_SIDE, DETECTOR_SIDE))
        except cv2.error:
            raise ValueError(f"--detector {path} is not {YUNET}: get it from {YUNET_URL}") from None
    if not hasattr(cv2, "CascadeClassifier"):
        raise ValueError(f"OpenCV {cv2.__version__} has no face cascade: get {YUNET_URL}, then --detector {YUNET}")
    return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")


def detect_boxes(detector, picture):
    """The boxes of a detector as it gives them.

    Args:
        detector: of load_detector.
        picture: uint8 [H, W, 3], BGR.

    Returns:
        float64 [N, 4], x_min y_min x_max y_max in pixels of the picture.
    """
    scale = min(1, DETECTOR_SIDE / max(picture.shape[:2]))
    seen = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    if isinstance(detector, cv2.FaceDetectorYN):
        detector.setInputSize(seen.shape[1::-1])
        found = detector.detect(seen)[1]
        found = np.empty([0, 4]) if found is None else found[:, :4]
    else:
        # With a margin it finds 47 of 50 faces whose crop the photo's edge cuts by 7%, without it 35. Two neighbours
        # keep faces that the usual three or five lose; what is none, refine sorts out.
        margin = round(HAAR_MARGIN * max(seen.shape[:2]))
        grey = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY)
        grey = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        found = np.reshape(detector.detectMultiScale(grey, 1.1, 2, minSize=(32, 32)), (-1, 4)) - [margin, margin, 0, 0]
    found = found.astype(np.float64) / scale
    return np.hstack([found[:, :2], found[:, :2] + found[:, 2:]])


def overlap(box, other):
    """What two boxes (x_min, y_min, x_max, y_max) share, as a share of their union: 0..1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / sum([(x_max - x_min) * (y_max - y_min) for x_min, y_min, x_max, y_max in (box, other)], -shared)


def match_box(box, others):
    """The index of the one of some boxes that overlaps a box most, or None where none is of the same face."""
    shared = [overlap(box, other) for other in others]
    return int(np.argmax(shared)) if max(shared, default=0) > OVERLAP else None


def can_hold_face(box, picture):
    """Whether a box, ints [4], has some size, and its middle in the picture."""
    middle, sides, frame = (box[:2] + box[2:]) / 2, box[2:] - box[:2], np.array(picture.shape[1::-1])
    return ((middle > 0) & (middle < frame) & (sides >= SMALLEST) & (sides < 2 * frame.max())).all()


def refine(session, picture, points):
    """The points of a face about which something is known: from a first look, or in the frame before.

    The network always answers with a face. On a real one the points stay where they are when the crop moves a little;
    elsewhere they move along with it.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        points: float64 [68, 2], about where they are.

    Returns:
        (box, points float64 [68, 2]), both in pixels of the picture, or None where there is no face.
    """
    box = np.array(crop_box(points))
    if not can_hold_face(box, picture):
        return None
    nudge = np.tile(np.ceil(NUDGE * (box[2:] - box[:2])).astype(int), 2)
    pair = find_landmarks(session, picture, [box - nudge, box + nudge])
    moved = np.linalg.norm(pair[0] - pair[1], axis=-1).mean() / np.linalg.norm(2 * nudge[:2])
    return None if moved > NO_FACE else (tuple(box.tolist()), pair.mean(0))


def take_crop(session, picture):
    """The face of a picture that is a face crop: a list of one Face."""
    began = time.perf_counter()
    box = 0, 0, picture.shape[1], picture.shape[0]
    points = find_landmarks(session, picture, [box])[0]
    return [Face(0, box, points, 1000 * (time.perf_counter() - began))]


def detect_faces(session, detector, picture, known=()):
    """The faces of a whole photo: found by the detector, refined with the crop of their points.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector.
        picture: uint8 [H, W, 3], BGR.
        known: boxes of faces to leave out.

    Returns:
        list of Face.
    """
    corners = YUNET_CROP if isinstance(detector, cv2.FaceDetectorYN) else HAAR_CROP
    faces = []
    for box in np.round(to_photo(corners, detect_boxes(detector, picture))).astype(int).reshape(-1, 4):
        if not can_hold_face(box, picture):
            continue
        began = time.perf_counter()
        refined = box, find_landmarks(session, picture, [box])[0]
        for _ in range(REFINEMENTS):
            refined = refined and refine(session, picture, refined[1])
        taken = [*known, *(face.box for face in faces)]
        if refined and match_box(refined[0], taken) is None:
            faces.append(Face(len(faces), *refined, 1000 * (time.perf_counter() - began)))
    return faces


# Videos


def one_euro(points, before, speed, side):
    """One frame of a One Euro filter (Casiez, Roussel, Vogel, CHI 2012): a low-pass that opens with the speed.

    Args:
        points: float64 [68, 2], as found.
        before: float64 [68, 2], as steadied in the frame before.
        speed: float64 [68, 2], sides a frame, of the frame before.
        side: of the face, in pixels.

    Returns:
        (points steadied, speed), float64 [68, 2] each.
    """
    speed = speed + SPEED_SHARE * ((points - before) / side - speed)
    cutoff = SLOWEST + OPENING * np.linalg.norm(speed, axis=-1, keepdims=True)
    share = 1 / (1 + 1 / (2 * math.pi * cutoff))
    return before + share * (points - before), speed


def follow_faces(session, detector, frames):
    """Follows faces from frame to frame; the detector runs only while one is lost or none is there.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector.
        frames: iterable of uint8 [H, W, 3], BGR.

    Yields:
        (frame, list of Face whose points are steadied, seconds it took).
    """
    numbers, tracks, missing, search = itertools.count(), [], 0, 0
    for frame in frames:
        began = time.perf_counter()
        faces, followed = [], []
        for number, found, before, speed in tracks:
            start = time.perf_counter()
            refined = refine(session, frame, found)
            if refined and match_box(refined[0], [other.box for other in faces]) is None:
                box, found = refined
                points, speed = one_euro(found, before, speed, box[2] - box[0])
                followed.append((number, found, points, speed))
                faces.append(Face(number, box, points, 1000 * (time.perf_counter() - start)))
        lost = len(tracks) - len(followed)
        search = SEARCH if lost else search - 1
        missing = lost + (missing if search > 0 else 0)
        if missing or not followed:
            for face in detect_faces(session, detector, frame, [face.box for face in faces]):
                face = face._replace(number=next(numbers))
                followed.append((face.number, face.points, face.points, np.zeros_like(face.points)))
                faces.append(face)
                missing = max(missing - 1, 0)
        tracks = followed
        yield frame, faces, time.perf_counter() - began
