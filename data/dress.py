"""What people have on and in front of their faces: hair, beards, hats, clothes, glasses, hands, things."""

from head import grid_triangles, rasterize, smoothstep, unit

from collections import namedtuple

import cv2
import numpy as np

from people import EYE, SKIN, model

# A piece of the scene: vertices [V, 3], centimetres; where they are in the texture [V, 2], pixels; triangles [T, 3];
# normals [V, 3]; how much of the sky each sees, [V], 0..1; the vertex of the head that each hangs on, [V], -1 for none.
Part = namedtuple("Part", "xyz uv tri normal sky root")
CENTRE = np.float32([0, 1.5, -5.5])  # the flat map is the view from here, all around
FLAT = 512  # side of the flat map, texels
SLEEVE = 24.0  # centimetres of a garment on its tile, downwards, beginning one centimetre outside of its edge
ATLAS = {"skin": (0, 0, 512, 512), "cloth": (512, 0, 256, 256), "hat": (768, 0, 256, 256), "eye": (512, 256, 128, 128),
         "mouth": (640, 256, 128, 128), "hair": (768, 256, 192, 128), "fur": (960, 256, 64, 128),
         "lens": (512, 384, 128, 128), "hand": (640, 384, 128, 128), "thing": (768, 384, 128, 128),
         "frame": (896, 384, 64, 64), "lash": (960, 384, 64, 64), "beard": (896, 448, 128, 64)}  # fmt: skip
# Lowest and highest, for each hair style, of: length, centimetres; lift, 0 along the skin, 1 away from it; stand,
# centimetres off the head; gravity; width of a ribbon; curl, centimetres; hug, how far it is pressed to the head; then
# the steps of a ribbon, and how many ribbons there are.
STYLES = {
    "bald": None,
    "shaved": ((0.5, 0.5), (0.8, 0.8), (0, 0), (0, 0), (0.5, 0.5), (0, 0), (0, 0), 2, 420),
    "short": ((1.5, 5), (0.1, 0.7), (0.3, 1.2), (0.4, 0.4), (0.7, 1.2), (-0.4, 0.4), (-0.5, 0.5), 5, 420),
    "medium": ((6, 15), (0.1, 0.4), (0.4, 1.8), (1, 1), (1.3, 2.2), (-1, 0.6), (0.6, 0.6), 10, 520),
    "long": ((16, 34), (0.1, 0.4), (0.4, 1.8), (1, 1), (1.3, 2.2), (-1, 0.6), (0.6, 0.6), 10, 520),
    "back": ((8, 14), (0.05, 0.05), (0.3, 0.3), (0.3, 0.3), (1, 1), (0, 0), (0.6, 0.6), 8, 420),
    "afro": ((2, 7), (0.95, 0.95), (0.5, 0.5), (0.1, 0.1), (1.6, 1.6), (0.2, 0.5), (0, 0), 6, 600),
}
NUMBERS = "length lift stand gravity width curl hug steps count".split()
MEN, WOMEN = [0.09, 0.13, 0.4, 0.22, 0.06, 0.05, 0.05], [0.01, 0.03, 0.1, 0.24, 0.36, 0.2, 0.06]  # odds of the styles
HATS = {"none": 0.8, "beanie": 0.05, "cap": 0.06, "brim": 0.03, "hood": 0.05, "mask": 0.01}


def tile(name, u, v):
    """Places u and v, 0..1, in a tile of ATLAS to pixels of the texture [N, 2]."""
    x, y, width, height = ATLAS[name]
    uv = np.stack(np.broadcast_arrays(u, v), -1).reshape(-1, 2)
    return [x + 1, y + 1] + uv.clip(0, 1) * [width - 3, height - 3]


def flat(points):
    """Points [..., 3] to texels of the flat map [..., 2], on which the face is larger than the rest."""
    d = points - CENTRE
    d = d / np.linalg.norm(d, axis=-1, keepdims=True)
    radius = np.maximum(0, (1 - d[..., 2:]) / 2) ** 0.4
    xy = d[..., :2] / np.maximum(np.linalg.norm(d[..., :2], axis=-1, keepdims=True), 1e-9)
    return (1 + xy * radius) * ((FLAT - 1) / 2)


