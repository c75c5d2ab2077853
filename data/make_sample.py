"""Render a small set of 3D faces in the layout of 300W_LP, for a machine that has downloaded nothing.

Usage:
    python data/make_sample.py                            # 800 faces x 4 poses -> data/sample
    python data/make_sample.py --faces 50 --out /tmp/few  # a quick look
    python data/make_sample.py --seed 1 --variants 6      # other people, more poses

OUT/SAMPLE/SAMPLE_00000_0.jpg, .mat beside it, OUT/landmarks/SAMPLE/SAMPLE_00000_0_pts.mat, as SPEC 1 says.
Variant 0 is the "photo" (|yaw| < 25 degrees); 1, 2, ... are the same face turned further, to at most 75.
The same seed gives the same files, byte for byte; face i is the same whatever --faces is.

How it works. About 200 control points (the 68 landmarks and some anatomy between them, in centimetres) are
moved by identity and expression; a thin-plate spline over a flat map of the head carries every vertex of the
mesh with them. So a landmark is a vertex of the mesh, and its label is exact by construction.
Space: x to the image's right, y down, z towards the camera; origin between the ears at eye height.
Pose: 300W_LP's (3DDFA's) angles, R = Rx(pitch) Ry(yaw) Rz(roll). Positive yaw turns the nose to the image's
left, positive pitch raises it, positive roll turns the face clockwise in the image.
"""

import argparse
import functools
import multiprocessing
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

import cv2
import numpy as np

SIZE = 450  # photo side, pixels (SPEC 1)
SET = "SAMPLE"
TEX = 512  # side of the head's flat map, pixels; below it a strip of tiles for the other parts
STRIP = 128
RADIUS = 1.97  # of the flat map: 2 would be the point straight behind
CENTRE = np.array([0.0, 1.0, 0.0])  # the flat map is the view from here, all round (Lambert's equal area)

# ---- anatomy: one half of the head (x > 0), centimetres: mirrored for the other ----

# landmark at the image's right, landmark at the image's left, x, y, z
LANDMARKS = np.array([
    [16, 0, 7.0, 0.3, 1.2], [15, 1, 6.9, 2.6, 1.5], [14, 2, 6.6, 4.8, 2.0], [13, 3, 6.1, 6.9, 2.8],
    [12, 4, 5.4, 8.6, 4.0], [11, 5, 4.3, 10.0, 5.6], [10, 6, 3.0, 11.0, 7.4], [9, 7, 1.5, 11.6, 8.9],
    [8, 8, 0, 11.8, 9.5],
    [26, 17, 5.7, -2.0, 6.5], [25, 18, 4.8, -2.8, 8.0], [24, 19, 3.6, -3.0, 9.0], [23, 20, 2.4, -2.7, 9.6],
    [22, 21, 1.2, -2.2, 9.9],
    [27, 27, 0, -0.6, 9.6], [28, 28, 0, 0.7, 10.4], [29, 29, 0, 2.0, 11.4], [30, 30, 0, 3.3, 12.5],
    [35, 31, 1.45, 4.3, 10.4], [34, 32, 0.75, 4.6, 11.0], [33, 33, 0, 4.8, 11.2],
    [45, 36, 4.5, 0.05, 7.4], [44, 37, 3.6, -0.6, 8.15], [43, 38, 2.45, -0.55, 8.3],
    [42, 39, 1.65, 0.25, 8.1], [47, 40, 2.5, 0.55, 8.15], [46, 41, 3.6, 0.55, 8.0],
    [54, 48, 2.55, 6.85, 9.4], [53, 49, 1.5, 6.1, 10.7], [52, 50, 0.55, 5.75, 11.3], [51, 51, 0, 5.95, 11.35],
    [57, 57, 0, 8.1, 11.0], [56, 58, 0.8, 8.0, 10.9], [55, 59, 1.7, 7.6, 10.3],
    [64, 60, 2.3, 6.85, 9.6], [63, 61, 1.0, 6.6, 10.9], [62, 62, 0, 6.65, 11.2],
    [66, 66, 0, 7.15, 11.0], [65, 67, 1.0, 7.1, 10.8],
])  # fmt: skip
OTHERS = np.array([
    # forehead, skull
    [0, -2.4, 10.2], [0, -5, 10.2], [0, -7.5, 9.1], [0, -10, 6.3], [0, -11.8, 1.5], [0, -10.8, -4], [0, -6.5, -8.2],
    [0, -1, -9], [0, 4, -7.5], [3, -5.2, 9.4], [5.4, -4.9, 6.6], [6.6, -4.5, 3.4], [6.3, -2, 4.8], [3, -8, 7.9],
    [5.4, -8, 4.3], [4, -10.4, 2], [7.2, -4, 0], [7.5, -5, -3], [6.3, -8, -2], [4, -9.5, -4], [5, -5, -7],
    [7.3, 0, -3], [6, 3, -5], [4, 0, -8], [7.1, 1.5, -0.8],
    # cheeks
    [5.2, 2.7, 7.0], [6.3, 1.6, 5.0], [3.6, 2.7, 8.5], [2.2, 2.6, 9.1], [4.3, 4.8, 8.0], [2.7, 4.4, 9.4],
    [5.6, 5.2, 5.8], [3.9, 7.0, 8.2], [4.8, 8.0, 6.6], [5.9, 4.0, 5.6], [6.7, 3.5, 3.2], [6.1, 6.0, 4.2],
    # chin, throat
    [0, 9.0, 10.3], [0, 10.3, 10.6], [1.6, 10.3, 9.9], [2.8, 8.9, 9.2], [0, 12.0, 7.8], [0, 11.6, 4.5],
    [3, 10.9, 5.0], [4.6, 9.2, 2.0], [5.4, 7.6, 0.2], [5.8, 5, -1.5], [0, 9.5, 1.0],
    # nose
    [0.7, 3.3, 12.0], [1.7, 3.6, 10.9], [2.0, 4.1, 9.8], [1.15, 2.2, 10.5], [0.8, 0.7, 9.7], [1.3, -0.7, 8.9],
    [0, 4.4, 12.0], [1.1, 3.0, 11.3], [0.35, 5.2, 11.15], [0, 5.3, 11.05],
    # eye sockets
    [3.0, -1.45, 8.6], [4.5, -1.2, 7.6], [2.0, -1.2, 8.7], [3.1, 1.5, 8.25], [4.5, 1.3, 7.5], [2.0, 1.3, 8.6],
    [5.3, 0.1, 6.6],
])  # fmt: skip
SKIN = np.array([[190, 208, 240], [150, 178, 226], [112, 146, 202], [78, 112, 170], [52, 78, 128], [36, 50, 84]])
HAIR = np.array([[18, 20, 24], [24, 36, 54], [40, 66, 104], [90, 140, 186], [40, 72, 150], [170, 172, 176]])
EYES = np.array([[26, 44, 74], [38, 66, 104], [120, 120, 92], [150, 118, 74], [84, 116, 96]])
RIGHT_EYE, LEFT_EYE = list(range(36, 42)), list(range(42, 48))
OUTER_LIP, INNER_LIP = list(range(48, 60)), list(range(60, 68))
# which way a jaw landmark slides on a turned head (first half), and where its row across the cheek ends
SLIDE_END = np.array([[5.0, 0.9], [2.2, 2.8], [2.6, 4.8], [3.0, 6.6], [2.6, 8.4], [2.0, 9.6], [1.2, 10.6]])


