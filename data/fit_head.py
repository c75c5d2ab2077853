"""Fits a head to a photo: its shape and pose from the 68 points, and the points seen in other poses.

The fit is the likeliest head, where heads differ from the mean shape in 300W_LP as the people of make_sample.py do. About
200 control points (the 68 landmarks and places between them) move a smooth surface: a thin-plate spline over a flat map
of the head. Space: as in head.py, with the origin between the ears at eye height.
"""

from collections import namedtuple
from functools import cache

import numpy as np

from dress import FLAT, flat
from head import grid_triangles
from people import SKIN, draw_expression, draw_person, express, model, places

INNER = slice(17, 68)  # all points but those of the jaw, which slide over the cheek of a turned head
PRIOR_FACES = 400
ORIGIN = np.array([0, 0, 7.0])  # of the space of people.py, in this one
RADIUS = 0.995  # of the surface on the flat map: 1 would be the point straight behind
GRID, APART = 96, 0.09  # vertices a side of the surface; least distance on the flat map between controls
ROW = 24  # points of an outline's row

# The mean head of 300W_LP's turned variants, centimetres: landmark, its mirror, x, y, z of the landmark.
# From the training faces of IBUG: the pts_3d of a face's variants are parallel views of one rigid head, which give its
# shape and their poses (Tomasi, Kanade, "Shape and Motion from Image Streams under Orthography", IJCV 1992); the heads
# were aligned by brows, nose and eyes, and made symmetric.
HALF = np.array([
    [16, 0, 7.28, 0.90, 0.62], [15, 1, 7.09, 2.89, 0.97], [14, 2, 6.75, 4.71, 1.24], [13, 3, 6.39, 6.41, 1.65],
    [12, 4, 5.87, 8.27, 2.55], [11, 5, 4.92, 9.72, 4.14], [10, 6, 3.75, 10.63, 6.04], [9, 7, 2.23, 11.42, 7.82],
    [8, 8, 0, 11.89, 8.56],
    [26, 17, 5.72, -1.60, 6.77], [25, 18, 4.89, -2.33, 7.92], [24, 19, 3.81, -2.60, 8.73], [23, 20, 2.79, -2.54, 9.25],
    [22, 21, 1.87, -2.30, 9.52],
    [27, 27, 0, -0.20, 9.95], [28, 28, 0, 1.01, 10.94], [29, 29, 0, 2.12, 11.96], [30, 30, 0, 3.13, 12.24],
    [35, 31, 1.24, 4.26, 10.06], [34, 32, 0.72, 4.31, 10.53], [33, 33, 0, 4.42, 10.75],
    [45, 36, 4.38, -0.08, 7.58], [44, 37, 3.71, -0.51, 8.36], [43, 38, 2.75, -0.51, 8.39],
    [42, 39, 1.89, -0.04, 8.16], [47, 40, 2.69, 0.17, 8.40], [46, 41, 3.68, 0.20, 8.18],
    [54, 48, 2.73, 6.94, 8.65], [53, 49, 1.82, 6.10, 9.99], [52, 50, 0.62, 5.59, 10.71], [51, 51, 0, 5.70, 10.79],
    [57, 57, 0, 8.25, 10.29], [56, 58, 0.93, 8.16, 10.17], [55, 59, 1.76, 7.74, 9.65],
    [64, 60, 2.52, 6.90, 8.68], [63, 61, 0.83, 6.35, 10.20], [62, 62, 0, 6.28, 10.43],
    [66, 66, 0, 7.37, 10.15], [65, 67, 0.83, 7.29, 10.00],
])  # fmt: skip
MEAN = np.zeros((68, 3))
MEAN[HALF[:, 1].astype(int)] = HALF[:, 2:] * [-1, 1, 1]
MEAN[HALF[:, 0].astype(int)] = HALF[:, 2:]
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

# A head in a photo. vertices: [V, 3], and rows: [17, ROW, 3], centimetres; scale: pixels per centimetre; turn: [3, 3],
# the pose; origin: [2], where the head's origin is in the photo, pixels.
Fit = namedtuple("Fit", "vertices rows scale turn origin")


def chart(points):
    """Points [N, 3] to the flat map [N, 2], radius 0..1."""
    return flat(points - ORIGIN) * (2 / (FLAT - 1)) - 1