def outside(vertices, values, side):
    """Values [V, K] of a head's skin on its flat map, float32 [side, side, K]; 0 where there is none."""
    uv, tri = flat(vertices) * (side / FLAT), model()["skin"]
    tri = tri[np.ptp(uv[tri], axis=1).max(1) < side / 5.5]
    reach = np.linalg.norm(vertices - CENTRE, axis=1)
    pixels, found = rasterize(uv, np.float32(np.c_[reach, values]), tri, len(tri), side)
    image = np.zeros((side * side, found.shape[1] - 1), np.float32)
    image[pixels] = found[:, 1:]
    return image.reshape(side, side, -1)


def hairline(places, hair):
    """How far inside the hairline places [..., 3] of the mean head are, centimetres; hair: see draw_hair."""
    x, y, z = np.moveaxis(places, -1, 0)
    line = np.interp(z, [-16, -12, -10, -9, -8.2, -6.9, -5.8, -5.3, -4.7, -4.2, -3, -1.5, 0, 2],
                     [7.5, 7, 6, 3.5, -1, -2.5, -1.5, 2.0, 2.2, -0.5, -3.8, -5.6, -6.4, -6.8])  # fmt: skip
    temple = np.exp(-(((np.abs(x) - 4) / 1.6) ** 2))
    return line - y - smoothstep((z + 7) / 4) * (hair["shift"] + hair["corners"] * temple)


def beard_field(places):
    """How much beard grows at places [..., 3] of the mean head, 0..1."""
    x, y, z = np.abs(places[..., 0]), places[..., 1], places[..., 2]
    line = np.interp(x, [0, 1.5, 2.6, 3.4, 5, 6.2], [4.75, 5.0, 6.0, 6.2, 5.0, 1.5])
    return smoothstep((y - line) / 0.8) * (1 - smoothstep((y - 0.6 * z - 12) / 2)) * smoothstep(z + 5.6)