def smoothstep(x):
    """0 below 0, 1 above 1, an S between: array of any shape."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def flat(points):
    """Points (N, 3) in the head's space, centimetres, to the flat map (N, 2), radius 0..2."""
    d = points - CENTRE
    d = d / np.linalg.norm(d, axis=1, keepdims=True)
    return d[:, :2] * (np.sqrt(2 * (1 - d[:, 2])) / np.maximum(np.hypot(d[:, 0], d[:, 1]), 1e-9))[:, None]


def texel(uv):
    """Flat map (..., 2) to texture pixels (..., 2)."""
    return (uv / (2 * RADIUS) + 0.5) * (TEX - 1)


def curve(points, steps, closed=True):
    """A smooth curve (Catmull-Rom) through points (N, 2): about N * steps points, the given ones among them."""
    p = np.concatenate([points[-1:], points, points[:2]]) if closed else points[[0, *range(len(points)), -1]]
    t = np.arange(steps)[:, None] / steps
    out = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        out.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate(out if closed else [*out, points[-1:]])


def spline(controls, at):
    """Thin-plate spline as a matrix: (N, C), values at C controls (C, 2) to values at N places (N, 2)."""

    def kernel(a, b):
        r2 = ((a[:, None] - b[None]) ** 2).sum(-1)
        return r2 * np.log(r2 + 1e-9)

    n = len(controls)
    m = np.zeros((n + 3, n + 3))
    m[:n, :n] = kernel(controls, controls) + 3e-4 * np.eye(n)
    m[:n, n:] = np.c_[np.ones(n), controls]
    m[n:, :n] = m[:n, n:].T
    return np.c_[kernel(at, controls), np.ones(len(at)), at] @ np.linalg.inv(m)[:, :n]


def grid_triangles(rows, cols, start):
    """Triangles (N, 3) of a grid of rows x cols vertices whose first one is number `start`."""
    i = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)).ravel() + start
    return np.concatenate([np.c_[i, i + 1, i + cols], np.c_[i + 1, i + cols + 1, i + cols]])


