"""From a model to points: on crops, on the faces of whole photos, on faces followed through a video."""

import itertools
import math
import os
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np

from landmark.cli import UserError
from landmark.detectors import load_detector
from landmark.measures import measure_openings
from landmark.points import IMAGE_SIZE, LANDMARKS, bounds, crop_face, match_box, to_photo
from landmark.pose import estimate_pose, estimate_tilt
from landmark.runtimes import check_model, loader_for

OWN_MODEL = Path("landmark.pb")
SHIPPED_MODEL = Path(__file__).resolve().parents[1] / "models" / "landmark.pb"
MIN_SCORE = 0.5  # of a face
NUDGE = 0.05  # a face's points are the mean over two crops, moved this share of their sides to either side
# The score is a logistic function: 0.5 where points follow the nudge by this share of it (data/fit_detection.py).
SCORE_MIDPOINT, STEEPNESS = 0.24, 3.7
SURE = 0.9  # a box whose face has this score is not tried in other quarter turns
QUARTERS = 0, 90, 270, 180  # degrees by which a picture is turned to find faces that do not stand upright
# Degrees: if every face found is tilted further than this, turned copies may show more. It is below 45 because heads in
# a group that is turned by 45 to 60 degrees differ.
UPRIGHT = 35
REFINEMENTS = 3  # of a detected face: evaluate.py --detect gives 4.6% NME with 1, 4.3% with 2, 4.2% with 3
SMALLEST = 8  # side of a face in pixels
SEARCH = 30  # frames for which a lost face is looked for while others are followed
# One Euro filter, in frames and sides of the face's box; data/README.md has its effect on noise and lag.
MIN_CUTOFF, BETA, SPEED_ALPHA = 0.02, 20, 0.2


class Face(namedtuple("Face", "number box points spread score pose milliseconds")):
    """A face in a picture. number: int, from 0, the same for as long as the face is followed; box: float64 [4, 2], the
    corners of its crop at the face's top left, top right, bottom right and bottom left; points: float64 [68, 2];
    spread: float64 [68], how far apart two crops put each point; all in pixels of the picture. score: 0..1, that it
    is a face; pose: Pose; milliseconds: float, time spent on its points. eye_open: (right, left), the person's, floats,
    and mouth_open: float, see measure_openings."""

    __slots__ = ()
    eye_open = property(lambda face: tuple(measure_openings(face.points)[:2].tolist()))
    mouth_open = property(lambda face: float(measure_openings(face.points)[2]))


# A face that is followed. points: as found in the frame before, float64 [68, 2]; steady: the same, filtered; speed:
# float64 [68, 2], sides of its box a frame.
Track = namedtuple("Track", "number points steady speed")


class FaceFinder:
    """Finds the faces of a picture and their points: call it with uint8 [H, W, 3], BGR, to get a list of Face.

    predict: function of crops that returns points, as the loaders of runtimes.py return it.
    detector: Detector.
    any_angle: whether to search turned copies of every picture, not only of those without an upright face.
    min_score: 0..1, drop faces below it.
    """

    def __init__(self, predict, detector, any_angle=False, min_score=MIN_SCORE):
        self.predict, self.detector, self.any_angle, self.min_score = predict, detector, any_angle, min_score

    def __call__(self, picture, known=(), turns=QUARTERS):
        """The faces of a picture, the surest first, without the `known` ones.

        turns: degrees by which to turn copies of the picture, 0 first.
        Raises UserError: it is no picture; OpenCV's imread returns None for a file that it cannot read.
        """
        check_picture(picture)
        found = []
        for turn in turns:
            for box in find_boxes(self.detector, picture, turn):
                if not can_hold_face(box, picture):
                    continue
                began = time.perf_counter()
                face = find_upright(self.predict, picture, box)
                if face and face.score >= self.min_score:
                    found.append(face._replace(milliseconds=1000 * (time.perf_counter() - began)))
            tilts = [abs((estimate_tilt(face.points) - turn + 180) % 360 - 180) for face in found]
            if (known or min(tilts, default=180) < UPRIGHT) and not self.any_angle:
                break
        faces, taken = [], [bounds(face.points) for face in known]
        for face in sorted(found, key=lambda face: -face.score):
            if match_box(bounds(face.points), taken) is None:
                taken.append(bounds(face.points))
                faces.append(face._replace(number=len(faces), pose=estimate_pose(face.points)))
        return faces


