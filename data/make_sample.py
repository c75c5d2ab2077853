"""Render a small set of 3D faces in the layout of 300W_LP, for a machine that has downloaded nothing.

Usage:
    python data/make_sample.py                            # 800 faces x 4 poses -> data/sample
    python data/make_sample.py --faces 50 --out /tmp/few  # a quick look
    python data/make_sample.py --seed 1 --variants 6      # other people, more poses

OUT/SAMPLE/SAMPLE_00000_0.jpg, .mat beside it, OUT/landmarks/SAMPLE/SAMPLE_00000_0_pts.mat, as contract 1 says.
Variant 0 is the "photo" (|yaw| < 25 degrees); 1, 2, ... are the same face turned further, to at most 75.
The same seed gives the same files, byte for byte; face i is the same whatever --faces is.

How it works. About 200 control points (the 68 landmarks and some anatomy between them, in centimetres) are
moved by identity and expression; a thin-plate spline over a flat map of the head carries every vertex of the
mesh with them. So a landmark is a vertex of the mesh, and its label is exact by construction.
Space: x to the image's right, y down, z towards the camera; origin between the ears at eye height.
Pose: 300W_LP's (3DDFA's) angles, R = Rx(pitch) Ry(yaw) Rz(roll). Positive yaw turns the nose to the image's
left, positive pitch raises it, positive roll turns the face clockwise in the image.
Not here: cast shadows, glasses, hats, hands, anything in front of the face.
"""

import argparse
import functools
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its sums differ in the last bit with its threads
import cv2  # noqa: E402
import numpy as np  # noqa: E402

SIZE = 450  # photo side, pixels (contract 1)
SET = "SAMPLE"
EMPTY = np.iinfo(np.int64).max  # a pixel of the z-buffer nothing has reached
WRAP = np.array([0.10, 0.15, 0.30])  # how far BGR light reaches past the edge of the shadow, for softness
TEX = 512  # side of the head's flat map, pixels; below it a strip of tiles for the other parts
STRIP = 128
FACE = slice(84, 428)  # the part of the flat map the face takes, texels both ways
RADIUS = 1.99  # of the flat map: 2 would be the point straight behind
CENTRE = np.array([0.0, 1.0, 0.0])  # the flat map is the view from here, all round (Lambert's equal area)

# ---- anatomy: one half of the head (x > 0), centimetres: mirrored for the other ----