@functools.cache
def head():
    """What all faces share: controls, mesh, flat map and the masks painted on it (a dict, built once)."""
    side = LANDMARKS[LANDMARKS[:, 0] != LANDMARKS[:, 1]]
    controls = np.zeros((68, 3))
    controls[LANDMARKS[:, 0].astype(int)] = LANDMARKS[:, 2:]
    controls[side[:, 1].astype(int)] = side[:, 2:] * [-1, 1, 1]
    controls = np.concatenate([controls, OTHERS, OTHERS[OTHERS[:, 0] > 0] * [-1, 1, 1]])
    uv = flat(controls)

    # vertices: landmarks first, then the curves the mesh must follow, then a lattice, finer over the face
    lids = [curve(uv[e], 5) for e in (RIGHT_EYE, LEFT_EYE)]
    lips = [curve(uv[OUTER_LIP], 4), curve(uv[INNER_LIP], 5)]
    rows = []
    for i, (x, y) in enumerate(SLIDE_END):
        for sign, jaw in ((-1, i), (1, 16 - i)):
            end = flat(np.array([[sign * x, y, 9.5 - 0.13 * x * x]]))
            rows.append(uv[jaw] + np.linspace(0, 1, 24)[1:, None] * (end - uv[jaw]))
    at = np.concatenate([uv[:68], *rows])
    slides = {}
    for k in range(len(rows)):
        jaw = k // 2 if k % 2 == 0 else 16 - k // 2
        slides[jaw] = np.r_[jaw, 68 + 23 * k + np.arange(23)]
    extra = np.concatenate([*lids, *lips, uv[68:]])
    at = np.concatenate([at, extra[np.min(((extra[:, None] - at[None]) ** 2).sum(-1), 1) > 1e-5]])
    for step, low, high in ((0.034, 0, 1.1), (0.075, 1.1, RADIUS)):
        y, x = np.mgrid[-RADIUS : RADIUS : step * 0.87, -RADIUS:RADIUS:step]
        x[::2] += step / 2
        p = np.c_[x.ravel(), y.ravel()]
        p = p[(np.hypot(*p.T) >= low) & (np.hypot(*p.T) < high)]
        near = np.concatenate([((q[:, None] - at[None]) ** 2).sum(-1).min(1) for q in np.array_split(p, 16)])
        at = np.concatenate([at, p[near > (0.5 * step) ** 2]])
    at = at.astype(np.float32)
    div = cv2.Subdiv2D((-3, -3, 6, 6))
    div.insert(at)
    number = {p.tobytes(): i for i, p in enumerate(at)}
    corners = div.getTriangleList().reshape(-1, 3, 2)
    corners = corners[np.abs(corners).max((1, 2)) < 2]  # without those that hang on Subdiv2D's outer frame
    tri = np.array([[number[p.tobytes()] for p in t] for t in corners])
    a, b, c = at[tri[:, 0]], at[tri[:, 1]], at[tri[:, 2]]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    tri[area < 0] = tri[area < 0][:, [0, 2, 1]]
    middle = at[tri].mean(1).astype(np.float32)
    hole = np.zeros(len(tri), bool)
    for line in (*lids, lips[1]):
        line = line.astype(np.float32)
        hole |= np.array([cv2.pointPolygonTest(line, (float(p[0]), float(p[1])), False) > 0 for p in middle])
    tri = tri[~hole & (np.abs(area) > 1e-8)]

    # the mean head's x, y, z at every texel: masks are written in centimetres
    small = np.linspace(-RADIUS, RADIUS, 128)
    xyz = spline(uv, np.stack(np.meshgrid(small, small), -1).reshape(-1, 2)) @ controls
    xyz = cv2.resize(xyz.reshape(128, 128, 3).astype(np.float32), (TEX, TEX), interpolation=cv2.INTER_LINEAR)
    x, y, z = np.abs(xyz[..., 0]), xyz[..., 1], xyz[..., 2]

    def blob(cx, cy, rx, ry):  # a soft spot on the face and its mirror image, 0..1
        return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2) * (z > 3)

    def patch(*polygons, blur=1.0):
        mask = np.zeros((TEX, TEX), np.uint8)
        for line in polygons:
            cv2.fillPoly(mask, [np.round(texel(line) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32) / 255

    front = np.interp(z, [-9, -3, -1.2, 1.0, 2.2, 3.0, 5.5, 7.5, 9.5], [8, 7, 5, 2.0, 1.5, -2, -5, -6.5, -7.3])
    masks = {
        "hair": (front - y).astype(np.float32),  # centimetres inside the hairline
        "lips": patch(*lips, blur=0.8) - 0 * x,
        "red": blob(4.2, 3.0, 1.8, 1.5) + 0.8 * blob(0, 3.6, 1.5, 1.0) + 0.3 * blob(0, 10.5, 2, 1),
        "beard": smoothstep((y - 4.6 - 0.9 * np.maximum(0, 3.3 - x) * (x > 2.2)) / 2.5)
        * smoothstep((z - 0.8) / 1.5) * (1 - 0.8 * blob(0, 8.6, 0.5, 0.5)),
        "shade": 1 - np.clip(
            0.45 * blob(2.0, -0.9, 0.9, 0.7) + 0.25 * blob(3.2, -1.1, 1.6, 0.45) + 0.15 * blob(2.4, 1.2, 1.2, 0.5)
            + 0.25 * blob(2.0, 4.1, 0.35, 0.6) + 0.35 * blob(0.7, 4.75, 0.6, 0.3) + 0.28 * blob(0, 8.75, 1.5, 0.45)
            + 0.3 * blob(2.75, 6.9, 0.35, 0.3) + 0.5 * smoothstep((y - 10.8) / 2) * smoothstep((8.2 - z) / 3), 0, 0.8),
        "nostril": np.clip(1.6 * blob(0.72, 4.42, 0.36, 0.22), 0, 1),
        "fold": blob(2.9, 5.2, 0.3, 0.9),
        "lash": patch(*[np.concatenate([line[:16], line[15::-1] - [0, 0.022]]) for line in lids], blur=0.6),
        "rim": patch(*lids, blur=2.2),
    }  # fmt: skip
    distance, angle = np.hypot(*np.moveaxis(xyz[..., :2], -1, 0)), np.arctan2(xyz[..., 1] + 4, xyz[..., 0])
    masks["strand"] = np.stack([(angle / np.pi + 1) * 512, (distance + np.abs(z)) * 12], -1).astype(np.float32)
    head = {"controls": controls, "uv": uv, "at": at, "tri": tri, "matrix": spline(uv, at), "slides": slides}
    return head | masks | {"noise": noise_bank()}


def noise_bank():
    """Fixed noise everything draws from, because drawing it anew costs more than the rendering (a dict)."""
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 1, (600, 600, 3)).astype(np.float32)
    strand = cv2.GaussianBlur(rng.normal(0, 1, (512, 1024)).astype(np.float32), (0, 0), 1.0, sigmaY=14)
    clouds = [cv2.GaussianBlur(rng.normal(0, 1, (1024, 1024)).astype(np.float32), (0, 0), s) for s in (1.5, 5, 24)]
    return {"grain": grain, "strand": strand / strand.std(), "clouds": [c / c.std() for c in clouds]}


# ---- one face: shape, texture, parts ----


def pick(bank, rng, height, width):
    """A random window (height, width) of a larger noise array."""
    r, c = rng.integers(0, bank.shape[0] - height), rng.integers(0, bank.shape[1] - width)
    return bank[r : r + height, c : c + width]


def shape_face(rng):
    """Move the controls by a random identity and expression.

    Parameters: rng, numpy Generator.
    Returns: controls (C, 3) in centimetres; a dict of what the other parts need to follow (gap, eye, ...).
    """
    base = head()["controls"]
    p = base.copy()
    x, y, z = np.abs(base[:, 0]), base[:, 1], base[:, 2]
    side = np.sign(base[:, 0])

    def near(cx, cy, cz, r):
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (r * r))

    n = rng.normal(0, 1, 40).clip(-2, 2)
    # identity: smooth moves of whole regions, centimetres
    jaw, chin = smoothstep((y - 3) / 6), near(0, 10.6, 9.8, 2.6)
    p[:, 0] += side * (x * (0.035 * n[0] + 0.055 * n[1] * jaw) + 0.25 * n[2] * near(5.6, 2.6, 6, 2.5))
    p[:, 1] += 0.35 * n[3] * smoothstep((y - 1) / 9) + 0.25 * n[4] * chin
    p[:, 2] += 0.3 * n[5] * chin + 0.25 * n[6] * near(0, -3, 10, 3.5) + 0.3 * n[7] * near(4.2, 4.6, 7.5, 2)
    nose, tip, wing = near(0, 3.2, 12, 2.2), near(0, 3.6, 12.3, 1.5), near(1.7, 4, 10.3, 1.3)
    p[:, 2] += 0.35 * n[8] * nose + 0.25 * n[9] * near(0, 0.8, 10.2, 1.4) + 0.1 * n[10] * tip
    p[:, 1] += 0.25 * n[11] * near(0, 3.9, 11.5, 2) + 0.15 * n[12] * tip
    p[:, 0] += side * (0.2 * n[13] * wing + 0.15 * n[14] * near(0.9, 2, 10.5, 1.2))
    eye = near(3.1, 0, 8.1, 2.2)
    p[:, 0] += side * 0.12 * n[15] * eye + side * (x - 3.1) * 0.05 * n[16] * eye
    p[:, 1] += y * 0.16 * n[17] * eye - (x - 3.1) * (0.06 * n[18] + 0.02) * eye
    brow = near(3, -2.7, 9, 2.0)
    p[:, 1] += 0.25 * n[19] * brow
    p[:, 2] += 0.18 * n[20] * brow
    mouth, up, low = near(0, 6.9, 10.6, 2.6), near(0, 5.9, 11, 1.4), near(0, 8, 10.8, 1.3)
    p[:, 0] += side * x * 0.06 * n[21] * mouth
    p[:, 1] += 0.2 * n[22] * mouth - 0.12 * n[23] * up + 0.14 * n[24] * low
    p[:, 2] += 0.12 * n[25] * up + 0.12 * n[26] * low
    p[:, 1] += 0.5 * n[27] * smoothstep((-4 - y) / 6)
    p[:68] += rng.normal(0, 0.035, (68, 3))  # no face is quite symmetric
    # expression
    jaw_open = max(0.0, rng.normal(-0.2, 1)) if rng.random() < 0.75 else rng.uniform(0, 2.4)
    smile, raised = rng.choice([0, 0, 1]) * rng.uniform(0.2, 1), rng.normal(0, 0.3) + 0.4 * (jaw_open > 1)
    frown, pucker = max(0, rng.normal(-0.4, 0.4)), max(0, rng.normal(-1, 0.6)) * (smile == 0)
    blink = rng.choice([0, 0, 0, 0, 0, 1]) * rng.uniform(0.4, 1.0) + 0.15 * smile
    lower = np.isin(np.arange(len(p)), [55, 56, 57, 58, 59, 65, 66, 67])
    gap_low, gap_high = p[[67, 66, 65], 1].copy(), p[[61, 62, 63], 1]
    p[lower, 1] -= (gap_low - gap_high).mean() - 0.02 * n[28] - 0.02
    p[[67, 66, 65], 1] = np.maximum(p[[67, 66, 65], 1], gap_high)
    corner = near(2.5, 6.85, 9.5, 1.8)
    p += smile * corner[:, None] * (side[:, None] * [0.75, 0, 0] + [0, -0.65, -0.45])
    p[:, 2] += 0.35 * smile * near(4.3, 3.2, 8, 1.6)
    p[:, 1] -= 0.2 * smile * near(4.0, 3.0, 8, 1.8)
    p += pucker * np.exp(-(((x - 0) / 3) ** 2) - (y - 6.9) ** 2 / 4)[:, None] * (base * [-0.35, 0, 0] + [0, 0, 0.5])
    p[51:54, 1] -= smile * 0.1
    drop = np.where(lower, 1, smoothstep((y - 6.5) / 1.4) * smoothstep((z + 0.5) / 4)) * jaw_open
    drop[[48, 54, 60, 64]] = 0.42 * jaw_open
    p[:, 1] += drop * (0.35 + 0.65 * np.clip(z / 9, 0, 1.2))
    p[:, 2] -= drop * 0.28
    p[:, 0] -= side * corner * 0.12 * jaw_open
    brows = near(3, -2.8, 9, 2.2)
    p[:, 1] -= 0.9 * raised * brows
    inner = near(1.4, -2.3, 9.9, 1.2)
    p[:, 0] -= side * 0.5 * frown * inner
    p[:, 1] += 0.7 * frown * inner
    balls = []
    for eyelid in (RIGHT_EYE, LEFT_EYE):
        out, in_ = (0, 3) if eyelid is RIGHT_EYE else (3, 0)
        a, b = p[eyelid[out]], p[eyelid[in_]]
        ball = np.array([(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2 - 1.15])
        pairs = ((1, 5), (2, 4))
        for u, d in pairs:
            u, d = eyelid[u], eyelid[d]
            p[d, 1] -= 0.12 * smile + 0.1 * blink * (blink > 0.3)
            p[u, 1] += min(1.0, blink) * (p[d, 1] - 0.03 - p[u, 1])
            for k in (u, d):
                r2 = ((p[k, :2] - ball[:2]) ** 2).sum()
                p[k, 2] = ball[2] + np.sqrt(max(0.1, 1.55**2 - r2)) + 0.1
        balls.append(ball)
    return p, {"balls": balls, "open": jaw_open, "smile": smile, "blink": blink, "n": n}


def paint(rng, info):
    """The texture of one face: (TEX + STRIP, TEX, 3) float32 BGR 0..1; and the style of its hair."""
    h = head()
    noise = h["noise"]
    age, male = rng.random(), rng.random() < 0.5
    tone = rng.uniform(0, len(SKIN) - 1.01)
    i = int(tone)
    skin = (SKIN[i] + (tone - i) * (SKIN[i + 1] - SKIN[i])) / 255 * rng.normal(1, 0.03, 3)
    tex = np.empty((TEX, TEX, 3), np.float32)
    tex[:] = skin
    fine, mid, large = (pick(c, rng, TEX, TEX) for c in noise["clouds"])
    tex *= (1 + 0.03 * fine + 0.02 * mid + 0.03 * large)[..., None]
    red = np.clip(h["red"] * rng.uniform(0.1, 0.6) + 0.1 * mid * rng.random(), 0, 1)[..., None]
    tex *= 1 - red * np.float32([0.22, 0.24, 0.02])
    if rng.random() < 0.2:
        tex *= 1 - 0.25 * (smoothstep(pick(noise["clouds"][0], rng, TEX, TEX) - 1.6) * h["red"])[..., None]
    # hair colour goes with skin; grey comes with age
    weights = np.array([4, 3, 3, 2, 1, 0.0]) if tone < 2 else np.array([6, 3, 1, 0.1, 0.05, 0])
    weights[5] = 6 * max(0, age - 0.6)
    hair = HAIR[rng.choice(6, p=weights / weights.sum())] / 255 * rng.uniform(0.8, 1.2)
    strand = cv2.remap(noise["strand"], h["strand"] + np.float32([0, rng.uniform(0, 90)]), None, cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REFLECT)  # fmt: skip
    # beard or stubble
    if male and rng.random() < 0.6:
        amount = rng.choice([0.25, 0.45, 0.9])
        beard = h["beard"] * np.clip(amount + 0.25 * fine * amount, 0, 1) * (1 - h["lips"])
        tex += (beard * 0.9)[..., None] * (hair * 0.8 - tex)
    # lips
    lip = skin * np.array([0.62, 0.6, 0.86]) if rng.random() < 0.75 or male else np.array([0.22, 0.15, 0.62])
    tex += (0.8 * h["lips"] * (1 + 0.1 * fine))[..., None] * (lip - tex)
    shade = h["shade"] * (1 - 0.12 * (info["smile"] + age) * h["fold"]) * (1 - 0.85 * h["nostril"])
    shade *= 1 - 0.35 * h["rim"]
    tex *= shade[..., None] ** np.float32([1.15, 1.1, 0.95])
    # brows: short strokes along the brow landmarks
    layer = np.zeros((TEX, TEX), np.uint8)
    width, dark = rng.uniform(0.7, 1.3), rng.uniform(0.6, 0.95)
    for ids in (range(17, 22), range(26, 21, -1)):
        line = curve(h["uv"][list(ids)], 14, closed=False)
        way = np.sign(line[-1, 0] - line[0, 0])
        for k in range(150):
            t = rng.random()
            q = line[int(t * (len(line) - 1))] + [0, rng.normal(0, 0.011) * width * (0.5 + 0.8 * t)]
            tip = q + np.array([-way * (0.045 - 0.02 * t), -0.035 * t + 0.006]) * rng.uniform(0.6, 1.1)
            a, b = (np.round(texel(v) * 16).astype(int).tolist() for v in (q, tip))
            cv2.line(layer, a, b, 150 + k % 100, 1, cv2.LINE_AA, 4)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.7).astype(np.float32)
    brow_hair = hair * 0.65 + skin * 0.06
    tex += (np.clip(layer / 180, 0, 1) * dark)[..., None] * (brow_hair - tex)
    tex += (h["lash"] * rng.uniform(0.5, 0.95))[..., None] * (np.float32([0.05, 0.05, 0.07]) - tex)
    # head hair
    style = {"thick": rng.uniform(0.3, 1.6), "shift": rng.normal(0.2, 0.7), "bald": male and rng.random() < 0.15,
             "fringe": rng.random() < 0.3, "long": not male and rng.random() < 0.7, "part": rng.uniform(-3, 3),
             "length": rng.uniform(8, 20), "drop": rng.uniform(0.5, 3), "noise": large[::4, ::4]}  # fmt: skip
    field = hair_field(style, h["hair"]) + 0.35 * strand + 0.15 * large
    mask = smoothstep(field / 0.9) * (0.12 if style["bald"] else 1)
    gloss = (hair * (1 + 0.28 * strand + 0.1 * large)[..., None]).clip(0, 1)
    tex += mask[..., None] * (gloss.astype(np.float32) - tex)

    # the strip of tiles: torso 0..191, eye 192..319, mouth 320..415, hair 416..511
    strip = np.zeros((STRIP, TEX, 3), np.float32)
    cloth = rng.uniform(0.05, 0.9, 3) * rng.uniform(0.3, 1)
    yy, xx = np.mgrid[0:STRIP, 0:192].astype(np.float32)
    strip[:, :192] = cloth * (1 + 0.06 * pick(noise["clouds"][0], rng, STRIP, 192))[..., None]
    if rng.random() < 0.3:
        strip[:, :192] *= 1 - 0.5 * (np.sin(yy * rng.uniform(0.3, 0.9)) > 0.3)[..., None]
    neckline = 38 + rng.uniform(0, 40) * np.exp(-(((xx - 96) / rng.uniform(14, 34)) ** 2))
    strip[:, :192] += smoothstep(neckline - yy)[..., None] * (skin * 0.88 - strip[:, :192])
    yy, xx = np.mgrid[-1 : 1 : 128j, -1 : 1 : 128j].astype(np.float32)
    r = np.hypot(xx, yy)  # eye tile: two centimetres each way
    eye = np.empty((128, 128, 3), np.float32)
    eye[:] = np.float32([0.80, 0.82, 0.86]) * rng.uniform(0.85, 1.0)
    eye *= (1 - 0.4 * smoothstep((r - 0.35) / 0.5))[..., None] ** np.float32([1.2, 1.1, 0.7])
    iris = EYES[rng.choice(5, p=[0.4, 0.25, 0.1, 0.15, 0.1] if tone < 2 else [0.85, 0.12, 0.01, 0.01, 0.01])] / 255
    ring = iris * (0.75 + 0.5 * smoothstep((0.30 - r) / 0.2) - 0.55 * smoothstep((r - 0.24) / 0.07))[..., None]
    eye += smoothstep((0.32 - r) / 0.03)[..., None] * (ring.astype(np.float32) - eye)
    eye *= 1 - 0.95 * smoothstep((rng.uniform(0.11, 0.16) - r) / 0.025)[..., None]
    strip[:, 192:320] = eye
    tooth = np.float32([0.72, 0.82, 0.86]) * rng.uniform(0.75, 1)
    yy, xx = np.mgrid[0 : 4 : 128j, -3 : 3 : 96j].astype(np.float32)  # mouth tile: centimetres
    mouth = np.empty((128, 96, 3), np.float32)
    mouth[:] = np.float32([0.07, 0.06, 0.16])
    mouth += smoothstep((yy - 2.0) / 1.5)[..., None] * (np.float32([0.25, 0.22, 0.5]) - mouth) * 0.7
    teeth = smoothstep((0.95 + 0.1 * np.cos(xx * 8) - yy) / 0.08) * smoothstep((2.3 - np.abs(xx)) / 0.8)
    mouth += (teeth * (1 - 0.3 * (np.abs(np.sin(xx * 4)) < 0.12)))[..., None] * (tooth - mouth)
    strip[:, 320:416] = mouth
    tile = pick(noise["strand"], rng, STRIP, 96)
    strip[:, 416:] = (hair * (0.95 + 0.3 * tile)[..., None]).clip(0, 1)
    return np.concatenate([tex, strip]).clip(0.01, 1).astype(np.float32), style


