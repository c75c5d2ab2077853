"""Fits a head to a photo: its shape and pose from the 68 points, and the points seen in other poses.

The fit is the likeliest head, where heads have the mean shape of 300W_LP's and differ from it as the people that
make_sample.py draws do. Space: as in head.py, with the origin between the ears at eye height.
"""

from collections import namedtuple
from functools import cache

import numpy as np

from landmark.points import MIRROR
from people import EYE, SKIN, draw_expression, draw_person, express, model, places

INNER = slice(17, 68)  # all points but those of the jaw, which slide over the cheek of a turned head
SAMPLES = 400  # random people, and as many smooth moves
ORIGIN = np.array([0, 0, 7.0])  # of the space of people.py, in this one
ROW = 24  # points of an outline's row
ROWS_OF = slice(68, 68 + 17 * ROW)  # where the rows of the jaw's landmarks are among the places of a head

# The mean head of 300W_LP's turned variants, centimetres: x, y and z of the landmarks of its left half.
# From the training faces of IBUG: the pts_3d of a face's variants are parallel views of one rigid head, which give its
# shape and their poses (Tomasi, Kanade, "Shape and Motion from Image Streams under Orthography", IJCV 1992); the heads
# were aligned by brows, nose and eyes, and made symmetric.
HALF = {
    16: [7.28, 0.90, 0.62], 15: [7.09, 2.89, 0.97], 14: [6.75, 4.71, 1.24], 13: [6.39, 6.41, 1.65],
    12: [5.87, 8.27, 2.55], 11: [4.92, 9.72, 4.14], 10: [3.75, 10.63, 6.04], 9: [2.23, 11.42, 7.82],
    8: [0, 11.89, 8.56], 26: [5.72, -1.60, 6.77], 25: [4.89, -2.33, 7.92], 24: [3.81, -2.60, 8.73],
    23: [2.79, -2.54, 9.25], 22: [1.87, -2.30, 9.52], 27: [0, -0.20, 9.95], 28: [0, 1.01, 10.94], 29: [0, 2.12, 11.96],
    30: [0, 3.13, 12.24], 35: [1.24, 4.26, 10.06], 34: [0.72, 4.31, 10.53], 33: [0, 4.42, 10.75],
    45: [4.38, -0.08, 7.58], 44: [3.71, -0.51, 8.36], 43: [2.75, -0.51, 8.39], 42: [1.89, -0.04, 8.16],
    47: [2.69, 0.17, 8.40], 46: [3.68, 0.20, 8.18], 54: [2.73, 6.94, 8.65], 53: [1.82, 6.10, 9.99],
    52: [0.62, 5.59, 10.71], 51: [0, 5.70, 10.79], 57: [0, 8.25, 10.29], 56: [0.93, 8.16, 10.17],
    55: [1.76, 7.74, 9.65], 64: [2.52, 6.90, 8.68], 63: [0.83, 6.35, 10.20], 62: [0, 6.28, 10.43], 66: [0, 7.37, 10.15],
    65: [0.83, 7.29, 10.00],
}  # fmt: skip
MEAN = np.array([HALF.get(k) or np.multiply(HALF[MIRROR[k]], [-1, 1, 1]) for k in range(68)])
# The rows that its jaw points 16, 15, ... 9 slide along when that side is turned away, level lines over the cheek to
# the nose, the lips and the chin: where pts_2d lie on average at yaws of 25, 40, 55, 70 and 85 degrees.
ROWS = np.array([
    [[6.4, 0.8, 5.4], [5.4, 0.7, 6.8], [4.7, 0.6, 7.6], [3.8, 0.6, 8.2], [1.8, 0.6, 8.8]],
    [[6.2, 2.6, 6.3], [5.5, 2.7, 7.5], [4.9, 2.8, 8.0], [3.3, 2.7, 8.9], [2.2, 2.7, 9.3]],
    [[5.9, 4.3, 6.5], [5.1, 4.3, 7.8], [4.5, 4.4, 8.4], [3.4, 4.5, 9.1], [2.6, 4.6, 9.4]],
    [[5.7, 6.0, 6.0], [4.5, 6.0, 7.9], [3.0, 5.9, 9.4], [1.0, 5.9, 10.5], [0.2, 5.9, 10.8]],
    [[5.4, 8.0, 5.8], [4.3, 8.0, 7.4], [3.5, 8.2, 8.4], [2.0, 8.6, 9.5], [1.5, 8.6, 9.9]],
    [[4.5, 9.6, 6.2], [3.4, 9.6, 7.8], [2.6, 9.9, 8.7], [1.6, 10.1, 9.5], [1.1, 10.1, 9.8]],
    [[3.5, 10.5, 7.0], [2.6, 10.6, 8.3], [2.1, 10.7, 9.0], [1.6, 10.7, 9.5], [1.1, 10.8, 9.7]],
    [[2.3, 11.3, 8.1], [2.0, 11.3, 8.5], [1.6, 11.3, 8.9], [1.1, 11.3, 9.2], [0.6, 11.3, 9.4]],
])  # fmt: skip