class FaceTracker:
    """Follows the faces of a video: call it with one frame after the other, uint8 [H, W, 3], BGR.

    It returns a list of Face with smoothed points. A face's crop comes from its points in the frame before; the
    detector runs only while a face is lost or none is there.

    find_faces: FaceFinder, as load_model() returns it.
    """

    def __init__(self, find_faces):
        self.find_faces, self.tracks, self.missing, self.search = find_faces, [], 0, 0
        self.numbers, self.turns = itertools.count(), itertools.cycle(QUARTERS[1:])

    def __call__(self, frame):
        check_picture(frame)
        faces, tracks = [], []
        for track in self.tracks:
            began = time.perf_counter()
            face = refine_face(self.find_faces.predict, frame, track.points)
            taken = [bounds(other.points) for other in faces]
            if face and face.score >= self.find_faces.min_score and match_box(bounds(face.points), taken) is None:
                side = np.linalg.norm(face.box[1] - face.box[0])
                steady, speed = one_euro(face.points, track.steady, track.speed, side)
                tracks.append(Track(track.number, face.points, steady, speed))
                face = face._replace(number=track.number, points=steady, pose=estimate_pose(steady))
                faces.append(face._replace(milliseconds=1000 * (time.perf_counter() - began)))
        lost = len(self.tracks) - len(tracks)
        self.search = SEARCH if lost else self.search - 1
        self.missing = lost + (self.missing if self.search > 0 else 0)
        if self.missing or not tracks:
            # A frame without a face is searched upright and in one more turn only, to keep up with the video.
            turns = QUARTERS if self.find_faces.any_angle else (0, next(self.turns))
            for face in self.find_faces(frame, faces, turns):
                face = face._replace(number=next(self.numbers))
                tracks.append(Track(face.number, face.points, face.points, np.zeros_like(face.points)))
                faces.append(face)
                self.missing = max(self.missing - 1, 0)
        self.tracks = tracks
        return faces


def load_model(path=SHIPPED_MODEL, detector=None, any_angle=False, min_score=MIN_SCORE):
    """Loads a model and a face detector: a FaceFinder.

    path: of a model: landmark.pb, run by OpenCV; or a .tflite or .onnx file, whose runtime must be installed.
    detector: path of a YuNet file, or None for the RetinaFace that comes with this repository.
    any_angle, min_score: see FaceFinder.
    Raises UserError: the model or detector cannot be read.
    """
    predict = loader_for(path)(path)
    check_model(predict, path)
    return FaceFinder(predict, load_detector(detector), any_angle, min_score)


def check_picture(picture):
    """Raises UserError if a picture is not uint8 [H, W, 3], H and W above 0."""
    dtype, shape = getattr(picture, "dtype", None), getattr(picture, "shape", ())
    if dtype != np.uint8 or shape[2:] != (3,) or 0 in shape:
        found = f"{dtype} {list(shape)}" if dtype else type(picture).__name__
        raise UserError(f"a picture is uint8 [H, W, 3], BGR, and not {found}")


def default_model():
    """The Path of the user's own landmark.pb, or of the one in models/ if there is none."""
    return OWN_MODEL if OWN_MODEL.exists() else Path(os.path.relpath(SHIPPED_MODEL))


# On crops


def find_landmarks(predict, picture, corners):
    """Points, float64 [N, 68, 2] in pixels of a picture, in boxes: corners float64 [N, 4, 2], see upright_box."""
    shares = predict(np.stack([cut_upright(picture, box) for box in corners])).reshape(-1, LANDMARKS, 2)
    corners = np.asarray(corners)
    return shares.astype(np.float64) @ (corners[:, [1, 3]] - corners[:, :1]) + corners[:, :1]


def predict_twice(predict, picture, box):
    """The Face in a box, float64 [4, 2], by two crops a little to either side; number, pose and milliseconds are None.

    The network always answers with a face. On a real one the points stay where they are when the crop moves a little;
    elsewhere they move along with it.
    """
    nudge = NUDGE * (box[2] - box[0])
    pair = find_landmarks(predict, picture, [box - nudge, box + nudge])
    points, spread = pair.mean(0), np.linalg.norm(pair[0] - pair[1], axis=-1)
    moved = spread.mean() / np.linalg.norm(2 * nudge)  # how far they followed the crop, as a share of its shift
    return Face(None, box, points, spread, float(1 / (1 + (moved / SCORE_MIDPOINT) ** STEEPNESS)), None, None)


def find_on_crop(predict, picture):
    """The Face of a picture that is a face crop, in a list."""
    began = time.perf_counter()
    box = 0, 0, *picture.shape[1::-1]
    points = to_photo(predict(crop_face(picture, box)[None]).reshape(LANDMARKS, 2), box)
    face = predict_twice(predict, picture, box_corners(box))._replace(points=points, pose=estimate_pose(points))
    return [face._replace(number=0, milliseconds=1000 * (time.perf_counter() - began))]


# On whole photos


def can_hold_face(corners, picture):
    """Whether a box, corners float64 [4, 2], has a face's size and its middle in the picture."""
    middle, sides = corners.mean(0), np.linalg.norm(corners[[1, 3]] - corners[0], axis=-1)
    frame = np.array(picture.shape[1::-1])
    return ((middle > 0) & (middle < frame) & (sides >= SMALLEST) & (sides < 2 * frame.max())).all()