def hair_field(style, inside):
    """Centimetres inside this style's hairline (negative: skin), from those inside the mean one."""
    return inside + style["shift"] - (4 if style["bald"] else 0)


def tile_uv(name, u, v):
    """(u, v) in 0..1 of a tile in the strip to texture pixels (N, 2)."""
    start, width = {"torso": (0, 192), "eye": (192, 128), "mouth": (320, 96), "hair": (416, 96)}[name]
    return np.stack([start + 1 + u * (width - 3), TEX + 1 + v * (STRIP - 3)], -1).reshape(-1, 2)


def build(p, info, style):
    """All parts of one face as a single mesh.

    Returns: vertices (V, 3) centimetres, texture pixels (V, 2), how much each follows the head and not the
    torso (V,) 0..1, extra shading (V,), triangles (T, 3), number of leading triangles seen from both sides.
    """
    h = head()
    skin = h["matrix"] @ p
    uv = texel(h["at"])
    inside = cv2.remap(h["hair"], uv.astype(np.float32)[:, None], None, cv2.INTER_LINEAR)[:, 0]
    field = hair_field(style, inside)
    out = (h["matrix"] @ h["controls"] - [0, -2, 0]) * [1, 1, 1]
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    skin = skin + out * (smoothstep(field / 2.5) * style["thick"] * (0.1 if style["bald"] else 1))[:, None]
    parts = [(skin, uv, np.ones(len(skin)), np.ones(len(skin)), h["tri"])]
    thin = []

    def add(xyz, uv, follow, shade, rows, cols, both=False):
        tri = grid_triangles(rows, cols, sum(len(q[0]) for q in parts))
        parts.append((xyz, uv, np.broadcast_to(follow, len(xyz)), np.broadcast_to(shade, len(xyz)), tri[:0]))
        thin.append(tri) if both else parts.append((xyz[:0], uv[:0], follow[:0] if np.ndim(follow) else np.ones(0),
                                                    np.ones(0), tri))  # fmt: skip

    # eyeballs
    a, t = np.meshgrid(np.linspace(2 * np.pi, 0, 17), np.linspace(0.01, 1.3, 8))
    cap = np.stack([np.sin(t) * np.cos(a), np.sin(t) * np.sin(a), np.cos(t)], -1).reshape(-1, 3)
    gaze = info["gaze"]
    for ball in info["balls"]:
        add(ball + 1.5 * cap, tile_uv("eye", *(0.5 + (1.5 * cap[:, :2] - gaze).T / 4).clip(0, 1)), 1.0, 0.95, 8, 17)
    # inside of the mouth
    x, y = np.meshgrid(np.linspace(-2.5, 2.5, 9), np.linspace(0, 1, 7))
    top, bottom = p[62, 1] - 0.75, p[66, 1] + 0.5
    y = top + y * (bottom - top)
    z = p[62, 2] - 0.95 - 0.16 * x**2 - 0.35 * np.maximum(0, y - p[62, 1])
    add(np.stack([x, y, z], -1).reshape(-1, 3), tile_uv("mouth", x / 6 + 0.5, ((y - top) / 4).clip(0, 1)), 1.0, 0.8,
        7, 9)  # fmt: skip
    # ears: a disc with a rim and a hollow
    a, r = np.meshgrid(np.linspace(0, 2 * np.pi, 21), np.array([0.0, 0.3, 0.5, 0.62, 0.78, 0.92, 1.0]))
    deep = np.array([-0.5, -0.5, -0.25, 0.12, 0.05, 0.3, 0.0])[:, None] + 0 * a
    wide = 1.55 * (1 - 0.22 * np.sin(a))
    long = 3.1 * np.where(np.sin(a) > 0, 1.0, 0.92)
    back, up = r * wide * np.cos(a), r * long * np.sin(a)
    ao = np.array([0.45, 0.5, 0.65, 0.9, 0.75, 1.0, 0.85])[:, None] + 0 * a
    for s in (-1, 1):
        stick = info["stick"]
        xx = abs(p[0 if s < 0 else 16, 0]) + 0.35 + 0.5 * deep + stick * (1.2 - back) * 0.5
        ear = np.stack([s * xx, 1.9 + p[0, 1] + up, -0.6 + back * 0.9 - 0.25 * up + 0.2 * deep], -1).reshape(-1, 3)
        uv_ear = texel(h["uv"][[0 if s < 0 else 16]]) + 0 * ear[:, :2]
        uv_ear += np.stack([s * 8 + back * 3, up * 3 + 24], -1).reshape(-1, 2)
        add(ear, uv_ear, 1.0, ao.ravel(), 7, 21, both=True)
    # neck and torso
    a, k = np.meshgrid(np.linspace(-np.pi, np.pi, 33), np.arange(9), indexing="xy")
    ys = np.array([6.0, 10, 13, 15, 16.5, 18, 20.5, 25, 40])[k]
    wx = np.array([5.0, 5.1, 5.3, 6.2, 9.5, 14.5, 18.5, 20.5, 21.5])[k] * info["build"]
    wz = np.array([5.0, 5.0, 5.2, 5.8, 6.5, 7.5, 8.5, 10, 11])[k]
    zc = np.array([0.5, -0.2, -0.8, -1.2, -1.5, -1.6, -1.5, -1, -1])[k]
    xyz = np.stack([wx * np.sin(a), ys, zc + wz * np.cos(a)], -1).reshape(-1, 3)
    follow = np.array([1, 0.85, 0.55, 0.3, 0.15, 0, 0, 0, 0.0])[k].ravel()
    shade = np.array([0.5, 0.6, 0.8, 0.95, 1, 1, 1, 1, 1])[k].ravel()
    add(xyz, tile_uv("torso", a / (2 * np.pi) + 0.5, k / 8), follow, shade, 9, 33)
    # long hair: a sheet round the back and the sides
    if style["long"]:
        a, k = np.meshgrid(np.linspace(0.42 * np.pi, 1.58 * np.pi, 41), np.arange(12), indexing="xy")
        t = k / 11
        ys = -7 + t * (7 + style["length"])
        wave = 0.25 * np.sin(a * 9 + 2 * t) + 0.12 * np.sin(a * 23)
        bulge = (6.5 + style["thick"] + 2.2 * np.sin(np.minimum(t * 2.2, 1.7)) + wave + 0.8 * t * style["drop"])
        xyz = np.stack([bulge * np.sin(a), ys, -0.8 + 1.05 * bulge * np.cos(a) + 0.6 * t], -1).reshape(-1, 3)
        add(xyz, tile_uv("hair", (a / np.pi * 1.7) % 1.0, t), np.clip(1.2 - 0.9 * t, 0, 1).ravel(), 1.0, 12, 41, True)
    xyz, uv, follow, shade = (np.concatenate([q[j] for q in parts]) for j in range(4))
    tri = np.concatenate([*thin, *[q[4] for q in parts]])
    return xyz, uv, follow, shade, tri, sum(len(t) for t in thin)


