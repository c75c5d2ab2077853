"""Render a small set of 3D faces in the layout of 300W_LP, for a machine that has downloaded nothing.

Usage:
    python data/make_sample.py                            # 800 faces x 4 poses -> data/sample
    python data/make_sample.py --faces 50 --out /tmp/few  # a quick look
    python data/make_sample.py --seed 1 --variants 6      # other people, more poses

OUT/SAMPLE/SAMPLE_00000_0.jpg, .mat beside it, OUT/landmarks/SAMPLE/SAMPLE_00000_0_pts.mat, the layout of 300W_LP.
Variant 0 is the "photo" (|yaw| < 25 degrees); 1, 2, ... are the same face turned further, to at most 75.
The same seed gives the same files, byte for byte; face i is the same whatever --faces is.

The head itself, its space and its pose angles: head.py.
Not here: cast shadows, glasses, hats, hands, anything in front of the face.
"""

import argparse
import functools
import multiprocessing
import shlex
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from head import (  # first: it sets how many threads NumPy takes
    RADIUS,
    SIZE,
    curve,
    eyeball,
    flat,
    grid_triangles,
    head,
    rasterize,
    rotation,
    shape_face,
    smoothstep,
    spline,
    write_files,
)

# isort: split

import cv2
import numpy as np

from landmark.cli import CORES, command, defer_signals, follow_parent
from landmark.errors import UserError
from landmark.outputs import whole_folder

SET = "SAMPLE"
WRAP = np.array([0.10, 0.15, 0.30])  # how far BGR light reaches past the edge of the shadow, for softness
TEX = 512  # side of the head's flat map, pixels; below it a strip of tiles for the other parts
STRIP = 128
FACE = slice(84, 428)  # the part of the flat map the face takes, texels both ways

# BGR: skin from light to dark; hair black, browns, blond, red, grey; irises
SKIN = np.array([[170, 196, 238], [140, 172, 224], [112, 146, 202], [78, 112, 170], [52, 78, 128], [36, 50, 84]])
HAIR = np.array([[18, 20, 24], [24, 36, 54], [40, 66, 104], [90, 140, 186], [40, 72, 150], [170, 172, 176]])
EYES = np.array([[26, 44, 74], [38, 66, 104], [120, 120, 92], [150, 118, 74], [84, 116, 96]])


def texel(uv):
    """Flat map (..., 2) to texture pixels (..., 2)."""
    return (uv / (2 * RADIUS) + 0.5) * (TEX - 1)


@functools.cache
def dressed_head():
    """head() with the masks painted on it, the way hair stands off it (`out`) and noise (a dict, built once)."""
    bare = head()
    uv, lids, lips = bare["uv"], bare["lids"], bare["lips"]

    # the mean head's x, y, z at every texel: masks are written in centimetres
    small = np.linspace(-RADIUS, RADIUS, 128)
    xyz = spline(uv, np.stack(np.meshgrid(small, small), -1).reshape(-1, 2)) @ bare["controls"]
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
    out = bare["matrix"] @ bare["controls"] + [0, 2, 0]
    out /= np.linalg.norm(out, axis=1, keepdims=True)  # the way hair stands off the head
    return bare | masks | {"matrix": bare["matrix"].astype(np.float32), "out": out, "noise": noise_bank()}


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


def over(image, mask, colour):
    """Lay a colour (3,) or picture (3, H, W) over an image (3, H, W), in place; mask (H, W) 0..1."""
    image += mask * (np.float32(colour).reshape(3, *np.shape(colour)[1:] or (1, 1)) - image)


def paint(rng, info):
    """The texture of one face: (TEX + STRIP, TEX, 3) uint8 BGR; and the style of its hair (a dict)."""
    h = dressed_head()
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
    h = dressed_head()
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


def normals(xyz, tri):
    """Unit vertex normals (V, 3) of a mesh."""
    a, b, c = xyz[tri[:, 0]], xyz[tri[:, 1]], xyz[tri[:, 2]]
    face = np.cross(b - a, c - a)
    n = np.stack([np.bincount(tri.T.ravel(), np.tile(face[:, j], 3), len(xyz)) for j in range(3)], 1)
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)


def backdrop(rng):
    """A random background (450, 450, 3) uint8: a graded wall, soft things on it, some grain."""
    noise, half = dressed_head()["noise"], SIZE // 2
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
    h = dressed_head()
    p, info = shape_face(rng)
    info |= {"gaze": rng.normal(0, [0.13, 0.07]), "stick": rng.uniform(0.15, 0.7), "build": rng.uniform(0.85, 1.1)}
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


def write_face(job):
    """Render a face and write its files; job: (folder, seed, face, variants). Returns how many photos."""
    out, seed, face, variants = job
    for k, (photo, pts_2d, pts_3d, params, quality) in enumerate(render_face(seed, face, variants)):
        stem = f"{SET}_{face:05d}_{k}"
        jpeg = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        write_files(out, SET, stem, jpeg.tobytes(), {"pts_2d": pts_2d, "pts_3d": pts_3d}, params)
    return variants


@command
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
        raise UserError(f"{args.out} exists: remove it to render again")
    print(f"rendering {args.faces} faces in {args.variants} poses, on {CORES} CPU cores")
    total, done, start = args.faces * args.variants, 0, time.time()
    cv2.setNumThreads(1)  # a worker for each core; and a fork does not copy OpenCV's threads: workers would hang
    dressed_head()  # before the fork, so that the workers share it
    with whole_folder(args.out) as partial:
        (partial / SET).mkdir()
        (partial / "landmarks" / SET).mkdir(parents=True)
        jobs = [(partial, args.seed, face, args.variants) for face in range(args.faces)]
        with defer_signals():  # until the workers do not take a signal for theirs
            pool = multiprocessing.Pool(initializer=follow_parent)
        with pool:
            for n in pool.imap(write_face, jobs, chunksize=4):
                done += n
                rate = done / (time.time() - start)
                print(f"\r{done}/{total} photos, {rate:.0f}/s, {(total - done) / rate:.0f} s left ", end="", flush=True)
    print(f"\n{total} photos of {args.faces} faces in {args.out} ({total / (time.time() - start):.0f} photos/s)")
    out = shlex.quote(str(args.out))
    print(f"next: python prepare_tfrecords.py --data {out} --out {out}")


if __name__ == "__main__":
    main()