def refine_face(predict, picture, points):
    """The face cut upright by its approximate points, float64 [68, 2]: see predict_twice; None if it does not fit."""
    corners = upright_box(points, estimate_tilt(points))
    return predict_twice(predict, picture, corners) if can_hold_face(corners, picture) else None


def find_upright(predict, picture, box):
    """The face in a box of find_boxes, tried in all four quarter turns unless one is sure: see refine_face."""
    best = None
    for quarter in 0, 1, 3, 2:
        points = find_landmarks(predict, picture, [np.roll(box, quarter, axis=0)])[0]
        for _ in range(REFINEMENTS):
            face = refine_face(predict, picture, points)
            if face is None:
                break
            points = face.points
        if face and (best is None or face.score > best.score):
            best = face
        if best and best.score > SURE:
            break
    return best


def find_boxes(detector, picture, turn):
    """The approximate crops, list of corners float64 [4, 2], of the faces that a detector sees in a picture, turned so
    that faces tilted clockwise by `turn` degrees are upright."""
    copy, matrix = turn_picture(picture, turn)
    back = cv2.invertAffineTransform(matrix)
    crops = to_photo(detector.crop, detector.find(copy)).reshape(-1, 4)
    return [box_corners(crop) @ back[:, :2].T + back[:, 2] for crop in crops]


def turn_picture(picture, degrees):
    """A picture turned anticlockwise, whole, black around it; and the matrix, float64 [2, 3], that maps its points."""
    size = np.array(picture.shape[1::-1])
    matrix = cv2.getRotationMatrix2D((size / 2).tolist(), degrees, 1)
    frame = np.round(np.abs(matrix[:, :2]) @ size)
    matrix[:, 2] += (frame - size) / 2
    return cv2.warpAffine(picture, pixel_matrix(matrix), frame.astype(int)) if degrees else picture, matrix


# The crop of a face that may be tilted


def upright_box(points, roll):
    """The crop_box of a tilted face, turned with it and not cut to whole pixels.

    points: float64 [68, 2] in pixels of the photo.
    roll: degrees by which the face is turned clockwise in the photo.
    Returns: float64 [4, 2], the corners in pixels of the photo, at the upright face's top left, top right, bottom right
        and bottom left.
    """
    turn = turn_back(roll)
    low, high = (points @ turn).min(0), (points @ turn).max(0)
    sides = high - low
    low = low - sides * [0.05, 0.30]
    return box_corners([*low, *(low + sides * [1.05 * 1.05, 1.30 * 1.05])]) @ turn.T


def turn_back(degrees):
    """The matrix [2, 2] that turns rows x y, y down, anticlockwise: `points @ turn_back(roll)` stand upright, and
    `points @ turn_back(roll).T` are turned clockwise."""
    return cv2.getRotationMatrix2D((0, 0), -degrees, 1)[:, :2]


def box_corners(box):
    """The corners of a box (x_min, y_min, x_max, y_max): float64 [4, 2], clockwise from x_min y_min."""
    x_min, y_min, x_max, y_max = box
    return np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]], np.float64)


def cut_upright(photo, corners):
    """crop_face() for a tilted box, corners float64 [4, 2] as upright_box returns them: uint8 [128, 128, 3]."""
    # OpenCV warps only pictures of less than 32,767 pixels a side.
    low, high = (np.clip(edge, 0, photo.shape[1::-1]).astype(int) for edge in (corners.min(0) - 1, corners.max(0) + 2))
    photo, first = photo[low[1] : high[1], low[0] : high[0]], corners[0] - low
    matrix = pixel_matrix(np.column_stack([(corners[[1, 3]] - corners[0]).T / IMAGE_SIZE, first]))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, matrix, (IMAGE_SIZE, IMAGE_SIZE), flags=flags)


def pixel_matrix(matrix):
    """The matrix for cv2.warpAffine where points are mapped by a matrix, float64 [2, 3] both: OpenCV's origin is the
    centre of the first pixel, ours its corner."""
    return np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2].sum(1) / 2 - 0.5])


# In videos


def one_euro(points, before, speed, side):
    """One frame of a One Euro filter (Casiez, Roussel, Vogel, CHI 2012): a low-pass that opens with the speed.

    Takes the points as found, as filtered in the frame before, their speed then (sides a frame), float64 [68, 2] each,
    and the face's side in pixels. Returns (the points filtered, their speed).
    """
    speed = speed + SPEED_ALPHA * ((points - before) / side - speed)
    cutoff = MIN_CUTOFF + BETA * np.linalg.norm(speed, axis=-1, keepdims=True)
    share = 1 / (1 + 1 / (2 * math.pi * cutoff))
    return before + share * (points - before), speed
