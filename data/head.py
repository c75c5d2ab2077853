"""The head that make_sample.py renders and turn_faces.py fits to a photo: mesh, shape, pose, rasterizer, files.

Identity and expression move about 200 control points: the 68 landmarks and some anatomy between them. A thin-plate
spline over a flat map of the head moves every vertex of the mesh with them. Each landmark is a vertex of the mesh, so
its label is exact by construction.
Space: centimetres, x to the image's right, y down, z towards the camera; origin between the ears at eye height.
Pose: 300W_LP's (3DDFA's) angles, R = Rx(pitch) Ry(yaw) Rz(roll). Positive yaw turns the nose to the image's
left, positive pitch raises it, positive roll turns the face clockwise in the image.
"""

import functools
import os
import struct

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the last bit of its sums depends on the threads
import cv2
import numpy as np

from landmark.pose import MEAN_HEAD

SIZE = 450  # side of a photo in pixels, as in 300W_LP
EMPTY = np.iinfo(np.int64).max  # a pixel of the z-buffer that nothing has reached
RADIUS = 1.99  # of the flat map: 2 would be the point straight behind
CENTRE = np.array([0.0, 1.0, 0.0])  # the flat map is the view all round from here (Lambert's equal area)

# ---- anatomy beside the landmarks: one half of the head (x >= 0), mirrored for the other ----

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
RIGHT_EYE, LEFT_EYE = list(range(36, 42)), list(range(42, 48))
OUTER_LIP, INNER_LIP = list(range(48, 60)), list(range(60, 68))
# x and y where the row ends along which jaw landmark 0..7 slides over the cheek of a turned head
SLIDE_END = np.array(
    [[5.0, 0.9], [2.2, 2.8], [1.7, 5.0], [2.75, 6.5], [1.5, 8.5], [1.0, 9.6], [0.6, 10.6], [0.3, 11.2]]
)
SLIDE = 23  # vertices in such a row


def smoothstep(x):
    """0 below 0, 1 above 1, an S between: array of any shape."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def flat(points):
    """Points [N, 3] in the head's space to the flat map [N, 2], radius 0..2."""
    d = points - CENTRE
    d = d / np.linalg.norm(d, axis=1, keepdims=True)
    return d[:, :2] * (np.sqrt(2 * (1 - d[:, 2])) / np.maximum(np.hypot(d[:, 0], d[:, 1]), 1e-9))[:, None]


def curve(points, steps, closed=True):
    """A smooth curve (Catmull-Rom) through points [N, 2]: about N * steps points, these among them."""
    p = np.concatenate([points[-1:], points, points[:2]]) if closed else points[[0, *range(len(points)), -1]]
    t = np.arange(steps)[:, None] / steps
    out = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        out.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate(out if closed else [*out, points[-1:]])


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


def grid_triangles(rows, cols, start):
    """Triangles [N, 3] of a grid of rows x cols vertices, of which the first is number `start`."""
    i = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)).ravel() + start
    return np.concatenate([np.c_[i, i + 1, i + cols], np.c_[i + 1, i + cols + 1, i + cols]])


@functools.cache
def head():
    """What all faces share: a dict, built once.

    controls: [C, 3], the mean head's, of which the first 68 are the landmarks.
    uv, at: [C, 2] and [V, 2], where controls and vertices lie on the flat map; the first 68 vertices are the landmarks.
    matrix: [V, C], controls to vertices.
    tri, openings: [T, 3] and [S, 3], triangles of the head, and those that would close its eyes and mouth.
    slides: dict of a jaw landmark to the vertices it slides along when it is turned away, itself first.
    lids, lips: the two curves, [N, 2], of each on the flat map; those of the lips are the outer and the inner one.
    """
    controls = np.concatenate([MEAN_HEAD, OTHERS, OTHERS[OTHERS[:, 0] > 0] * [-1, 1, 1]])
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
    sound = np.abs(area) > 1e-8

    return {
        "controls": controls, "uv": uv, "at": at, "matrix": spline(uv, at), "tri": tri[~hole & sound],
        "openings": tri[hole & sound], "slides": slides, "lids": lids, "lips": lips,
    }  # fmt: skip


def eyeball(ball, dx, dy):
    """Depth z of an eyeball's front at offsets from its centre; ball: x, y, z, slope dz/dx."""
    return ball[2] + ball[3] * dx - 1.7 + np.sqrt(np.maximum(0, 1.7**2 - dx * dx - dy * dy))


def shape_face(rng):
    """Moves the controls by a random identity and expression; rng: numpy Generator.

    Returns: (controls [C, 3]; dict of what the other parts follow: balls (the eyes), open, smile, blink, and n, the
        numbers drawn for the identity).
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


# ---- projection ----


def rotation(pitch, yaw, roll):
    """300W_LP's R = Rx Ry Rz, from its y up to our y down: [3, 3]; angles in radians."""
    (sp, sy, sr), (cp, cy, cr) = np.sin([pitch, yaw, roll]), np.cos([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    ry = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rz = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    flip = np.diag([1.0, -1, 1])
    return flip @ rx @ ry @ rz @ flip


def runs(first, last):
    """The whole numbers of many runs first..last, one after another: (float32 [N]; the run of each, [N])."""
    count = np.maximum(0, last - first + 1).astype(np.int32)
    whose = np.repeat(np.arange(len(count), dtype=np.int32), count)
    start = (first - (np.cumsum(count) - count)).astype(np.int32)
    return (np.arange(len(whose), dtype=np.int32) + start.take(whose)).astype(np.float32), whose


def rasterize(xy, values, tri, both):
    """What each pixel shows, by a z-buffer: triangles are cut into their rows and rows into their pixels, all at once.

    xy: [V, 2], pixels.
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


# ---- files ----


def mat_bytes(arrays):
    """A MATLAB 5 file of named float32 matrices, as bytes.

    scipy's savemat puts the date into the header, so the same seed would not give the same file.
    """
    out = [b"MATLAB 5.0 MAT-file".ljust(124), struct.pack("<H2s", 0x0100, b"IM")]
    for name, a in arrays.items():
        a = np.asarray(a, np.float32)
        parts = [(6, struct.pack("<II", 7, 0)), (5, struct.pack("<ii", *a.shape)), (1, name.encode()),
                 (7, a.tobytes("F"))]  # fmt: skip
        body = b"".join(struct.pack("<II", kind, len(d)) + d + bytes(-len(d) % 8) for kind, d in parts)
        out.append(struct.pack("<II", 14, len(body)) + body)
    return b"".join(out)


def write_files(folder, group, stem, photo, points, params):
    """Writes one face in the layout of 300W_LP.

    folder: Path, whose folders <group> and landmarks/<group> exist; photo: bytes of a JPEG file; points and params:
    dicts of arrays for <stem>_pts.mat and <stem>.mat.
    """
    (folder / group / f"{stem}.jpg").write_bytes(photo)
    (folder / group / f"{stem}.mat").write_bytes(mat_bytes(params))
    (folder / "landmarks" / group / f"{stem}_pts.mat").write_bytes(mat_bytes(points))
