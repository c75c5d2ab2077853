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
from landmark.points import (
    LANDMARKS,
    box_corners,
    crop_face,
    cut_upright,
    from_corners,
    pixel_matrix,
    to_photo,
    upright_box,
)
from landmark.pose import estimate_tilt
from senet import INPUT_NAME, OUTPUT_NAME

OWN_PB = Path("landmark.pb")
SHIPPED_PB = Path(__file__).resolve().parents[1] / "models" / "landmark.pb"
KIND_ATTRIBUTE = "_points"  # of the input; readers pass over names that begin so
NUDGE = 0.05  # a face's points are the mean over two crops, this share of the sides off its box to either side
# Of the score, a logistic function: it is 0.5 where points follow the nudge by this share of it. data/fit_score.py.
NO_FACE, STEEPNESS = 0.27, 4.2
SURE = 0.9  # a box whose face has this score is not looked at in other turns
# Degrees: where all faces are tilted further than this, there may be more of them in a turned copy. Less than 45: of a
# group that is turned by 45 to 60, one holds its head the other way.
UPRIGHT = 35
REFINEMENTS = 3  # of a detected face: evaluate.py --detect gives 4.6% NME with 1, 4.3% with 2, 4.2% with 3
SMALLEST = 8  # side of a face in pixels
OVERLAP = 0.3  # boxes that share more than this of their union are of one face
SEARCH = 30  # frames for which a lost face is looked for while others are followed
# One Euro filter, in frames and sides of the face's box; data/README.md has what it does to noise and lag.
SLOWEST, OPENING, SPEED_SHARE = 0.02, 20, 0.2

# number: int; box: float64 [4, 2], the corners of what the points were cut with, as of points.upright_box; points:
# float64 [68, 2]; spread: float64 [68], how far two looks put a point apart: all in pixels of the picture; score: 0..1,
# that it is a face; milliseconds: float, for the points.
Face = namedtuple("Face", "number box points spread score milliseconds")


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


def find_landmarks(session, picture, corners):
    """Points in some boxes of a picture.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        corners: float64 [N, 4, 2], as of points.upright_box.

    Returns:
        float64 [N, 68, 2], x and y in pixels of the picture.
    """
    crops = np.stack([cut_upright(picture, box) for box in corners])
    return from_corners(predict(session, crops).reshape(-1, LANDMARKS, 2).astype(np.float64), np.asarray(corners))


# Whole photos


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


def can_hold_face(corners, picture):
    """Whether a box, corners float64 [4, 2], has some size, and its middle in the picture."""
    middle, sides = corners.mean(0), np.linalg.norm(corners[[1, 3]] - corners[0], axis=-1)
    frame = np.array(picture.shape[1::-1])
    return ((middle > 0) & (middle < frame) & (sides >= SMALLEST) & (sides < 2 * frame.max())).all()


def bounds(points):
    """The box x_min y_min x_max y_max, float64 [4], around points [N, 2]."""
    return np.concatenate([points.min(0), points.max(0)])


def refine(session, picture, points):
    """A face about which something is known: from a first look, or in the frame before.

    It is cut upright, twice, a little to either side. The network always answers with a face. On a real one the points
    stay where they are when the crop moves a little; elsewhere they move along with it.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        points: float64 [68, 2], about where they are.

    Returns:
        Face, with no number and time yet, or None where the picture has no room for one.
    """
    corners = upright_box(points, estimate_tilt(points))
    if not can_hold_face(corners, picture):
        return None
    return look_twice(session, picture, corners)


def look_twice(session, picture, box):
    """What two crops say, each a little off a box, float64 [4, 2], to either side: Face as of refine."""
    nudge = NUDGE * (box[2] - box[0])
    pair = find_landmarks(session, picture, [box - nudge, box + nudge])
    spread = np.linalg.norm(pair[0] - pair[1], axis=-1)
    return Face(None, box, pair.mean(0), spread, score_face(spread.mean() / np.linalg.norm(2 * nudge)), None)


def score_face(moved):
    """How sure it is that there is a face, 0..1, where points follow their crop by a share of its way."""
    return float(1 / (1 + (moved / NO_FACE) ** STEEPNESS))


def take_crop(session, picture):
    """The face of a picture that is a face crop: a list of one Face."""
    began = time.perf_counter()
    box = 0, 0, *picture.shape[1::-1]
    points = to_photo(predict(session, crop_face(picture, box)[None]).reshape(LANDMARKS, 2), box)
    corners = box_corners(box)
    face = look_twice(session, picture, corners)
    return [face._replace(number=0, points=points, milliseconds=1000 * (time.perf_counter() - began))]