def spline(controls, at):
    """A thin-plate spline as a matrix [N, C], from values at controls [C, 2] to values at places [N, 2]."""

    def kernel(a, b):
        r2 = ((a[:, None] - b[None]) ** 2).sum(-1)
        return r2 * np.log(r2 + 1e-9)

    n = len(controls)
    m = np.zeros((n + 3, n + 3))
    m[:n, :n] = kernel(controls, controls) + 3e-4 * np.eye(n)
    m[:n, n:] = np.c_[np.ones(n), controls]
    m[n:, :n] = m[:n, n:].T
    return np.c_[kernel(at, controls), np.ones(len(at)), at] @ np.linalg.inv(m)[:, :n]


@cache
def head():
    """The surface that all heads share, and what heads are like: a dict, built once.

    faces: [PRIOR_FACES, C, 3], the controls of random people, centimetres, of which the first 68 are the landmarks.
    controls: [C, 3], their mean bent to MEAN; uv: [C, 2], where the controls lie on the flat map.
    matrix: [V, C], controls to vertices, of which the first 68 are the landmarks; tri: [T, 3].
    """
    rng, m = np.random.default_rng(0), model()
    v, chosen = m["vertices"], []
    is_face = (m["kind"] == SKIN) & (m["follow"] > 0.9) & (m["sky"] > 0.4) & (v[:, 1] < 11)
    is_face &= (np.abs(v[:, 0]) < 6.6) | (v[:, 2] > -4.5)  # not the ears
    at = chart(places(v) + ORIGIN)
    for k in np.flatnonzero(is_face):
        spot = chart(v[[k]] + ORIGIN)
        if ((spot - at) ** 2).sum(1).min() > APART**2:
            chosen, at = [*chosen, k], np.concatenate([at, spot])
    faces = []
    for _ in range(PRIOR_FACES):
        rest, who = draw_person(rng)
        face = express(rest, draw_expression(rng))
        faces.append(np.concatenate([places(face, who["brow"]), face[chosen]]) + ORIGIN)
    controls = np.mean(faces, 0)
    view, noise = np.eye(204, controls.size), 0.1**2 * np.eye(204)
    controls = likeliest(controls, smooth(controls, 2), view, MEAN.ravel(), noise)
    uv = chart(controls)
    line = np.linspace(-RADIUS, RADIUS, GRID)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    tri = grid_triangles(GRID, GRID, 68)
    tri = tri[(np.hypot(*grid[tri - 68].transpose(2, 0, 1)) < RADIUS).all(1)]
    matrix = spline(uv, np.concatenate([uv[:68], grid]))
    return {"faces": np.array(faces), "controls": controls, "uv": uv, "matrix": matrix, "tri": tri}


@cache
def prior():
    """Heads as a Gaussian.

    The covariance is that of the faces that make_sample.py draws, plus a smooth one for what real faces have beyond it.
    Returns: (mean [C, 3] and covariance [3C, 3C] of the controls, centimetres; rows [17, ROW, C], a matrix from the
        controls to the points of each jaw landmark's row, itself first).
    """
    covariance = np.cov(head()["faces"].reshape(PRIOR_FACES, -1).T, bias=True) + 0.3**2 * smooth(head()["controls"], 5)
    matrix = head()["matrix"]
    rows, bends = np.repeat(matrix[:17, None], ROW, 1), [[], []]
    ends = np.linspace(0, 1, 1 + ROWS.shape[1])
    for right, row in enumerate(ROWS):
        for jaw, side in (16 - right, 1), (right, -1):
            places = np.concatenate([MEAN[[jaw]], row * [side, 1, 1]])
            # On the flat map the landmark stays where it is, and the places beside it move along.
            path = chart(places)
            path += (1 - ends[:, None]) * (head()["uv"][jaw] - path[0])
            way = np.stack([np.interp(np.linspace(0, 1, ROW), ends, axis) for axis in path.T], 1)
            rows[jaw, 1:] = spline(head()["uv"], way[1:])
            bends[0].append(spline(head()["uv"], path[1:]))
            bends[1].append(places[1:])
    view = np.kron(np.concatenate([matrix[:68], *bends[0]]), np.eye(3))
    places = np.concatenate([MEAN, *bends[1]]).ravel()
    mean = likeliest(head()["controls"], smooth(head()["controls"], 2), view, places, 0.1**2 * np.eye(len(places)))
    return mean, covariance, rows