# ---- rendering ----


def rotation(pitch, yaw, roll):
    """300W_LP's R = Rx Ry Rz, radians, turned from its y up to our y down: (3, 3)."""
    (sp, sy, sr), (cp, cy, cr) = np.sin([pitch, yaw, roll]), np.cos([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    ry = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rz = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    flip = np.diag([1.0, -1, 1])
    return flip @ rx @ ry @ rz @ flip


def normals(xyz, tri):
    """Unit vertex normals (V, 3) of a mesh."""
    a, b, c = xyz[tri[:, 0]], xyz[tri[:, 1]], xyz[tri[:, 2]]
    face = np.cross(b - a, c - a)
    n = np.stack([np.bincount(tri.T.ravel(), np.tile(face[:, j], 3), len(xyz)) for j in range(3)], 1)
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)


def rasterize(xy, depth, tri, both):
    """Which triangle each pixel shows (z-buffer).

    Parameters: xy (V, 2) pixels; depth (V,), larger is nearer, -100..100; tri (T, 3), of which the first
    `both` are seen from either side and the others only when they run clockwise on the screen.
    Returns: pixels (N,) flat indices, vertices (N, 3), weights (N, 3).
    """
    p = xy.astype(np.float32)
    x, y = p[:, 0][tri], p[:, 1][tri]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    x0, y0 = np.ceil(x.min(1)).clip(0, SIZE), np.ceil(y.min(1)).clip(0, SIZE)
    w, hgt = np.floor(x.max(1)).clip(-1, SIZE - 1) - x0 + 1, np.floor(y.max(1)).clip(-1, SIZE - 1) - y0 + 1
    seen = (area > 1e-3) | ((np.arange(len(tri)) < both) & (area < -1e-3))
    extent = np.where(seen & (w > 0) & (hgt > 0), np.maximum(w, hgt), 0)
    z = depth.astype(np.float32)[tri]
    pixels, whose, w1s, w2s = [], [], [], []
    low = 0
    for k in (3, 6, 12, 24, 48, 120, SIZE):
        t = np.flatnonzero((extent > low) & (extent <= k))
        low = k
        if not len(t):
            continue
        inv = 1 / area[t]
        gx = (x0[t] - x[t, 0])[:, None, None] + np.arange(k, dtype=np.float32)
        gy = (y0[t] - y[t, 0])[:, None, None] + np.arange(k, dtype=np.float32)[:, None]
        w1 = gx * ((y[t, 2] - y[t, 0]) * inv)[:, None, None] - gy * ((x[t, 2] - x[t, 0]) * inv)[:, None, None]
        w2 = gy * ((x[t, 1] - x[t, 0]) * inv)[:, None, None] - gx * ((y[t, 1] - y[t, 0]) * inv)[:, None, None]
        i = np.flatnonzero((w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1))
        ti, cell = t[i // (k * k)], i % (k * k)
        px, py = x0[ti].astype(np.int64) + cell % k, y0[ti].astype(np.int64) + cell // k
        ok = (px < SIZE) & (py < SIZE)
        pixels.append((py * SIZE + px)[ok])
        whose.append(ti[ok])
        w1s.append(w1.ravel()[i][ok])
        w2s.append(w2.ravel()[i][ok])
    pixels, whose, w1, w2 = (np.concatenate(v) for v in (pixels, whose, w1s, w2s))
    zi = z[whose]
    far = zi[:, 0] + w1 * (zi[:, 1] - zi[:, 0]) + w2 * (zi[:, 2] - zi[:, 0])
    key = ((100 - far) * 1000).astype(np.int64) << 32 | np.arange(len(far))
    buffer = np.full(SIZE * SIZE, np.iinfo(np.int64).max)
    np.minimum.at(buffer, pixels, key)
    hit = np.flatnonzero(buffer != np.iinfo(np.int64).max)
    win = buffer[hit] & 0xFFFFFFFF
    return hit, tri[whose[win]], np.stack([1 - w1[win] - w2[win], w1[win], w2[win]], 1)


def backdrop(rng):
    """A random background (450, 450, 3) float32 0..1."""
    noise = head()["noise"]
    yy, xx = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j].astype(np.float32)
    a, b = rng.uniform(0.03, 0.9, (2, 3)).astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    image = a + (b - a) * smoothstep(0.5 + 0.5 * (xx * np.cos(turn) + yy * np.sin(turn)))[..., None]
    for _ in range(rng.integers(0, 12)):
        colour = rng.uniform(0, 1, 3).tolist()
        x, y = rng.integers(0, SIZE, 2).tolist()
        s = rng.integers(20, 160, 2).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + s[0], y + 2 * s[1]), colour, -1)
        else:
            cv2.ellipse(image, (x, y), s, 0, 0, 360, colour, -1)
    image = cv2.blur(image, (int(rng.integers(1, 30)),) * 2)
    return image * (1 + 0.05 * pick(noise["clouds"][rng.integers(0, 3)], rng, SIZE, SIZE))[..., None]