def turn_picture(picture, degrees):
    """A picture turned anticlockwise, whole, black around it.

    Returns:
        (uint8 [H, W, 3]; float64 [2, 3], what maps points of the picture to those of the copy).
    """
    size = np.array(picture.shape[1::-1])
    matrix = cv2.getRotationMatrix2D((size / 2).tolist(), degrees, 1)
    frame = np.round(np.abs(matrix[:, :2]) @ size)
    matrix[:, 2] += (frame - size) / 2
    return cv2.warpAffine(picture, pixel_matrix(matrix), frame.astype(int)) if degrees else picture, matrix


def find_boxes(detector, picture, turn):
    """Where a detector sees faces in a turned copy of a picture.

    Args:
        detector: of detectors.load_detector.
        picture: uint8 [H, W, 3], BGR.
        turn: degrees, clockwise, of the tilt of the faces that are upright in the copy.

    Returns:
        list of float64 [4, 2], about where the crops of faces are, as of points.upright_box.
    """
    copy, matrix = turn_picture(picture, turn)
    back = cv2.invertAffineTransform(matrix)
    crops = to_photo(detector.crop, detector.find(copy)).reshape(-1, 4)
    return [box_corners(crop) @ back[:, :2].T + back[:, 2] for crop in crops]


def look(session, picture, box):
    """The face in a box whose tilt is known to a quarter turn at best.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        box: float64 [4, 2], of find_boxes.

    Returns:
        Face, as of refine, or None.
    """
    best = None
    for quarter in 0, 1, 3, 2:
        points = find_landmarks(session, picture, [np.roll(box, quarter, axis=0)])[0]
        for _ in range(REFINEMENTS):
            face = refine(session, picture, points)
            if face is None:
                break
            points = face.points
        if face and (best is None or face.score > best.score):
            best = face
        if best and best.score > SURE:
            break
    return best


def detect_faces(session, detector, picture, known=()):
    """The faces of a whole photo: found by the detector, refined with the crop of their points.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of detectors.load_detector.
        picture: uint8 [H, W, 3], BGR.
        known: Faces to leave out.

    Returns:
        list of Face, the surest first.
    """
    found = []
    for turn in detector.turns:
        for box in find_boxes(detector, picture, turn):
            if not can_hold_face(box, picture):
                continue
            began = time.perf_counter()
            face = look(session, picture, box)
            if face and face.score >= detector.least_score:
                found.append(face._replace(milliseconds=1000 * (time.perf_counter() - began)))
        off = [abs((estimate_tilt(face.points) - turn + 180) % 360 - 180) for face in found]
        if (known or min(off, default=180) < UPRIGHT) and not detector.any_angle:
            break
    faces, taken = [], [bounds(face.points) for face in known]
    for face in sorted(found, key=lambda face: -face.score):
        if match_box(bounds(face.points), taken) is None:
            taken.append(bounds(face.points))
            faces.append(face._replace(number=len(faces)))
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
        detector: of detectors.load_detector.
        frames: iterable of uint8 [H, W, 3], BGR.

    Yields:
        (frame, list of Face whose points are steadied, seconds it took).
    """
    numbers, tracks, missing, search = itertools.count(), [], 0, 0
    others = itertools.cycle(detector.turns[1:])
    for frame in frames:
        began = time.perf_counter()
        faces, followed = [], []
        for number, found, before, speed in tracks:
            start = time.perf_counter()
            face = refine(session, frame, found)
            taken = [bounds(other.points) for other in faces]
            if face and face.score >= detector.least_score and match_box(bounds(face.points), taken) is None:
                found = face.points
                points, speed = one_euro(found, before, speed, np.linalg.norm(face.box[1] - face.box[0]))
                followed.append((number, found, points, speed))
                milliseconds = 1000 * (time.perf_counter() - start)
                faces.append(face._replace(number=number, points=points, milliseconds=milliseconds))
        lost = len(tracks) - len(followed)
        search = SEARCH if lost else search - 1
        missing = lost + (missing if search > 0 else 0)
        if missing or not followed:
            if not detector.any_angle:  # a frame without a face is searched upright and in one more turn, to keep up
                detector = detector._replace(turns=(0, next(others)))
            for face in detect_faces(session, detector, frame, faces):
                face = face._replace(number=next(numbers))
                followed.append((face.number, face.points, face.points, np.zeros_like(face.points)))
                faces.append(face)
                missing = max(missing - 1, 0)
        tracks = followed
        yield frame, faces, time.perf_counter() - began