# landmark at the image's right, landmark at the image's left, x, y, z
LANDMARKS = np.array([
    [16, 0, 7.0, 0.3, 1.2], [15, 1, 6.9, 2.6, 1.5], [14, 2, 6.6, 4.8, 2.0], [13, 3, 6.1, 6.9, 2.8],
    [12, 4, 5.4, 8.6, 4.0], [11, 5, 4.3, 10.0, 5.6], [10, 6, 3.0, 11.0, 7.4], [9, 7, 1.5, 11.6, 8.9],
    [8, 8, 0, 11.8, 9.5],
    [26, 17, 5.7, -2.0, 6.5], [25, 18, 4.8, -2.8, 8.0], [24, 19, 3.6, -3.0, 9.0], [23, 20, 2.4, -2.7, 9.6],
    [22, 21, 1.2, -2.2, 9.9],
    [27, 27, 0, -0.6, 9.6], [28, 28, 0, 0.7, 10.4], [29, 29, 0, 2.0, 11.25], [30, 30, 0, 3.3, 12.05],
    [35, 31, 1.45, 4.3, 10.4], [34, 32, 0.75, 4.6, 11.0], [33, 33, 0, 4.8, 11.2],
    [45, 36, 4.5, 0.05, 7.4], [44, 37, 3.6, -0.52, 8.15], [43, 38, 2.45, -0.5, 8.3],
    [42, 39, 1.65, 0.25, 8.1], [47, 40, 2.5, 0.55, 8.15], [46, 41, 3.6, 0.55, 8.0],
    [54, 48, 2.55, 6.85, 9.4], [53, 49, 1.5, 6.1, 10.7], [52, 50, 0.55, 5.75, 11.3], [51, 51, 0, 5.95, 11.35],
    [57, 57, 0, 8.1, 11.0], [56, 58, 0.8, 8.0, 10.9], [55, 59, 1.7, 7.6, 10.3],
    [64, 60, 2.3, 6.85, 9.6], [63, 61, 1.0, 6.6, 10.9], [62, 62, 0, 6.65, 11.2],
    [66, 66, 0, 7.15, 11.0], [65, 67, 1.0, 7.1, 10.8],
])  # fmt: skip
OTHERS = np.array([
    # forehead, skull
    [0, -2.4, 10.2], [0, -5, 10.2], [0, -7.5, 9.1], [0, -10, 6.3], [0, -11.8, 1.5], [0, -10.8, -4],
    [0, -6.5, -8.2], [0, -1, -9], [0, 4, -7.5], [3, -5.2, 9.4], [5.4, -4.9, 6.6], [6.6, -4.5, 3.4],
    [6.3, -2, 4.8], [3, -8, 7.9], [5.4, -8, 4.3], [4, -10.4, 2], [7.2, -4, 0], [7.2, -4.5, -3],
    [6.1, -8, -2], [4, -9.5, -4],
    [4.6, -5, -6.8], [7.3, 0, -3], [6, 3, -5], [4, 0, -7.9], [1.5, 0.6, -9.2], [0, 2.4, -8.7],
    [7.1, 1.5, -0.8],
    # cheeks
    [5.2, 2.7, 7.0], [6.3, 1.6, 5.0], [3.6, 2.7, 8.5], [2.2, 2.6, 8.95], [4.3, 4.8, 8.0], [2.7, 4.4, 9.4],
    [5.6, 5.2, 5.8], [3.9, 7.0, 8.2], [4.8, 8.0, 6.6], [5.9, 4.0, 5.6], [6.7, 3.5, 3.2], [6.1, 6.0, 4.2],
    # chin, throat
    [0, 9.0, 10.3], [0, 10.3, 10.6], [1.6, 10.3, 9.9], [2.8, 8.9, 9.2], [0, 12.0, 7.8], [0, 11.6, 4.5],
    [3, 10.9, 5.0], [4.6, 9.2, 2.0], [5.4, 7.6, 0.2], [5.8, 5, -1.5], [0, 9.5, 1.0],
    # nose
    [0.7, 3.35, 11.65], [1.65, 3.6, 10.7], [2.05, 4.0, 9.7], [1.15, 2.2, 10.2], [0.8, 0.7, 9.7],
    [1.3, -0.7, 8.9], [0, 4.25, 11.75], [1.15, 3.1, 11.0], [0.35, 5.2, 11.15], [0, 5.3, 11.05],
    # eye sockets
    [3.0, -1.45, 8.6], [4.5, -1.2, 7.6], [2.0, -1.2, 8.7], [3.1, 1.5, 8.25], [4.5, 1.3, 7.5], [2.0, 1.3, 8.6],
    [5.3, 0.1, 6.6],
])  # fmt: skip
# BGR: skin from light to dark; hair black, browns, blond, red, grey; irises
SKIN = np.array([[170, 196, 238], [140, 172, 224], [112, 146, 202], [78, 112, 170], [52, 78, 128], [36, 50, 84]])
HAIR = np.array([[18, 20, 24], [24, 36, 54], [40, 66, 104], [90, 140, 186], [40, 72, 150], [170, 172, 176]])
EYES = np.array([[26, 44, 74], [38, 66, 104], [120, 120, 92], [150, 118, 74], [84, 116, 96]])
RIGHT_EYE, LEFT_EYE = list(range(36, 42)), list(range(42, 48))
OUTER_LIP, INNER_LIP = list(range(48, 60)), list(range(60, 68))
# where, x and y, the row ends along which jaw landmark 0..7 slides over the cheek of a turned head
SLIDE_END = np.array(
    [[5.0, 0.9], [2.2, 2.8], [1.7, 5.0], [2.75, 6.5], [1.5, 8.5], [1.0, 9.6], [0.6, 10.6], [0.3, 11.2]]
)
SLIDE = 23  # vertices in such a row


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
    """A smooth curve (Catmull-Rom) through points (N, 2), these among them: about N * steps points."""
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
    at, slides = uv[:68], {}
    for i, (x, y) in enumerate(SLIDE_END):
        for sign, jaw in ((-1, i), (1, 16 - i)):
            end = flat(np.array([[sign * x, y, 9.5 - 0.13 * x * x]]))
            slides[jaw] = np.r_[jaw, len(at) + np.arange(SLIDE)]
            at = np.concatenate([at, uv[jaw] + np.linspace(0, 1, SLIDE + 1)[1:, None] * (end - uv[jaw])])
    extra = np.concatenate([*lids, *lips, uv[68:]])
    at = np.concatenate([at, extra[np.min(((extra[:, None] - at[None]) ** 2).sum(-1), 1) > 1e-5]])
    for step, low, high in ((0.042, 0, 1.1), (0.085, 1.1, RADIUS)):
        y, x = np.mgrid[-RADIUS : RADIUS : step * 0.87, -RADIUS:RADIUS:step]
        x[::2] += step / 2
        p = np.c_[x.ravel(), y.ravel()]
        p = p[(np.hypot(*p.T) >= low) & (np.hypot(*p.T) < high)]
        near = np.concatenate([((q[:, None] - at[None]) ** 2).sum(-1).min(1) for q in np.array_split(p, 16)])
        at = np.concatenate([at, p[near > (0.5 * step) ** 2]])
    at = at.astype(np.float32)
    div = cv2.Subdiv2D((-3, -3, 6, 6))
    div.insert(at)
    number = {v.tobytes(): i for i, v in enumerate(at)}
    corners = div.getTriangleList().reshape(-1, 3, 2)
    corners = corners[np.abs(corners).max((1, 2)) < 2]  # without those that hang on Subdiv2D's outer frame
    tri = np.array([[number[v.tobytes()] for v in t] for t in corners])
    a, b, c = at[tri[:, 0]], at[tri[:, 1]], at[tri[:, 2]]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    tri[area < 0] = tri[area < 0][:, [0, 2, 1]]
    hole = np.zeros(len(tri), bool)
    for line in np.float32(lids[0]), np.float32(lids[1]), np.float32(lips[1]):
        hole |= [cv2.pointPolygonTest(line, middle, False) > 0 for middle in at[tri].mean(1).tolist()]
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

    front = np.interp(z, [-9, -4, -3, -2.2, 1, 1.3, 2.2, 3.0, 5.5, 7.5, 9.5],
                      [8, 7, 4, -0.6, -0.8, 1.8, 1.5, -2, -5, -6.5, -7.3])  # fmt: skip
    crease = patch(*[np.concatenate([q[:16] - [0, 0.045], q[15::-1] - [0, 0.05]]) for q in lids], blur=0.9)
    masks = {
        "hair": (front - y).astype(np.float32),  # centimetres inside the hairline
        "high": np.where(z > 4, -y, -9).astype(np.float32),
        "side": xyz[..., 0].copy(),
        "lips": patch(*lips, blur=0.8),
        "red": blob(4.2, 3.0, 1.8, 1.5) + 0.8 * blob(0, 3.6, 1.5, 1.0) + 0.3 * blob(0, 10.5, 2, 1),
        "beard": smoothstep((y - np.interp(x, [0, 2.2, 3.2, 5, 6.5], [4.9, 5.0, 6.7, 6.0, 3.0])) / 1.6)
        * smoothstep((z - 0.8) / 1.5) * (1 - 0.7 * blob(0, 8.6, 0.5, 0.5)),
        "shade": 1 - np.clip(
            0.22 * blob(2.0, -0.9, 0.9, 0.8) + 0.15 * blob(3.2, -1.0, 1.6, 0.45) + 0.3 * crease
            + 0.15 * blob(2.4, 1.2, 1.2, 0.5) + 0.25 * blob(2.0, 4.1, 0.35, 0.6)
            + 0.35 * blob(0.7, 4.75, 0.6, 0.3) + 0.28 * blob(0, 8.75, 1.5, 0.45)
            + 0.3 * blob(2.75, 6.9, 0.35, 0.3)
            + 0.5 * smoothstep((y - 10.8) / 2) * smoothstep((8.2 - z) / 3), 0, 0.8),
        "nostril": np.clip(1.6 * blob(0.72, 4.42, 0.36, 0.22), 0, 1),
        "fold": blob(2.9, 5.2, 0.3, 0.9),
        "lash": patch(*[np.concatenate([line[:16], line[15::-1] - [0, 0.022]]) for line in lids], blur=0.6),
    }  # fmt: skip
    distance, angle = np.hypot(xyz[..., 0], y) + np.abs(z), np.arctan2(y + 4, xyz[..., 0])
    masks["strand"] = np.float32(np.stack([(angle / np.pi + 1) * 512, distance * 12], -1))
    for name in ("lips", "red", "beard", "shade", "nostril", "fold", "lash"):
        masks[name] = masks[name][FACE, FACE].astype(np.float32)
    head = {"controls": controls, "uv": uv, "at": at, "tri": tri, "matrix": spline(uv, at), "slides": slides}
    out = head["matrix"] @ controls + [0, 2, 0]
    head["out"] = out / np.linalg.norm(out, axis=1, keepdims=True)  # the way hair stands off the head
    head["matrix"] = head["matrix"].astype(np.float32)
    return head | masks | {"noise": noise_bank()}


