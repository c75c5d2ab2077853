"""What the 68 points of a face are: their order, their crop and their drawing."""

import itertools

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
    """The box of a face's points, float64 [..., 4], from its crop_box: its inverse, up to rounding to pixels."""
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
    """The inverse of to_crop: shares of boxes [..., 4] to points [..., 68, 2] in pixels of the photo."""
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