# A head in a photo. places: [N, 3], centimetres: the landmarks, ROW points of each of the jaw's rows, the vertices of
# people.py; scale: pixels per centimetre; turn: [3, 3], the pose; origin: [2], of the space in the photo, pixels.
Fit = namedtuple("Fit", "places scale turn origin")


@cache
def prior():
    """Heads as a Gaussian: a mean and moves, each times an independent number of mean 0 and deviation 1.

    The moves are those of the people that make_sample.py draws, and smooth ones for what real faces have beyond them.
    Returns: (mean [N, 3], the places of a Fit; moves float32 [2 * SAMPLES, N, 3]; triangles [T, 3] of its surface).
    """
    rng, m, faces = np.random.default_rng(0), model(), []
    for _ in range(SAMPLES):
        rest, who = draw_person(rng)
        face = express(rest, draw_expression(rng))
        faces.append(np.concatenate([places(face, who["brow"]), face]) + ORIGIN)
    mean = np.mean(faces, 0)
    moves = [face - mean for face in faces]

    mean = bend(mean, np.arange(68), MEAN)
    # The rows lead from a landmark over the vertices that are nearest to ROWS, which are bent there.
    ends = np.concatenate([ROWS * [-1, 1, 1], np.tile(MEAN[8], (1, 5, 1)), ROWS[::-1]])
    outside = 68 + np.flatnonzero((m["kind"] == SKIN) & (m["sky"] > 0.4))
    near = outside[np.linalg.norm(ends[..., None, :] - mean[outside], axis=-1).argmin(-1)]
    mean = bend(mean, np.r_[:68, near.ravel()], np.concatenate([MEAN, ends.reshape(-1, 3)]))
    for _ in range(SAMPLES):  # waves, of lengths that make moves by 0.3 cm which are alike over 5 cm
        waves, phase = rng.normal(0, 1 / 5, (3, 3)), rng.uniform(0, 2 * np.pi, 3)
        moves.append(0.3 * np.sqrt(2) * np.cos(mean @ waves + phase))
    steps = np.stack([np.interp(np.linspace(0, 5, ROW), range(6), share) for share in np.eye(6)], 1)
    path = np.c_[:17, near]

    def add_rows(heads):
        rows = (steps @ heads[:, path]).reshape(len(heads), -1, 3)
        return np.concatenate([heads[:, :68], rows, heads[:, 68:]], 1)

    shown = np.isin(m["kind"], [SKIN, EYE]) & (m["follow"] > 0.9)
    tri = m["triangles"][shown[m["triangles"]].all(1)] + ROWS_OF.stop
    return add_rows(mean[None])[0], add_rows(np.float32(moves) / np.float32(np.sqrt(SAMPLES))), tri


def bend(places, which, ends):
    """Moves places [N, 3] smoothly, over about 2 cm, so that those with the numbers `which` come to ends [K, 3]."""
    alike = np.exp(-((places[:, None] - places[which]) ** 2).sum(-1) / (2 * 2**2))
    return places + alike @ np.linalg.solve(alike[which] + 0.1**2 * np.eye(len(which)), ends - places[which])