def noise_bank():
    """Fixed noise everything draws from, because drawing it anew costs more than the rendering (a dict)."""
    rng = np.random.default_rng(0)
    grain = rng.normal(128, 32, (600, 600, 3)).clip(0, 255).astype(np.uint8)
    strand = cv2.GaussianBlur(rng.normal(0, 1, (512, 1024)).astype(np.float32), (0, 0), 1.0, sigmaY=14)
    clouds = [rng.normal(0, 1, (1024, 1024)).astype(np.float32) for _ in range(3)]
    clouds = [cv2.GaussianBlur(c, (0, 0), sigma) for c, sigma in zip(clouds, (1.5, 5, 24), strict=True)]
    return {"grain": grain, "strand": strand / strand.std(), "clouds": [c / c.std() for c in clouds]}


# ---- one face: shape, texture, parts ----


def pick(bank, rng, height, width):
    """A random window (height, width) of a larger noise array."""
    r, c = rng.integers(0, bank.shape[0] - height), rng.integers(0, bank.shape[1] - width)
    return bank[r : r + height, c : c + width]


def eyeball(ball, dx, dy):
    """Depth z of an eyeball's front at offsets from its centre; ball: x, y, z, slope dz/dx."""
    return ball[2] + ball[3] * dx - 1.7 + np.sqrt(np.maximum(0, 1.7**2 - dx * dx - dy * dy))


def shape_face(rng):
    """Move the controls by a random identity and expression.

    Parameters: rng, numpy Generator.
    Returns: controls (C, 3) in centimetres; a dict of what the other parts follow: balls (the eyes),
    open, smile, blink, and n, the numbers drawn for the identity.
    """
    base = head()["controls"]
    p = base.copy()
    x, y, z = np.abs(base[:, 0]), base[:, 1], base[:, 2]
    side = np.sign(base[:, 0])

    def near(cx, cy, cz, r):
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (r * r))

    n = rng.normal(0, 1, 29).clip(-2, 2)
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
    smile, raised = rng.choice([0, 0, 1]) * rng.uniform(0.2, 1), rng.normal(-0.1, 0.25) + 0.3 * (jaw_open > 1)
    frown, pucker = max(0, rng.normal(-0.4, 0.4)), max(0, rng.normal(-1, 0.6)) * (smile == 0)
    blink = rng.choice([0, 0, 0, 0, 0, 1]) * rng.uniform(0.4, 1.0) + 0.15 * smile
    blink += rng.uniform(-0.05, 0.3) * (smile < 0.3)  # few eyes are wide open
    lower = np.isin(np.arange(len(p)), [55, 56, 57, 58, 59, 65, 66, 67])
    gap_low, gap_high = p[[67, 66, 65], 1].copy(), p[[61, 62, 63], 1]
    p[lower, 1] -= (gap_low - gap_high).mean() - 0.02 * n[28] - 0.02
    p[[67, 66, 65], 1] = np.maximum(p[[67, 66, 65], 1], gap_high)
    corner = near(2.5, 6.85, 9.5, 1.8)
    p += smile * corner[:, None] * (side[:, None] * [0.75, 0, 0] + [0, -0.65, -0.45])
    p[:, 2] += 0.35 * smile * near(4.3, 3.2, 8, 1.6)
    p[:, 1] -= 0.2 * smile * near(4.0, 3.0, 8, 1.8)
    round_mouth = np.exp(-((x / 3) ** 2) - (y - 6.9) ** 2 / 4)[:, None]
    p += pucker * round_mouth * (base * [-0.35, 0, 0] + [0, 0, 0.5])
    p[51:54, 1] -= smile * 0.1
    drop = np.where(lower, 1, smoothstep((y - 6.5) / 1.4) * smoothstep((z + 0.5) / 4)) * jaw_open
    drop[[48, 54, 60, 64]] = 0.42 * jaw_open
    p[:, 1] += drop * (0.35 + 0.65 * np.clip(z / 9, 0, 1.2))
    p[:, 2] -= drop * 0.28
    p[:, 0] -= side * corner * 0.12 * jaw_open
    p[:, 1] -= 0.9 * raised * near(3, -2.8, 9, 2.2)
    inner = near(1.4, -2.3, 9.9, 1.2)
    p += frown * inner[:, None] * (side[:, None] * [-0.5, 0, 0] + [0, 0.7, 0])
    balls = []
    for corner1, u1, u2, corner2, d2, d1 in (RIGHT_EYE, LEFT_EYE):
        a, b = p[corner1], p[corner2]
        ball = np.array([*(a + b)[:2] / 2, (a[2] + b[2]) / 2 + 0.6, (b[2] - a[2]) / (b[0] - a[0])])
        for u, d in ((u1, d1), (u2, d2)):
            p[d, 1] -= 0.12 * smile + 0.1 * blink * (blink > 0.3)
            p[u, 1] += min(1.0, blink) * (p[d, 1] - 0.03 - p[u, 1])
            for k in (u, d):
                p[k, 2] = eyeball(ball, *(p[k, :2] - ball[:2])) + 0.08
        balls.append(ball)
    return p, {"balls": balls, "open": jaw_open, "smile": smile, "blink": blink, "n": n}


