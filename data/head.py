"""What make_sample.py and turn_faces.py share: poses, a rasterizer, worker processes, the files of 300W_LP's layout.

Space: centimetres, x to the image's right, y down, z towards the camera.
Pose: 300W_LP's (3DDFA's) angles, R = Rx(pitch) Ry(yaw) Rz(roll). Positive yaw turns the nose to the image's left,
positive pitch raises it, positive roll turns the face clockwise in the image. At zero the mesh of head.npz faces the
camera as it is modelled (make_sample.py), or MEAN of fit_head.py does (turn_faces.py), 3 degrees further up.
"""

import multiprocessing
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the last bit of its sums depends on the threads
import cv2
import numpy as np
from tqdm import tqdm

from landmark.cli import CORES, defer_signals, follow_parent
from landmark.mat import mat_bytes

SIZE = 450  # side of a photo in pixels, as in 300W_LP
EMPTY = np.iinfo(np.int64).max  # a pixel of the z-buffer that nothing has reached


def smoothstep(x):
    """0 below 0, 1 above 1, an S between: array of any shape."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def grid_triangles(rows, cols):
    """Triangles [N, 3] of a grid of rows x cols vertices."""
    i = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)).ravel()
    return np.concatenate([np.c_[i, i + 1, i + cols], np.c_[i + 1, i + cols + 1, i + cols]])


def unit(vectors):
    """Vectors [..., 3] scaled to length 1."""
    return vectors / np.sqrt(np.maximum(np.einsum("...k,...k->...", vectors, vectors), 1e-12))[..., None]


def vertex_normals(xyz, tri):
    """Unit normals [V, 3], outwards, of a mesh whose triangles run clockwise when seen from outside."""
    a, b, c = xyz[tri[:, 0]], xyz[tri[:, 1]], xyz[tri[:, 2]]
    face = np.cross(b - a, c - a)
    return unit(np.stack([np.bincount(tri.T.ravel(), np.tile(x, 3), len(xyz)) for x in face.T], 1))


def rotation(pitch, yaw, roll):
    """300W_LP's R = Rx Ry Rz, with our y down: [3, 3]; angles in radians."""
    (sp, sy, sr), (cp, cy, cr) = np.sin([pitch, yaw, roll]), np.cos([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    ry = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rz = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return rx @ ry @ rz


def runs(first, last):
    """The whole numbers of many runs first..last, one after another: (float32 [N]; the run of each, [N])."""
    count = np.maximum(0, last - first + 1).astype(np.int32)
    whose = np.repeat(np.arange(len(count), dtype=np.int32), count)
    start = (first - (np.cumsum(count) - count)).astype(np.int32)
    return (np.arange(len(whose), dtype=np.int32) + start.take(whose)).astype(np.float32), whose


def rasterize(xy, values, tri, both, size=SIZE):
    """What each pixel shows, by a z-buffer: triangles are cut into their rows and rows into their pixels, all at once.

    xy: [V, 2], pixels of a picture of size x size.
    values: float32 [V, K] to interpolate, of which the first is the depth, -100..100, larger nearer.
    tri: [T, 3], of which the first `both` are seen from either side and the others only where they run clockwise.
    Returns: (pixels [N], flat indices, some of them twice, so that N is a multiple of 512; their values [N, K]).
    """
    p = xy.astype(np.float32)
    x, y = p[:, 0][tri.T], p[:, 1][tri.T]
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    seen = np.flatnonzero((area > 1e-3) | ((np.arange(len(tri)) < both) & (area < -1e-3)))
    x, y, area, corner = x[:, seen], y[:, seen], area[seen], values.take(tri[seen].T, 0)
    # a corner's weight is linear, gx * x + gy * y + g0, and so is every value: step * x + base in one row
    gx, gy = (y[[1, 2, 0]] - y[[2, 0, 1]]) / area, (x[[2, 0, 1]] - x[[1, 2, 0]]) / area
    g0 = 1 - gx * x - gy * y
    rows, whose = runs(np.ceil(y.min(0)).clip(0, size), np.floor(y.max(0)).clip(-1, size - 1))
    rest, slope = gy.take(whose, 1) * rows + g0.take(whose, 1), gx.take(whose, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = -rest / slope
    left = np.where(slope > 0, cross, -np.inf).max(0).clip(0, size)
    right = np.where(slope < 0, cross, np.inf).min(0).clip(-1, size - 1)
    step, along, origin = (np.einsum("kt,ktc->tc", g, corner) for g in (gx, gy, g0))
    base = along.take(whose, 0) * rows[:, None] + origin.take(whose, 0)
    columns, row = runs(np.ceil(left), np.floor(right))
    near = base[:, 0].take(row) + step[:, 0].take(whose).take(row) * columns
    buffer = np.full(size * size, EMPTY)
    np.minimum.at(buffer, ((rows * size).take(row) + columns).astype(np.int32),
                  ((100 - near) * 1000).astype(np.int64) << 32 | np.arange(len(near)))  # fmt: skip
    pixels = np.flatnonzero(buffer != EMPTY)
    pixels = np.resize(pixels, -(-len(pixels) // 512) * 512)
    win = buffer.take(pixels) & 0xFFFFFFFF
    line = row.take(win)
    return pixels, base.take(line, 0) + step.take(whose.take(line), 0) * columns.take(win)[:, None]


def run_workers(function, jobs, unit, prepare):
    """What a function returns for each job: a list. Each CPU core has a worker process, which leaves signals to us.

    unit: of the progress bar, str.
    prepare: functions whose cached results the workers share, called before they start.
    """
    cv2.setNumThreads(1)  # workers are forks, which do not copy OpenCV's threads: without this they would hang
    for cached in prepare:
        cached()
    with defer_signals():  # the workers must not start with our handlers
        pool = multiprocessing.Pool(CORES, follow_parent)
    with pool:
        return list(tqdm(pool.imap(function, jobs), total=len(jobs), unit=unit, disable=None))


def write_face(folder, group, stem, photo, pts_2d, pts_3d, params, quality):
    """Writes one face in the layout of 300W_LP.

    photo: uint8 [SIZE, SIZE, 3], BGR, for a JPEG of a quality, 0..100; pts_2d, pts_3d: [68, 2], pixels.
    params: dict of matrices for <stem>.mat, of which Pose_Para is [1, 7]: pitch, yaw, roll in radians; where the origin
        is seen, x and y in pixels, and 0; pixels per centimetre.
    """
    params = {"pt2d": pts_2d.T, "roi": [[*pts_2d.min(0), *pts_2d.max(0)]]} | params
    photos, landmarks = folder / group, folder / "landmarks" / group
    for path in photos, landmarks:
        path.mkdir(parents=True, exist_ok=True)
    jpeg = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    (photos / f"{stem}.jpg").write_bytes(jpeg.tobytes())
    (photos / f"{stem}.mat").write_bytes(mat_bytes(params))
    (landmarks / f"{stem}_pts.mat").write_bytes(mat_bytes({"pts_2d": pts_2d, "pts_3d": pts_3d}))