def visible_outline(points, down, matrix, place):
    """pts_2d: jaw points a turned head hides slide along their row to its outermost place in the image."""
    flat_points = points.copy()
    for jaw, row in matrix["slides"].items():
        t = (7 - min(jaw, 16 - jaw)) / 7
        side = -1 if jaw < 8 else 1
        lean = np.array([side * np.cos((1 - t) * 1.15), np.sin((1 - t) * 1.15)])
        across = np.array([down[1], -down[0]])
        d = lean[0] * across + lean[1] * down
        line = place[row]
        flat_points[jaw] = line[np.argmax(line @ d)]
    return flat_points


def render_face(seed, face, variants):
    """Yield one face in several poses.

    Parameters
    ----------
    seed, face : int
        What the face is drawn from, and nothing else.
    variants : int
        Number of poses, 1 or more.

    Yields
    ------
    photo : uint8 (450, 450, 3), BGR
    pts_2d, pts_3d : float32 (68, 2), pixels x, y; in pts_2d hidden jaw points lie on the visible outline
    params : dict of float32 arrays for the .mat beside the photo (Pose_Para is (1, 7): pitch, yaw, roll in
        radians, tx, ty in pixels, tz 0, pixels per centimetre)
    quality : int, of the JPEG
    """
    rng = np.random.default_rng([seed, face])
    h = head()
    p, info = shape_face(rng)
    info |= {"gaze": rng.normal(0, 0.13, 2) * [1, 0.5], "stick": rng.uniform(0.15, 0.7), "build": rng.uniform(0.85, 1.1)}
    tex, style = paint(rng, info)
    xyz, uv, follow, ao, tri, both = build(p, info, style)
    normal = normals(xyz, tri)
    ground = backdrop(rng)
    # light: a key with a direction, the rest from all round with a little more from above
    side, high = rng.uniform(-1.2, 1.2), rng.uniform(-0.1, 0.9)
    key = np.array([np.sin(side) * np.cos(high), -np.sin(high), np.cos(side) * np.cos(high)])
    total, ambient = rng.uniform(0.8, 1.15), rng.uniform(0.3, 0.65)
    strength = total - ambient
    tint, tint2 = rng.normal(1, 0.07, 3), rng.normal(1, 0.05, 3)
    gloss = rng.uniform(0.02, 0.22)
    scale, distance = rng.uniform(10.8, 15.5), rng.uniform(60, 200)
    side = rng.choice([-1, 1])
    yaws = np.deg2rad(rng.normal(0, 9, 1).clip(-24, 24))
    last = np.deg2rad(rng.uniform(62, 75))
    if variants > 1:
        steps = np.linspace(0, 1, variants)[1:] + rng.uniform(-0.2, 0.0, variants - 1) / variants
        first = side * yaws[0]
        yaws = np.r_[yaws[0], side * (first + steps * (last - first))]
    grain = rng.uniform(0.004, 0.025)
    blur = rng.uniform(0.45, 1.1)
    exposure = rng.uniform(0.85, 1.15)
    quality = int(rng.integers(75, 96))
    pitch0, roll0 = rng.normal(0, [7, 7])
    for yaw in yaws:
        pitch, roll = np.deg2rad(np.clip([pitch0 + rng.normal(0, 4), roll0 + rng.normal(0, 4)], -30, 30))
        shift = rng.normal(0, 8, 2)
        turn, body = rotation(pitch, yaw, roll), rotation(0.1 * pitch, 0.45 * yaw, 0.1 * roll)
        f = follow[:, None]
        posed = f * (xyz @ turn.T) + (1 - f) * (xyz @ body.T)
        n = f * (normal @ turn.T) + (1 - f) * (normal @ body.T)
        zoom = scale / (1 - (posed[:, 2:] - 5) / distance)
        xy = posed[:, :2] * zoom
        centre = SIZE / 2 + shift - (xy[:68].min(0) + xy[:68].max(0)) / 2 + [0, 12]
        xy += centre
        # shading
        lit = n @ key
        lit[np.unique(tri[:both])] = np.abs(lit[np.unique(tri[:both])])
        half = key + [0, 0, 1]
        shine = gloss * np.maximum(0, n @ (half / np.linalg.norm(half))) ** 18
        soft = np.clip((lit + 0.15) / 1.15, 0, None)
        light = ao[:, None] * ((ambient * (0.85 - 0.15 * n[:, 1]))[:, None] * tint2 + (strength * soft)[:, None] * tint)
        attributes = np.c_[uv, light, shine].astype(np.float32)
        pixels, vertices, weights = rasterize(xy, posed[:, 2], tri, both)
        value = np.einsum("nkc,nk->nc", attributes[vertices], weights)
        maps = np.zeros((SIZE * SIZE, 2), np.float32)
        maps[pixels] = value[:, :2]
        colour = cv2.remap(tex, maps.reshape(SIZE, SIZE, 2), None, cv2.INTER_LINEAR).reshape(-1, 3)[pixels]
        alpha = np.zeros((SIZE * SIZE), np.float32)
        alpha[pixels] = 1
        image = ground.reshape(-1, 3).copy()
        image[pixels] = colour * value[:, 2:5] + value[:, 5:]
        image = cv2.GaussianBlur(image.reshape(SIZE, SIZE, 3) * exposure, (0, 0), blur)
        image += grain * pick(h["noise"]["grain"], rng, SIZE, SIZE)
        photo = (np.clip(image, 0, 1) * 255).astype(np.uint8)
        pts_3d = xy[:68]
        down = turn[:2, 1] / max(1e-6, np.hypot(*turn[:2, 1]))
        pts_2d = visible_outline(pts_3d, down, h, xy)
        low, top = pts_2d.min(0), pts_2d.max(0)
        params = {
            "pt2d": pts_2d.T, "roi": np.r_[low, top][None],
            "Pose_Para": np.array([[pitch, yaw, roll, *centre, 0, scale]]),
            "Shape_Para": info["n"][:28, None],
            "Exp_Para": np.array([[info["open"]], [info["smile"]], [info["blink"]]]),
            "Illum_Para": np.array([[*key, strength, ambient, gloss]]),
        }  # fmt: skip
        yield photo, pts_2d.astype(np.float32), pts_3d.astype(np.float32), params, quality