def over(image, mask, colour):
    """Lay a colour (3,) or picture (3, H, W) over an image (3, H, W), in place; mask (H, W) 0..1."""
    image += mask * (np.float32(colour).reshape(3, *np.shape(colour)[1:] or (1, 1)) - image)


def paint(rng, info):
    """The texture of one face: (TEX + STRIP, TEX, 3) uint8 BGR; and the style of its hair (a dict)."""
    h = head()
    noise = h["noise"]
    age, male = rng.random(), rng.random() < 0.5
    tone = rng.uniform(0, len(SKIN) - 1.01)
    i = int(tone)
    skin = np.float32((SKIN[i] + (tone - i) * (SKIN[i + 1] - SKIN[i])) / 255 * rng.normal(1, 0.015, 3))
    fine, mid, large = (pick(c, rng, TEX, TEX) for c in noise["clouds"])
    tex = skin[:, None, None] * (1 + 0.022 * fine + 0.018 * mid + 0.02 * large)
    face, spot = tex[:, FACE, FACE], fine[FACE, FACE]
    over(face, h["red"] * rng.uniform(0.1, 0.7), skin * np.float32([0.74, 0.72, 0.98]))
    if rng.random() < 0.2:  # freckles
        over(face, 0.8 * smoothstep(spot - 1.6) * h["red"], skin * np.float32([0.5, 0.6, 0.75]))
    # hair colour goes with skin; grey comes with age
    weights = np.array([4, 3, 3, 2, 1, 0.0] if tone < 2 else [6, 3, 1, 0.1, 0.05, 0])
    weights[5] = 8 * max(0, age - 0.6)
    hair = np.float32(HAIR[rng.choice(6, p=weights / weights.sum())] / 255 * rng.uniform(0.8, 1.2))
    if male and rng.random() < 0.6:  # beard or stubble
        amount = rng.choice([0.2, 0.4, 0.9])
        over(face, h["beard"] * (amount + 0.12 * amount * spot).clip(0, 1) * (1 - h["lips"]), hair * 0.8)
    lip = np.float32([0.62, 0.6, 0.86])
    if not male and rng.random() < 0.3:  # lipstick
        lip = rng.uniform([0.3, 0.2, 0.75], [0.5, 0.4, 0.95])
    over(face, 0.8 * h["lips"] * (1 + 0.1 * spot), skin * lip)
    shade = h["shade"] * (1 - 0.12 * (info["smile"] + age) * h["fold"]) * (1 - 0.9 * h["nostril"])
    over(face, 1 - shade, skin * np.float32([0.12, 0.14, 0.24]))
    # brows: short strokes along the brow landmarks
    layer = np.zeros((TEX, TEX), np.uint8)
    t, width = rng.random((2, 170, 1)), rng.uniform(0.7, 1.4)
    for ids in (range(17, 22), range(26, 21, -1)):  # from the outer end
        line = curve(h["uv"][list(ids)], 30, closed=False)
        spread = rng.normal(0, 0.015, (170, 1)) * width * (0.4 + 0.8 * t[0])
        root = line[(t[0] * (len(line) - 1)).astype(int)[:, 0]] + [0, 1] * spread
        way = np.sign(line[0, 0]) * (0.05 - 0.025 * t[0])
        tips = root + np.c_[way, 0.004 - 0.03 * t[0]] * (0.6 + 0.5 * t[1])
        strokes = np.round(texel(np.stack([root, tips], 1)) * 16).astype(np.int32)
        cv2.polylines(layer, list(strokes), False, 170, 1, cv2.LINE_AA, 4)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.9)[FACE, FACE] * np.float32(rng.uniform(0.45, 0.85) / 170)
    over(face, layer.clip(0, 0.95), hair * 0.6 + skin * 0.06)
    over(face, h["lash"] * rng.uniform(0.5, 0.95) * (1 - 0.4 * info["blink"]), [0.04, 0.04, 0.05])
    # head hair
    long = not male and rng.random() < 0.75
    style = {
        "skin": skin, "long": long, "curly": not long and rng.random() < 0.25,
        "bald": male and rng.random() < 0.15,
        "thick": rng.uniform(0.3, 1.6), "shift": rng.normal(0.2, 0.6), "part": rng.uniform(-3, 3),
        "fringe": rng.uniform(3.7, 5.5) + 9 * (rng.random() < 0.65), "length": rng.uniform(8, 20),
        "front": rng.uniform(0.36, 0.5),
    }  # fmt: skip
    strand = 0.5 * fine + mid
    if not style["curly"]:
        strand = cv2.remap(noise["strand"], h["strand"], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    style["rough"] = 0.25 * mid * style["curly"] + 0.12 * large
    field = hair_field(style, h["hair"], h["high"], h["side"]) + 0.35 * strand + 0.15 * large
    gloss = hair[:, None, None] * (1 + 0.28 * strand + 0.12 * large)
    over(tex, smoothstep(field / 0.9) * (0.12 if style["bald"] else 1), gloss)

    # the strip of tiles: torso 0..191, eye 192..319, mouth 320..415, hair 416..511
    strip = np.zeros((3, STRIP, TEX), np.float32)
    yy, xx = np.mgrid[0:STRIP, 0:192].astype(np.float32)
    cloth = np.float32(rng.uniform(0.05, 0.9) + rng.normal(0, 0.13, 3))[:, None, None].clip(0.03, 0.95)
    strip[:, :, :192] = cloth * (1 + 0.06 * pick(noise["clouds"][0], rng, STRIP, 192))
    if rng.random() < 0.3:
        strip[:, :, :192] *= 1 - 0.5 * (np.sin(yy * rng.uniform(0.3, 0.9)) > 0.3)
    neckline = 38 + rng.uniform(0, 40) * np.exp(-(((xx - 96) / rng.uniform(14, 34)) ** 2))
    over(strip[:, :, :192], smoothstep(neckline - yy), skin * 0.9)
    yy, xx = np.mgrid[-2:2:128j, -2:2:128j].astype(np.float32)
    r = np.hypot(xx, yy)  # the eye's tile: two centimetres each way
    eye, iris = strip[:, :, 192:320], rng.uniform(0.55, 0.62)
    eye[:] = np.float32([0.66, 0.71, 0.78])[:, None, None] * rng.uniform(0.85, 1.0)
    over(eye, 0.6 * smoothstep((r - 0.8) / 0.8), skin * np.float32([0.5, 0.5, 0.8]))
    weights = [0.4, 0.25, 0.1, 0.15, 0.1] if tone < 2 else [0.85, 0.12, 0.01, 0.01, 0.01]
    colour = EYES[rng.choice(5, p=weights)] / 255
    over(eye, smoothstep((iris - r) / 0.08), colour * 0.35)
    over(eye, smoothstep((iris - 0.08 - r) / 0.15), colour * 1.1)
    over(eye, smoothstep((rng.uniform(0.2, 0.3) - r) / 0.05), [0.02, 0.02, 0.02])
    over(eye, 0.9 * smoothstep((0.14 - np.hypot(xx - rng.uniform(-0.25, 0.25), yy + 0.22)) / 0.08), [1, 1, 1])
    yy, xx = np.mgrid[0:4:128j, -3:3:96j].astype(np.float32)
    mouth = strip[:, :, 320:416]  # four centimetres down, three each way
    mouth[:] = np.float32([0.06, 0.05, 0.14])[:, None, None]
    over(mouth, 0.7 * smoothstep((yy - 2.0) / 1.5), [0.25, 0.22, 0.5])
    teeth = smoothstep((1.0 + 0.06 * np.cos(xx * 8) - yy) / 0.1) * smoothstep((2.2 - np.abs(xx)) / 0.8)
    teeth *= 1 - 0.3 * (np.abs(np.sin(xx * 4)) < 0.12)
    over(mouth, teeth, np.float32([0.72, 0.82, 0.86]) * rng.uniform(0.7, 1))
    strip[:, :, 416:] = hair[:, None, None] * (0.95 + 0.3 * pick(noise["strand"], rng, STRIP, 96))
    tex = np.concatenate([tex, strip], 1) * 255
    return cv2.merge([cv2.convertScaleAbs(np.maximum(c, 2)) for c in tex]), style


def hair_field(style, inside, high, side):
    """Centimetres inside this style's hairline (negative: skin), from the masks `hair`, `high` and `side`."""
    fringe = high - style["fringe"] - 0.15 * np.abs(side - style["part"])
    return np.maximum(inside + style["shift"], fringe) - (4 if style["bald"] else 0)


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
    skin = (h["matrix"] @ p.astype(np.float32)).astype(np.float64)
    uv = texel(h["at"])
    at = uv.astype(np.float32)[:, None]
    inside, high, side = (cv2.remap(h[k], at, None, cv2.INTER_LINEAR)[:, 0] for k in ("hair", "high", "side"))
    field = hair_field(style, inside, high, side)
    rough = cv2.remap(style["rough"], at, None, cv2.INTER_LINEAR)[:, 0]
    stand = smoothstep((field - 0.3) / 2.5) * (style["thick"] + 0.8 * style["curly"]) * (1 + rough)
    skin += h["out"] * (stand * (0.1 if style["bald"] else 0.6 if style["long"] else 1))[:, None]
    parts, thin, solid = [(skin, uv, np.ones(len(skin)), np.ones(len(skin)))], [], [h["tri"]]

    def add(kind, grid, uv, shade, follow=1.0):  # grid (rows, columns, 3); shade and follow (rows, columns) or one
        kind.append(grid_triangles(*grid.shape[:2], sum(len(q[0]) for q in parts)))
        shade, follow = (np.broadcast_to(v, grid.shape[:2]).ravel() for v in (shade, follow))
        parts.append((grid.reshape(-1, 3), uv, follow, shade))

    # eyeballs
    a, t = np.meshgrid(np.linspace(2 * np.pi, 0, 17), np.array([0.05, 0.3, 0.6, 0.9, 1.2, 1.45, 1.62, 1.69]))
    x, y = t * np.cos(a), t * np.sin(a)
    lid = 0.45 + 0.55 * smoothstep(1.2 - 1.2 * info["blink"])  # less light between closing lids
    for ball in info["balls"]:
        look = [(v - g).clip(-2, 2) / 4 + 0.5 for v, g in zip((x, y), info["gaze"], strict=True)]
        xyz = np.stack([ball[0] + x, ball[1] + y, eyeball(ball, x, y)], -1)
        add(solid, xyz, tile_uv("eye", *look), lid * (0.55 + 0.5 * smoothstep((y + 0.75) / 0.7)))
    # inside of the mouth: from behind the upper lip back, down, and forward to behind the lower
    up, low = p[[60, 61, 62, 63, 64]].T, p[[60, 67, 66, 65, 64]].T
    up, low = (np.stack([np.interp(np.arange(13) / 3, np.arange(5), c) for c in lip], 1) for lip in (up, low))
    v, gap = np.linspace(-0.25, 1.2, 7)[:, None, None], (low - up)[None, :, 1:2]
    xyz = up + v * (low - up) + [0, 0.25, 0] * (v - 0.4) - [0, 0, 0.12]
    xyz -= [0, 0, 1] * np.sin(v.clip(0, 1) * np.pi) * (0.1 + 0.6 * gap.clip(0, 1))
    look = (xyz[..., 0] / 6 + 0.5).clip(0, 1), ((xyz[..., 1] - p[62, 1] + 0.45) / 4).clip(0, 1)
    add(solid, xyz, tile_uv("mouth", *look), 0.15 + 0.75 * smoothstep(gap.mean() / 0.9))
    # ears: a disc with a rim and a hollow
    a, r = np.meshgrid(np.linspace(0, 2 * np.pi, 21), np.array([0.0, 0.3, 0.5, 0.62, 0.78, 0.92, 1.0]))
    deep = np.array([-0.5, -0.5, -0.25, 0.12, 0.05, 0.3, 0.0])[:, None] + 0 * a
    wide = 1.55 * (1 - 0.22 * np.sin(a))
    long = 3.1 * np.where(np.sin(a) > 0, 1.0, 0.92)
    back, up = r * wide * np.cos(a), r * long * np.sin(a)
    shade = np.array([0.6, 0.65, 0.75, 0.95, 0.85, 1.0, 0.9])[:, None]
    for s, jaw in ((-1, 0), (1, 16)):
        x = abs(p[jaw, 0]) + 0.3 + 0.5 * deep + info["stick"] * (1.2 - back) * 0.5
        xyz = np.stack([s * x, 1.9 + p[0, 1] + up, -0.6 + back * 0.9 - 0.25 * up + 0.2 * deep], -1)
        cheek = texel(flat(np.array([[s * 4.6, 3.3, 7.6]])))  # its skin is the cheek's
        add(thin, xyz, cheek + 4 * np.stack([back, up], -1).reshape(-1, 2), shade)
    # neck and torso
    a, k = np.meshgrid(np.linspace(-np.pi, np.pi, 33), np.arange(9))
    ys = np.array([6.0, 10, 13, 15, 16.5, 18, 20.5, 25, 40])[k]
    wx = np.array([5.0, 5.1, 5.3, 6.2, 9.5, 14.5, 18.5, 20.5, 21.5])[k] * info["build"]
    wz = np.array([5.0, 5.0, 5.2, 5.8, 6.5, 7.5, 8.5, 10, 11])[k]
    zc = np.array([0.5, -0.2, -0.8, -1.2, -1.5, -1.6, -1.5, -1, -1])[k]
    xyz = np.stack([wx * np.sin(a), ys, zc + wz * np.cos(a)], -1)
    follow = np.array([1, 0.85, 0.55, 0.3, 0.15, 0, 0, 0, 0.0])[k]
    shade = np.array([0.5, 0.6, 0.8, 0.95, 1, 1, 1, 1, 1])[k]
    add(solid, xyz, tile_uv("torso", a / (2 * np.pi) + 0.5, k / 8), shade, follow)
    # long hair: a sheet round the back and the sides
    if style["long"]:
        f = style["front"]  # of pi: where the sheet begins, from straight ahead
        a, k = np.meshgrid(np.linspace(-1, 1, 49), np.arange(12))
        t = k / 11
        a = np.pi * (1 + a * (1 - f - 0.35 * (1 - smoothstep(2.5 * t))))
        ys = -10.5 + t * (10.5 + style["length"] + 0.5 * np.sin(a * 13) + 0.4 * np.sin(a * 31))
        skull = np.sqrt(np.clip(1 - ((np.minimum(ys, -2) + 2) / 10.2) ** 2, 0.05, 1))
        bulge = (8.1 + 0.7 * style["thick"]) * skull + 0.2 * np.sin(a * 9 + 2 * t) + 0.1 * np.sin(a * 23)
        bulge = (bulge + 0.9 * t * (1 - t)) * (0.92 + 0.08 * smoothstep(3 * t))
        xyz = np.stack([bulge * np.sin(a), ys, -0.6 + 1.08 * bulge * np.cos(a)], -1)
        add(thin, xyz, tile_uv("hair", (a / np.pi * 1.7) % 1.0, t), 1.0, np.clip(1.2 - 0.9 * t, 0, 1))
    xyz, uv, follow, shade = (np.concatenate([q[j] for q in parts]) for j in range(4))
    return xyz, uv, follow, shade, np.concatenate([*thin, *solid]), sum(len(t) for t in thin)


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


def runs(first, last):
    """All whole numbers first..last of many runs, one after another: (N,) float32; and whose each is (N,)."""
    count = np.maximum(0, last - first + 1).astype(np.int32)
    whose = np.repeat(np.arange(len(count), dtype=np.int32), count)
    start = (first - (np.cumsum(count) - count)).astype(np.int32)
    return (np.arange(len(whose), dtype=np.int32) + start.take(whose)).astype(np.float32), whose


def rasterize(xy, values, tri, both):
    """What each pixel shows (z-buffer).

    Every triangle is cut into its rows, every row into its pixels, all of them at once.
    Parameters: xy (V, 2) pixels; values (V, K) float32 to interpolate, of which the first is the depth,
    larger nearer, -100..100; tri (T, 3), of which the first `both` are seen from either side and the others
    only when they run clockwise on the screen.
    Returns: pixels (N,), flat indices, some twice, so that N is a multiple of 512; their values (N, K).
    """
    p = xy.astype(np.float32)
    x, y = p[:, 0][tri.T], p[:, 1][tri.T]
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    seen = np.flatnonzero((area > 1e-3) | ((np.arange(len(tri)) < both) & (area < -1e-3)))
    x, y, area, corner = x[:, seen], y[:, seen], area[seen], values.take(tri[seen].T, 0)
    # a corner's weight is linear, gx * x + gy * y + g0, and so is every value: step * x + base in one row
    gx, gy = (y[[1, 2, 0]] - y[[2, 0, 1]]) / area, (x[[2, 0, 1]] - x[[1, 2, 0]]) / area
    g0 = 1 - gx * x - gy * y
    rows, whose = runs(np.ceil(y.min(0)).clip(0, SIZE), np.floor(y.max(0)).clip(-1, SIZE - 1))
    rest, slope = gy.take(whose, 1) * rows + g0.take(whose, 1), gx.take(whose, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = -rest / slope
    left = np.where(slope > 0, cross, -np.inf).max(0).clip(0, SIZE)
    right = np.where(slope < 0, cross, np.inf).min(0).clip(-1, SIZE - 1)
    step, along, origin = (np.einsum("kt,ktc->tc", g, corner) for g in (gx, gy, g0))
    base = along.take(whose, 0) * rows[:, None] + origin.take(whose, 0)
    columns, row = runs(np.ceil(left), np.floor(right))
    near = base[:, 0].take(row) + step[:, 0].take(whose).take(row) * columns
    buffer = np.full(SIZE * SIZE, EMPTY)
    np.minimum.at(buffer, ((rows * SIZE).take(row) + columns).astype(np.int32),
                  ((100 - near) * 1000).astype(np.int64) << 32 | np.arange(len(near)))  # fmt: skip
    pixels = np.flatnonzero(buffer != EMPTY)
    pixels = np.resize(pixels, -(-len(pixels) // 512) * 512)
    win = buffer.take(pixels) & 0xFFFFFFFF
    line = row.take(win)
    return pixels, base.take(line, 0) + step.take(whose.take(line), 0) * columns.take(win)[:, None]


def backdrop(rng):
    """A random background (450, 450, 3) uint8: a graded wall, soft things on it, some grain."""
    noise, half = head()["noise"], SIZE // 2
    yy, xx = np.mgrid[-1 : 1 : half * 1j, -1 : 1 : half * 1j].astype(np.float32)

    def colour():  # mostly greyish, as rooms and streets are
        c = rng.uniform(0.02, 0.95) + rng.normal(0, 0.1) * np.array([-1, 0, 1]) + rng.normal(0, 0.03, 3)
        return c.clip(0, 1)

    a, b, turn = colour(), colour(), rng.uniform(0, 2 * np.pi)
    ramp = smoothstep(0.5 + 0.5 * (xx * np.cos(turn) + yy * np.sin(turn)))[..., None]
    image = np.float32(a) + np.float32(b - a) * ramp
    lean = rng.normal(0, 8)
    for _ in range(rng.integers(0, 14)):
        c, (x, y), (w, t) = colour().tolist(), *rng.integers([[0, 0], [4, 4]], [[half], [70]]).tolist()
        if rng.random() < 0.65:
            box = cv2.boxPoints(((x, y), (w, 3 * t), lean))
            cv2.fillPoly(image, [box.astype(np.int32)], c, cv2.LINE_AA)
        else:
            cv2.ellipse(image, (x, y), (w, t), 0, 0, 360, c, -1, cv2.LINE_AA)
    image = cv2.blur(image, (int(rng.integers(1, 14)),) * 2)
    image *= 1 + rng.uniform(0, 0.07) * pick(noise["clouds"][rng.integers(0, 3)], rng, half, half)[..., None]
    return cv2.convertScaleAbs(cv2.resize(image, (SIZE, SIZE)), alpha=255)


def visible_outline(points, down):
    """pts_2d (68, 2) from all vertices in the image (V, 2) and the direction of the head's chin there (2,).

    A jaw point slides along its row over the cheek to the place that is outermost in the image: the point
    itself, unless the head turns that side away.
    """
    out = points[:68].copy()
    across = np.array([down[1], -down[0]])
    for jaw, row in head()["slides"].items():
        lean = 1.15 * min(jaw, 16 - jaw) / 7  # outwards is sideways at the ear, and more and more down at the chin
        outwards = np.sign(jaw - 8) * np.cos(lean) * across + np.sin(lean) * down
        out[jaw] = points[row[np.argmax(points[row] @ outwards)]]
    return out


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
    info |= {
        "gaze": rng.normal(0, [0.13, 0.07]),
        "stick": rng.uniform(0.15, 0.7),
        "build": rng.uniform(0.85, 1.1),
    }
    tex, style = paint(rng, info)
    xyz, uv, follow, ao, tri, both = build(p, info, style)
    normal, thin = normals(xyz, tri), np.unique(tri[:both])
    zero = np.zeros(len(xyz))  # fills a row of values up to 32 bytes, which NumPy gathers twice as fast
    ground = backdrop(rng)
    # light: a key with a direction, the rest from all round with a little more from above
    side, high = rng.uniform(-1.2, 1.2), rng.uniform(-0.1, 0.9)
    key = np.array([np.sin(side) * np.cos(high), -np.sin(high), np.cos(side) * np.cos(high)])
    total, ambient = rng.uniform(0.8, 1.15), rng.uniform(0.3, 0.65)
    strength = total - ambient
    warm = rng.normal(0.01, 0.03, (2, 1)) * [-1, 0, 1]
    tint, cast = 1 + warm + rng.normal(0, 0.015, (2, 3))
    gloss = rng.uniform(0.02, 0.22)
    scale, distance = rng.uniform(10.6, 14), rng.uniform(60, 200)
    # yaw: the photo's, then evenly on to the last, turning one way
    way, photo_yaw, last = rng.choice([-1, 1]), abs(rng.normal(0, 10)), rng.uniform(35, 75)
    steps = (np.arange(variants) - rng.uniform(0, 0.2, variants)) / max(1, variants - 1)
    steps[0] = 0
    yaws = way * np.deg2rad(min(photo_yaw, 24) * (1 - steps) + last * steps)
    grain = rng.uniform(0.03, 0.2)
    blur = rng.uniform(0.45, 1.1)
    exposure = rng.uniform(0.85, 1.15)
    quality = int(rng.integers(75, 96))
    pitch0, roll0 = rng.normal(0, 7, 2) * rng.choice([1, 1, 1, 1, 3], 2)
    for yaw in yaws:
        pitch, roll = np.deg2rad(np.clip([pitch0 + rng.normal(0, 4), roll0 + rng.normal(0, 4)], -30, 30))
        shift = rng.normal(0, 8, 2)
        turn, body = rotation(pitch, yaw, roll), rotation(0.1 * pitch, 0.45 * yaw, 0.1 * roll)
        f = follow[:, None]
        posed = f * (xyz @ turn.T) + (1 - f) * (xyz @ body.T)
        n = f * (normal @ turn.T) + (1 - f) * (normal @ body.T)
        zoom = scale / (1 - (posed[:, 2:] - 5) / distance)
        xy = posed[:, :2] * zoom
        centre = SIZE / 2 + shift - (xy[:68].min(0) + xy[:68].max(0)) / 2 + [0, 20]
        xy += centre
        # shading
        lit = n @ key
        lit[thin] = np.abs(lit[thin])
        half = key + [0, 0, 1]
        shine = gloss * np.maximum(0, n @ (half / np.linalg.norm(half))) ** 18 / style["skin"].mean()
        soft = np.clip((lit[:, None] + WRAP) / (1 + WRAP), 0, None)  # red light goes deeper into skin
        soft = ambient * (0.85 - 0.15 * n[:, 1:2]) * cast + (strength * soft + shine[:, None]) * tint
        values = np.c_[posed[:, 2], uv, ao[:, None] * soft * exposure, zero, zero].astype(np.float32)
        pixels, values = rasterize(xy, values, tri, both)
        values = values.reshape(-1, 512, 8)
        where, light = (np.empty((*values.shape[:2], k), np.float32) for k in (2, 3))
        cv2.mixChannels([values], [where, light], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4])
        colour = cv2.multiply(cv2.remap(tex, where, None, cv2.INTER_LINEAR), light, dtype=cv2.CV_8U)
        photo = ground.copy()
        photo.reshape(-1).view("V3")[pixels] = colour.reshape(-1).view("V3")  # whole pixels: twice as fast
        photo = cv2.GaussianBlur(photo, (0, 0), blur)
        speck = np.ascontiguousarray(pick(h["noise"]["grain"], rng, SIZE, SIZE))
        photo = cv2.addWeighted(photo, 1, speck, grain, -128 * grain)
        pts_3d, down = xy[:68], turn[:2, 1] / np.hypot(*turn[:2, 1])
        pts_2d = visible_outline(xy, down)
        low, top = pts_2d.min(0), pts_2d.max(0)
        params = {
            "pt2d": pts_2d.T, "roi": np.r_[low, top][None],
            "Pose_Para": np.array([[pitch, yaw, roll, *centre, 0, scale]]),
            "Shape_Para": info["n"][:, None],
            "Exp_Para": np.array([[info["open"]], [info["smile"]], [info["blink"]]]),
            "Illum_Para": np.array([[*key, strength, ambient, gloss]]),
        }  # fmt: skip
        yield photo, pts_2d.astype(np.float32), pts_3d.astype(np.float32), params, quality


# ---- files ----


def mat_bytes(arrays):
    """A MATLAB 5 file of named float32 matrices, as bytes.

    Our own, because scipy's savemat puts the date into the header: then the same seed would not give the
    same file.
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
    """Render a face and write its files; job: (folder, seed, face, variants). Returns how many photos."""
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
    """A worker leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
    cv2.setNumThreads(1)  # a worker for each core; and a fork does not copy OpenCV's threads: workers would hang
    head()  # before the fork, so that the workers share it
    jobs = [(partial, args.seed, face, args.variants) for face in range(args.faces)]
    try:
        with multiprocessing.Pool(initializer=quiet) as pool:
            for n in pool.imap(write_face, jobs, chunksize=4):
                done += n
                rate = done / (time.time() - start)
                print(
                    f"\r{done}/{total} photos, {rate:.0f}/s, {(total - done) / rate:.0f} s left ",
                    end="",
                    flush=True,
                )
        partial.rename(args.out)
    except KeyboardInterrupt:
        sys.exit("\nstopped: nothing written")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"\n{total} photos of {args.faces} faces in {args.out} ({total / (time.time() - start):.0f} photos/s)")
    print(f"next: python prepare_tfrecords.py --data {args.out} --out {args.out}")


if __name__ == "__main__":
    main()