def joined(parts):
    """Several Parts as one."""
    start = np.cumsum([0] + [len(part.xyz) for part in parts])
    parts = [part._replace(tri=part.tri + k) for part, k in zip(parts, start, strict=False)]
    return Part(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def sheet(grid, normal, name, u, v, sky=1.0, root=-1):
    """A grid [R, C, 3] as a Part, with a tile's texture at u, v; the other arguments: of each vertex, or of all."""
    normal, (rows, cols) = np.broadcast_to(normal, grid.shape).reshape(-1, 3), grid.shape[:2]
    sky, root = (np.broadcast_to(x, (rows, cols)).ravel() for x in (sky, root))
    return Part(grid.reshape(-1, 3), tile(name, u, v), grid_triangles(rows, cols), normal, sky, root)


def tube(path, radius, name, sides=9, squash=1.0):
    """A tube along a path [K, 3] with radii [K], closed where they are 0; squash: its relative thickness in depth."""
    path = np.asarray(path, float)
    way = unit(np.gradient(path, axis=0))
    a = unit(np.cross(way, [0.02, 0.03, 1.0]))[:, None]
    b, t = np.cross(way[:, None], a), np.linspace(0, 2 * np.pi, sides)[:, None]
    normal = a * np.cos(t) + b * np.sin(t)
    grid = path[:, None] + np.broadcast_to(radius, len(path))[:, None, None] * normal * [1, 1, squash]
    return sheet(grid, normal, name, t.T / (2 * np.pi), np.linspace(0, 1, len(path))[:, None], 0.9)


def garment(vertices, normals, field, thick, name, edge=0.25):
    """The skin moved outwards where `field` [V], centimetres inside the garment's edge, is above 0: a Part."""
    m = model()
    near = field[m["skin"]]
    used, tri = np.unique(m["skin"][(near > -0.9).all(1) & (near > 0).any(1)], return_inverse=True)
    stand = edge + np.maximum(0, thick - edge) * smoothstep(field[used] / 1.5)
    x, _, z = m["vertices"][used].T
    uv = tile(name, 0.5 + np.arctan2(x, z - CENTRE[2]) / (2 * np.pi), (1 + field[used]) / SLEEVE)
    sky = 0.4 + 0.6 * m["sky"][used]
    return Part(vertices[used] + normals[used] * stand[:, None], uv, tri.reshape(-1, 3), normals[used], sky, used)


def draw_hair(rng, who):
    """A hair style at random: dict for hairline() and strands(); its length is 0 on a bald head."""
    male, age, african = who["male"] > 0.5, who["age"], who["people"][0] > rng.random()
    odds = np.array(MEN if male else WOMEN)
    odds *= [1, 3, 0.8, 0.5, 0.5, 1.2, 5] if african else [1] * 7
    odds *= [3, 3, 3, 0.5, 0.1, 0.1, 0.5] if age < 0.15 else [1] * 7
    kind = str(rng.choice(list(STYLES), p=odds / odds.sum()))
    receding = rng.uniform(0, 3) * max(0, age - 0.45) * 2 * male
    hair = {"kind": kind, "shift": rng.normal(0, 0.4) + receding, "corners": abs(rng.normal(0, 0.8)) * (1 + male)}
    if kind == "bald":
        return hair | {"length": 0.0}
    for name, numbers in zip(NUMBERS, STYLES[kind], strict=True):
        hair[name] = numbers if isinstance(numbers, int) else max(0, rng.uniform(*numbers))
    fringe, side = rng.random() < 0.35 and kind != "back", rng.normal(0, 0.5)
    curly = hair["curl"] > 0 or african and kind != "back"
    hang = kind in ("medium", "long")
    hair |= {"comb": [side, 0.3, 1.0 if fringe else rng.uniform(-0.9, 0.3) - hang], "mess": 0.3 if curly else 0.15}
    hair["parting"] = rng.normal(0, 1.8) if hang and not (fringe and rng.random() < 0.5) else None
    hair["sweep"], hair["clear"] = (rng.uniform(0.3, 1), rng.uniform(3.5, 6.5)) if hang and not fringe else (0, 0)
    return hair | {"twist": rng.uniform(0.8, 4), "cut": rng.normal(-1.2, 1.2) if fringe else 99}


def strands(rng, vertices, normals, reach, density, style, name):
    """Ribbons that grow out of the skin and lie on it, a Part.

    vertices, normals: [V, 3] of the head at rest; style: see draw_hair; name: of the tile with the texture.
    reach: [H, H], how far the head extends in each direction, on the flat map; density: [V], of the roots.
    """
    s, count, steps, tri = style, style["count"], style["steps"], model()["skin"]
    a, b, c = vertices[tri.T]
    weight = np.linalg.norm(np.cross(b - a, c - a), axis=1) * np.maximum(0, density[tri].mean(1))
    tri = tri[rng.choice(len(tri), count, p=weight / weight.sum())]
    share = rng.dirichlet([1, 1, 1], count)[..., None]
    root, out = (vertices[tri] * share).sum(1), (normals[tri] * share).sum(1)
    comb = np.broadcast_to(np.float64(s["comb"]), (count, 3)).copy()
    if s["parting"] is not None:
        comb[:, 0] += 1.2 * np.clip((root[:, 0] - s["parting"]) / 1.5, -1, 1)
    comb = unit(comb - (comb * out).sum(1, keepdims=True) * out)
    way = s["lift"] * out + (1 - s["lift"]) * comb + rng.normal(0, s["mess"], (count, 3))
    step = s["length"] * rng.uniform(0.75, 1.1, (count, 1)) / steps
    stand, away = s["stand"] * rng.uniform(0.1, 1, count), np.sign(root[:, 0] - (s["parting"] or 0) + 1e-6)
    # In front of the face the hair is cut at this height, and a moustache above the lips.
    cut = np.where((root[:, 1] < 6.2) & (name == "beard"), 6.2, s["cut"] + rng.normal(0, 0.6, count))
    at, path = root, [root]
    for k in range(steps):
        step = step * ~((at[:, 1] > cut) & (at[:, 2] > -4) & (np.abs(at[:, 0]) < 5))[:, None]
        at = at + step * unit(way)
        apart = at - CENTRE
        far = np.linalg.norm(apart, axis=1)
        uv = np.float32(flat(at) * (len(reach) / FLAT))[:, None]
        floor = cv2.remap(reach, uv, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        floor = np.where(at[:, 1] > 12, np.minimum(floor, 12 + 0.3 * at[:, 1]), floor)
        over = (far - floor - 0.1 - stand * min(1, (k + 1) / 2))[:, None]
        loose = np.where((over[:, 0] > 0) & (at[:, 1] < 7), s["hug"], 0)[:, None] * [1, 0.2, 1]
        at = at - over * apart / far[:, None] * np.where(over < 0, 1, loose)
        if s["clear"]:  # hair that hangs down stays beside the face
            before = (at[:, 1] > -4.5) & (at[:, 2] > -6)
            at[:, 0] += before * 0.6 * (away * np.maximum(away * at[:, 0], s["clear"]) - at[:, 0])
        path.append(at)
        way = (at - path[-2]) / np.maximum(step, 1e-3) + [0, s["gravity"] * s["length"] / steps / 6, 0]
        way += s["sweep"] * max(0, 1 - 2 * k / steps) * comb
    path = np.array(path)  # (steps + 1, count, 3)
    outwards = unit(path - CENTRE)
    across = np.cross(np.gradient(path, axis=0), outwards)
    across /= np.maximum(np.linalg.norm(across, axis=2, keepdims=True), 1e-6)
    across = unit(across + rng.normal(0, 0.15, (count, 3)))
    t = np.arange(steps + 1)[:, None] * step.T * s["twist"] + rng.uniform(0, 2 * np.pi, count)
    path = path + s["curl"] * (np.sin(t)[..., None] * across + 0.6 * np.cos(1.3 * t)[..., None] * outwards)
    v = np.linspace(0, 1, steps + 1)[:, None]
    wide = s["width"] * rng.uniform(0.6, 1.3, count) * (1 - 0.5 * v**2)
    u = rng.uniform(0, 0.8, count)
    depth = rng.uniform(0.55, 1, count) * (0.65 + 0.35 * np.minimum(1, 2 * v))
    normal = unit(outwards + 0.25 * rng.normal(0, 1, (count, 3)))
    edges = [sheet(path + side * wide[..., None] * across, normal, name, u + 0.1 + 0.2 * side, v, depth, tri[:, 0])
             for side in (-0.5, 0.5)]  # fmt: skip
    i, other = np.arange(steps * count), len(t) * count
    tri = np.c_[i, i + other, i + count, i + other, i + other + count, i + count].reshape(-1, 3)
    return joined(edges)._replace(tri=tri)


def grow(rng, vertices, normals, hair, beard):
    """The hair of head and beard, a Part or None; beard: its length, centimetres."""
    m, parts = model(), []
    reach = outside(vertices, np.linalg.norm(vertices - CENTRE, axis=1), 64)[..., 0]
    reach[reach == 0] = 8
    reach = cv2.GaussianBlur(reach, (0, 0), 0.7)
    skin = m["kind"] == SKIN
    inside = hairline(m["vertices"], hair)
    if hair["length"] > 1:  # what the strands lie on
        parts.append(garment(vertices, normals, np.where(skin, inside - 0.4, -9), 0.5 * hair["stand"], "fur", 0.1))
    if hair["length"]:
        density = smoothstep(inside / 0.6) * skin * (m["follow"] > 0.5) * np.where(inside < 1.5, 1.8, 1)
        if hair["length"] > 5:  # what grows low at the back is hidden anyway
            density = density * (0.15 + 0.85 * smoothstep((1.5 - m["vertices"][:, 1]) / 3))
        parts.append(strands(rng, vertices, normals, reach, density, hair, "hair"))
    if beard > 0.25:
        style = {"length": beard, "width": 0.35, "lift": 0.25, "comb": [0, 1, 0.1], "parting": None, "gravity": 0.6,
                 "curl": 0.1 * rng.random(), "stand": 0.3 * min(1, beard), "steps": 4, "count": 420, "mess": 0.25,
                 "hug": 0.6, "sweep": 0, "clear": 0, "cut": 99, "twist": 2}  # fmt: skip
        parts.append(strands(rng, vertices, normals, reach, beard_field(m["vertices"]) * skin, style, "beard"))
    return joined(parts) if parts else None


def draw_clothes(rng):
    """What someone wears, at random: dict."""
    return {
        "hat": str(rng.choice(list(HATS), p=list(HATS.values()))), "low": rng.uniform(-4.8, -2.6),
        "hat_thick": rng.uniform(0.5, 1.6), "thick": rng.choice([0.4, 0.8, 1.6]), "tilt": rng.normal(0, 0.08),
        "neck": rng.choice([rng.uniform(13, 16), rng.uniform(16, 22), 11.8], p=[0.45, 0.45, 0.1]),
        "vee": rng.uniform(0, 5) * (rng.random() < 0.5), "oval": rng.uniform([5.2, 7.6], [6.4, 9.4]),
    }  # fmt: skip


def hat_field(places, clothes):
    """How far inside a hat places [N, 3] of the mean head are, centimetres; clothes: see draw_clothes."""
    x, y, z = places.T
    if clothes["hat"] == "hood":
        return np.where(z < -5.5, 3, 5 * np.hypot(x / clothes["oval"][0], (y - 2.2) / clothes["oval"][1]) - 5)
    if clothes["hat"] == "mask":
        return np.minimum(np.minimum(y - 2.2 - 0.12 * np.abs(x), 11.8 - y), z + 4.5)
    back = np.interp(z, [-16, -6, 0], [5, clothes["low"] > -4, 0])
    return clothes["low"] + clothes["tilt"] * x + back - y


def wear(vertices, normals, clothes):
    """The clothes and the hat, a Part."""
    m, hat = model(), clothes["hat"]
    x, y, z = m["vertices"].T
    shirt = y - 0.25 * (z + 5) - clothes["neck"] - clothes["vee"] * np.exp(-((x / 4) ** 2)) * (z > -6)
    parts = [garment(vertices, normals, shirt, clothes["thick"], "cloth", 0.35)]
    if hat == "none":
        return parts[0]
    field = np.where(m["follow"] > 0.3, hat_field(m["vertices"], clothes), 2 if hat == "hood" else -9)
    parts.append(garment(vertices, normals, field, 0.5 if hat == "mask" else clothes["hat_thick"], "hat", 0.5))
    if hat in ("cap", "brim"):
        t = np.linspace(-np.pi, np.pi, 40) if hat == "brim" else np.linspace(-1.15, 1.15, 24)
        far = np.linspace(0, 1, 6)[:, None] * (6.5 if hat == "brim" else 6.5 * np.cos(t / 1.15 * np.pi / 2) ** 0.5)
        x, z = (7.4 + far) * np.sin(t), CENTRE[2] - 1 + (9.3 + far) * np.cos(t)
        y = clothes["low"] - 0.3 + 0.12 * np.maximum(0, -6 - z) + 0.12 * far + 0.02 * x**2 * (hat == "cap")
        grid = np.stack([x, y + clothes["tilt"] * x, z], -1)
        parts.append(sheet(grid, [0, -0.9, 0.4], "hat", 0.45 + 0.03 * t, 0.45 + 0.03 * far, 0.8))
    return joined(parts)


def glasses(rng, vertices):
    """Glasses at random: two Parts, the frame and the lenses."""
    m = model()
    eyes = [vertices[(m["kind"] == EYE) & (side * m["vertices"][:, 0] > 0)].mean(0) for side in (-1, 1)]
    wide, high, power = rng.uniform(2.1, 3.1), rng.uniform(1.3, 2.6), rng.uniform(2, 5)
    wire, down = rng.choice([rng.uniform(0.05, 0.1), rng.uniform(0.12, 0.32)]), rng.uniform(-0.2, 0.8)
    apart = max(wide + rng.uniform(0.6, 1.1), eyes[1][0] * rng.uniform(1, 1.1))
    near = max(vertices[m["lid_rings"].ravel(), 2].max(), eyes[0][2] + 1.4) + rng.uniform(0.9, 1.6)
    bow, droop, rimless = rng.uniform(0.01, 0.05), rng.uniform(0, 0.15), rng.random() < 0.15
    c, s = np.cos(np.linspace(0, 2 * np.pi, 25)), np.sin(np.linspace(0, 2 * np.pi, 25))
    shape = [np.sign(c) * np.abs(c) ** (2 / power) * wide, np.sign(s) * np.abs(s) ** (2 / power) * high]
    frame, lenses = [], []
    for side in -1, 1:
        x = side * (apart + shape[0] + droop * shape[1] / high)
        rim = np.stack([x, down + shape[1], near - bow * x**2], -1)
        if not rimless:
            frame.append(tube(rim, wire, "frame", 6))
        middle = rim[:-1].mean(0)
        grid = middle + np.linspace(0, 1, 4)[:, None, None] * (rim - middle)
        d = grid - [middle[0], down, 0]
        normal = unit(np.stack([0.06 * grid[..., 0], 0.1 * d[..., 1], np.ones(d.shape[:2])], -1))
        lenses.append(sheet(grid, normal, "lens", 0.5 + d[..., 0] / 2 / wide, 0.5 + d[..., 1] / 2 / high))
        hinge = np.array([side * (apart + wide * 0.98), down - 0.3 * high, near - bow * (apart + wide) ** 2])
        bar = hinge + np.linspace(0, 1, 5)[:, None] * (np.array([side * 7.2, 0.6, -8.0]) - hinge)
        bar[1:, 0] = side * np.maximum(np.abs(bar[1:, 0]), 6.9)
        frame.append(tube(bar, max(0.08, 0.8 * wire), "frame", 5))
    x = np.linspace(wide - apart, apart - wide, 7)
    y = down - 0.25 * high - 0.15 * np.cos(np.linspace(-1.5, 1.5, 7))
    frame.append(tube(np.stack([x, y, np.full(7, near + 0.05)], -1), max(0.08, wire), "frame", 6))
    return joined(frame), joined(lenses)


def hand(rng, spot):
    """A hand at a place of the face, a Part: a palm and five fingers, turned at random."""
    turn, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.7)
    e1, e2 = np.array([np.cos(turn), np.sin(turn), 0]), rng.choice([-1, 1]) * np.array([-np.sin(turn), np.cos(turn), 0])
    palm = spot + [0, 0, rng.uniform(0.8, 2)] - 5 * (e1 + [0, 0, 0.25 * rng.random()])
    arm = palm + np.linspace(-9, 4.2, 9)[:, None] * e1
    parts = [tube(arm, [2.4, 2.4, 2.5, 3, 3.8, 4.1, 4.1, 3.8, 0], "hand", 11, 0.36)]
    s, spread = np.linspace(0, 1, 8)[:, None], rng.uniform(0.02, 0.09)
    for place, size in (-3, 6.3), (-1.1, 7.6), (0.9, 8.2), (2.8, 7.4), (-4, 5.2):
        thumb = place == -4
        angle, own = -0.9 if thumb else place * spread, bend * rng.uniform(0.7, 1.3)
        way = np.cos(angle) * e1 + np.sin(angle) * e2
        path = palm + e2 * place * 0.95 + e1 * (-1.5 if thumb else 3.2)
        path = path + size * (s * way * (1 - 0.3 * own * s) - own * s**2 * [0, 0, 0.35])
        parts.append(tube(path, 0.9 * np.array([1.05, 1, 0.98, 1, 0.92, 0.9, 0.75, 0.05]), "hand", 8))
    return joined(parts)


def thing(rng, spot, mouth):
    """A thing in front of the face, a Part: a microphone at the mouth, or a ball, stick or phone at a place [3]."""
    kind = rng.choice(["microphone", "ball", "stick", "phone"])
    if kind == "microphone":
        way = unit(np.array([[rng.normal(0, 0.6), 1, rng.uniform(0, 0.8)]]))
        top = mouth + [rng.normal(0, 1.2), rng.uniform(0.3, 3), rng.uniform(1.5, 4)]
        s = np.array([0, 0.3, 1, 2, 3, 3.8, 4.2, 4.6, 9, 20])[:, None]
        return tube(top + s * way, [0, 1.1, 1.9, 2.3, 2.1, 1.6, 1.6, 1.2, 1.2, 1.0], "thing", 12)
    s = np.linspace(0, np.pi, 9)
    length, radius, end = {"ball": (rng.uniform(3, 7), rng.uniform(1.5, 4), 1), "phone": (15, 3.8, 0.1),
                           "stick": (rng.uniform(6, 30), rng.uniform(0.2, 0.7), 0.1)}[kind]  # fmt: skip
    way = unit(rng.normal(0, [[1, 1, 0.2]]))
    path = spot + [0, 0, rng.uniform(1, 4)] - length / 2 * np.cos(s)[:, None] * way
    return tube(path, radius * np.sin(s) ** end, "thing", 12, 0.2 if kind == "phone" else 1)