# ---- files ----


def mat_bytes(arrays):
    """A MATLAB 5 file of named float32 matrices, as bytes.

    Our own, because scipy's savemat puts the date into the header: the same seed would not give the same file.
    """
    out = [b"MATLAB 5.0 MAT-file".ljust(124), struct.pack("<H2s", 0x0100, b"IM")]
    for name, a in arrays.items():
        a = np.asarray(a, np.float32)
        parts = [(6, struct.pack("<II", 7, 0)), (5, struct.pack("<ii", *a.shape)), (1, name.encode()),
                 (7, a.tobytes("F"))]  # fmt: skip
        body = b"".join(struct.pack("<II", kind, len(d)) + d + bytes(-len(d) % 8) for kind, d in parts)
        out.append(struct.pack("<II", 14, len(body)) + body)
    return b"".join(out)


def write_face(job):
    """Render one face and write its files. job: (folder, seed, face, variants). Returns the number of photos."""
    out, seed, face, variants = job
    for k, (photo, pts_2d, pts_3d, params, quality) in enumerate(render_face(seed, face, variants)):
        stem = f"{SET}_{face:05d}_{k}"
        jpeg = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        (out / SET / f"{stem}.jpg").write_bytes(jpeg.tobytes())
        (out / SET / f"{stem}.mat").write_bytes(mat_bytes(params))
        points = mat_bytes({"pts_2d": pts_2d, "pts_3d": pts_3d})
        (out / "landmarks" / SET / f"{stem}_pts.mat").write_bytes(points)
    return variants