def smooth(controls, length):
    """Covariance [3C, 3C] of moves of controls [C, 3] by 1 cm that are smooth over a length in centimetres."""
    apart = ((controls[:, None] - controls) ** 2).sum(-1)
    return np.kron(np.exp(-apart / (2 * length**2)), np.eye(3))


def likeliest(mean, covariance, view, places, noise):
    """The mean [C, 3] of the controls, which are a Gaussian, given places [N] = view [N, 3C] @ controls + noise.

    noise: its covariance, [N, N].
    """
    gain = view @ covariance
    missed = places - view @ mean.ravel()
    return mean + (gain.T @ np.linalg.solve(gain @ view.T + noise, missed)).reshape(-1, 3)


def fit_pose(model, points):
    """The weak-perspective pose in which points [N, 3], centimetres, are seen at [N, 2], pixels.

    Least squares: each round gives the seen points the model's depth and fits a rotation (Kabsch).

    Returns: (scale, turn [3, 3], origin [2]), as in Fit.
    """
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


def outline(rows, turn):
    """Where the jaw landmarks of the side that is turned away are seen: dict of landmark to the number of the point in
    its row that is outermost across the head. Those of the other side do not slide."""
    down = turn[:2, 1] / np.linalg.norm(turn[:2, 1])
    across = np.array([down[1], -down[0]])
    side = np.sign(turn[:2, 2] @ across)  # where the nose points
    away = range(8) if side < 0 else range(9, 17)
    return {jaw: np.argmax(side * rows[jaw] @ turn[:2].T @ across) for jaw in away}


def seen_places(fit, turn):
    """The places on the head, [68, 3], centimetres, that are seen as pts_2d in a pose [3, 3]."""
    places = fit.vertices[:68].copy()
    for jaw, number in outline(fit.rows, turn).items():
        places[jaw] = fit.rows[jaw, number]
    return places


def see(fit, turn):
    """pts_2d and pts_3d, [68, 2] each, pixels, of a Fit in a pose [3, 3]."""
    return [fit.scale * places @ turn[:2].T + fit.origin for places in (seen_places(fit, turn), fit.vertices[:68])]


def fit_head(points, is_outline=True):
    """The likeliest head and pose for the points of a photo.

    Each round fits the pose without the jaw points that have slid, finds where on their rows these are, and takes the
    controls' mean given the points. Points are taken as accurate to half a millimetre; those of the outline to one
    across it and five along it, where nothing fixes them.

    points: [68, 2], pixels.
    is_outline: whether the jaw is on the visible outline, as in pts_2d.
    Returns: Fit.
    """
    mean, covariance, rows = prior()
    controls, matrix = mean, head()["matrix"]
    scale, turn, origin = fit_pose((matrix[:68] @ mean)[INNER], points[INNER])
    for _ in range(4):
        slid = outline(rows @ controls, turn) if is_outline else {}
        shown = matrix[:68].copy()
        for jaw, number in slid.items():
            shown[jaw] = rows[jaw, number]
        stay = np.setdiff1d(np.arange(68), list(slid))
        scale, turn, origin = fit_pose((shown @ controls)[stay], points[stay])
        down = turn[:2, 1] / np.linalg.norm(turn[:2, 1])
        good = np.full((68, 2), 0.05)  # centimetres, along the head's height and across it
        good[list(slid)] = 0.5, 0.1
        noise = np.zeros((68, 2, 68, 2))
        axes = np.array([down, [down[1], -down[0]]])
        noise[range(68), :, range(68)] = np.einsum("nk,ki,kj->nij", (scale * good) ** 2, axes, axes)
        view = np.kron(shown, scale * turn[:2])  # [136, 3C], controls to points
        controls = likeliest(mean, covariance, view, (points - origin).ravel(), noise.reshape(136, 136))
    return Fit(matrix @ controls, rows @ controls, *fit_pose((shown @ controls)[stay], points[stay]))


def angles(turn):
    """Pitch, yaw and roll, radians, of a rotation [3, 3]: the inverse of head.rotation."""
    flip = np.diag([1.0, -1, 1])
    r = flip @ turn @ flip
    return np.arctan2(r[1, 2], r[2, 2]), -np.arcsin(np.clip(r[0, 2], -1, 1)), np.arctan2(r[0, 1], r[0, 0])


def aside(turn):
    """The degrees by which a head is turned about its own vertical axis, with yaw's sign; its yaw, if it is upright."""
    return np.rad2deg(np.arctan2(turn[2, 0], turn[2, 2]))