def fit_pose(model, points):
    """The weak-perspective pose in which points [N, 3], centimetres, are seen at [N, 2], pixels: (scale, turn, origin),
    as in Fit. Least squares: each round gives the seen points the model's depth and fits a rotation (Kabsch)."""
    middle, seen_middle = model.mean(0), points.mean(0)
    model, seen = model - middle, points - seen_middle
    u, s, vt = np.linalg.svd(np.linalg.lstsq(model, seen, rcond=None)[0].T, full_matrices=False)
    scale, turn = s.mean(), u @ vt
    turn = np.array([*turn, np.cross(*turn)])
    for _ in range(25):
        u, _, vt = np.linalg.svd(np.c_[seen, scale * model @ turn[2]].T @ model)
        turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        flat_model = model @ turn[:2].T
        scale = (flat_model * seen).sum() / (flat_model**2).sum()
    return scale, turn, seen_middle - scale * turn[:2] @ middle


def seen_places(places, turn):
    """The numbers, among the places of a Fit, of what is seen as pts_2d in a pose [3, 3]: [68].

    The jaw landmarks of the side that is turned away are seen where their row is outermost across the head. Those of
    the other side do not slide.
    """
    down = turn[:2, 1] / np.linalg.norm(turn[:2, 1])
    across = np.array([down[1], -down[0]])
    side = np.sign(turn[:2, 2] @ across)  # where the nose points
    outermost = np.argmax(side * places[ROWS_OF].reshape(17, ROW, 3) @ turn[:2].T @ across, 1)
    away = np.arange(8) if side < 0 else np.arange(9, 17)
    seen = np.arange(68)
    seen[away] = ROWS_OF.start + away * ROW + outermost[away]
    return seen


def see(fit, turn):
    """pts_2d and pts_3d, [68, 2] each, pixels, of a Fit in a pose [3, 3]."""
    points = fit.scale * fit.places @ turn[:2].T + fit.origin
    return points[seen_places(fit.places, turn)], points[:68]


def fit_head(points, is_outline=True):
    """The likeliest head and pose for the points of a photo.

    Each round fits the pose without the jaw points that have slid, finds where on their rows these are, and takes the
    likeliest head given the points. Points are taken as accurate to half a millimetre; those of the outline to one
    across it and five along it, where nothing fixes them.

    points: [68, 2], pixels; is_outline: whether the jaw is on the visible outline, as in pts_2d.
    Returns: Fit.
    """
    mean, moves, _ = prior()
    places, seen = mean, np.arange(68)
    turn = fit_pose(mean[:68][INNER], points[INNER])[1]
    for _ in range(4):
        if is_outline:
            seen = seen_places(places, turn)
        slid = seen >= 68
        scale, turn, origin = fit_pose(places[seen][~slid], points[~slid])
        down = turn[:2, 1] / np.linalg.norm(turn[:2, 1])
        good = np.where(slid[:, None], [0.5, 0.1], 0.05)  # centimetres, along the head's height and across it
        noise = np.zeros((68, 2, 68, 2))
        axes = np.array([down, [down[1], -down[0]]])
        noise[range(68), :, range(68)] = np.einsum("nk,ki,kj->nij", (scale * good) ** 2, axes, axes)
        view = (scale * np.float64(moves[:, seen]) @ turn[:2].T).reshape(len(moves), -1)
        missed = (points - origin - scale * mean[seen] @ turn[:2].T).ravel()
        amounts = view @ np.linalg.solve(view.T @ view + noise.reshape(136, 136), missed)
        places = mean + np.tensordot(np.float32(amounts), moves, 1)
    return Fit(places, *fit_pose(places[seen][~slid], points[~slid]))


def angles(turn):
    """Pitch, yaw and roll, radians, of a rotation [3, 3]: the inverse of head.rotation."""
    pitch, roll = np.arctan2(-turn[1, 2], turn[2, 2]), np.arctan2(-turn[0, 1], turn[0, 0])
    return pitch, -np.arcsin(np.clip(turn[0, 2], -1, 1)), roll


def head_yaw(turn):
    """The degrees by which a head is turned about its own vertical axis, with yaw's sign; its yaw, if it is upright."""
    return np.rad2deg(np.arctan2(turn[2, 0], turn[2, 2]))