def quiet():
    """A worker leaves Ctrl-C to the parent, and keeps to its one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "sample", help="folder to make")
    parser.add_argument("--faces", type=int, default=800)
    parser.add_argument("--variants", type=int, default=4, help="poses of each face")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in ("faces", "variants"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be 1 or more, found {getattr(args, name)}")
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, found {args.seed}")
    if args.out.exists():
        sys.exit(f"{args.out} exists: remove it to render again")
    partial = args.out.with_name(args.out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / SET).mkdir(parents=True)
        (partial / "landmarks" / SET).mkdir(parents=True)
    except OSError as e:
        parser.error(f"--out: cannot write {args.out}: {e.strerror}")
    total, done, start = args.faces * args.variants, 0, time.time()
    head()  # before the fork, so that the workers share it
    jobs = [(partial, args.seed, face, args.variants) for face in range(args.faces)]
    try:
        with multiprocessing.Pool(initializer=quiet) as pool:
            for n in pool.imap(write_face, jobs, chunksize=4):
                done += n
                rate = done / (time.time() - start)
                print(f"\r{done}/{total} photos, {rate:.0f}/s, {(total - done) / rate:.0f} s left ", end="", flush=True)
        partial.rename(args.out)
    except KeyboardInterrupt:
        sys.exit("\nstopped: nothing written")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"\n{total} photos of {args.faces} faces in {args.out} ({total / (time.time() - start):.0f} photos/s)")
    print(f"next: python prepare_tfrecords.py --data {args.out}")


if __name__ == "__main__":
    main()
