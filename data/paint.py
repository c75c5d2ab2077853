"""What the people of make_sample.py look like: the textures of their skin, hair, clothes, eyes, mouth and things."""

from head import smoothstep, unit

import functools
import itertools

import cv2
import numpy as np

from dress import ATLAS, FLAT, SLEEVE, beard_field, flat, hairline, outside
from people import brow_points, model, spots

# BGR: skin from light to dark; hair black, browns, blond, red, grey; irises.
SKINS = np.array([[178, 200, 240], [148, 178, 226], [114, 150, 206], [80, 114, 172], [54, 80, 130], [36, 52, 88]]) / 255
HAIRS = np.array([[18, 20, 24], [24, 36, 54], [40, 66, 104], [90, 140, 186], [40, 72, 150], [170, 172, 176]]) / 255
EYES = np.array([[26, 44, 74], [38, 66, 104], [120, 120, 92], [150, 118, 74], [84, 116, 96]]) / 255
FACE = slice(72, 440)  # the part of the flat map, both ways, that the face takes, with the beard
# Folds of the skin: x and y of a line on the left half of the face; how likely at birth, and how much more at age 1.
FOLDS = [([[0, y], [2, y - 0.2], [4, y + 0.2]], -0.45, 1.3) for y in np.arange(-5.8, -2.6, 0.7)]
FOLDS += [([[4.6, 0.1 * k - 0.2], [5.6, 0.55 * k - 1.2]], -0.55, 1.4) for k in range(5)]
FOLDS += [([[4.4, 3 + 0.7 * k], [5, 4.2 + 0.9 * k], [4.6, 6 + 0.9 * k]], -0.6, 0.9) for k in range(3)]
FOLDS += [([[0.5, -0.8], [0.55, -1.6], [0.6, -2.6]], -0.2, 1), ([[1.7, 0.7], [2.8, 1.35], [4, 1]], 0.25, 1),
          ([[2, 4], [2.7, 5], [3.2, 6.4], [3.3, 7.4]], 0.3, 1), ([[2.6, 7.2], [2.9, 8.4]], -0.4, 1)]  # fmt: skip


@functools.cache
def canvas():
    """What all paintings share: places and masks of the mean head on the flat map, and noise; a dict, built once."""
    m, rng = model(), np.random.default_rng(0)
    places = outside(m["vertices"], m["vertices"], FLAT)
    places[(places == 0).all(-1)] = 0, 30, -20
    face = places[FACE, FACE]
    x, y, z = np.abs(face[..., 0]), face[..., 1], face[..., 2]

    def blob(cx, cy, rx, ry):  # a soft spot on the face and its mirror image, 0..1
        return np.float32(np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2) * (z > -4))

    lips, half = np.zeros((FLAT, FLAT), np.uint8), spots(m["vertices"], "lips")[0]
    ring = flat(np.concatenate([half, half[-2:0:-1] * [-1, 1, 1]]))
    cv2.fillPoly(lips, [np.round(ring * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    blurs = (0.8, 0.8), (2, 2), (6, 6), (24, 24), (0.9, 20)
    clouds = [cv2.GaussianBlur(np.float32(rng.normal(0, 1, (1024, 1024))), (0, 0), sx, sigmaY=sy) for sx, sy in blurs]
    lips = cv2.GaussianBlur(np.float32(lips[FACE, FACE]), (0, 0), 0.9) / 255
    red = (blob(4.2, 3.2, 1.8, 1.5) + 0.8 * blob(0, 3.6, 1.5, 1.0) + 0.3 * blob(0, 9.5, 2, 1)).clip(0, 1)
    oily = blob(0, -4, 3, 2) + blob(0, 2.5, 0.9, 2.5) + 0.6 * blob(3.8, 2.6, 1.2, 1) + 0.4 * blob(0, 9.5, 1.2, 1)
    return {
        "lips": lips, "red": red, "oily": oily, "lid": blob(3.0, -0.9, 1.7, 0.7), "under": blob(2.8, 1.3, 1.4, 0.5),
        "socket": blob(2.9, -0.4, 2.0, 1.1), "nostril": blob(0.75, 4.35, 0.4, 0.28), "beard": beard_field(face),
        "places": places, "x": x, "y": y,
        "brow": spots(flat(m["vertices"]), "brow"), "noise": [cloud / cloud.std() for cloud in clouds],
        "grain": rng.normal(128, 32, (600, 600, 3)).clip(0, 255).astype(np.uint8),
    }  # fmt: skip


def noise(rng, kind, height=FLAT, width=FLAT):
    """A random window [height, width] of noise of deviation 1; kind: 0..3, fine to coarse, or 4, strands of hair."""
    r, c = rng.integers(0, [1024 - height, 1024 - width])
    return canvas()["noise"][kind][r : r + height, c : c + width]


def over(image, mask, colour):
    """Lays a colour [3] or a picture [H, W, 3] over an image [H, W, 3], in place; mask: [H, W], cut to 0..1."""
    row = np.float32(colour) + np.zeros(image.shape[1:], np.float32)  # subtracting from one colour is 5 times slower
    image += (row - image) * cv2.merge([np.clip(np.float32(mask), 0, 1)] * 3)


def strokes(lines, width, blur):
    """Soft lines, a list of [N, 2] texels of the flat map, on its part FACE: [368, 368], 0..1."""
    layer = np.zeros((FLAT, FLAT), np.uint8)
    cv2.polylines(layer, [np.round(line * 16).astype(np.int32) for line in lines], False, 255, width, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(np.float32(layer[FACE, FACE]), (0, 0), blur) / 255


def draw_folds(rng, age):
    """The folds of the skin on FACE, [368, 368]."""
    lines = []
    for (line, young, old), side in itertools.product(FOLDS, (-1, 1)):
        path, t = np.array(line) * [side, 1] + rng.normal(0, 0.12, np.shape(line)), np.linspace(0, len(line) - 1, 16)
        x, y = (np.interp(t, range(len(line)), c) for c in path.T)
        if rng.random() < young + old * age:
            lines.append(flat(np.stack([x, y, 2.6 - 0.09 * x**2], -1)))  # about as deep as the face
    return strokes(lines, 1, 1.0) + 0.5 * strokes(lines, 2, 2.5)


def draw_brows(rng, who):
    """The hairs of the brows on FACE, [368, 368], 0..1: short strokes along the brows' points."""
    (along, height), hairs = who["brow"], []
    low, points, high = (brow_points(canvas()["brow"], along, h) for h in (0, height, 1))
    thick, count = rng.uniform(0.6, 1.6) * (0.8 + 0.4 * who["male"]), int(rng.uniform(60, 260))
    for ids in slice(5, 10), slice(4, None, -1):  # from the inner end
        t = rng.random((count, 1))
        lines = points[ids], np.gradient(points[ids], axis=0), (high - low)[ids] / 1.4  # along it, up a centimetre
        at, way, up = (np.stack([np.interp(4 * t[:, 0], range(5), x) for x in line.T], 1) for line in lines)
        across = rng.normal(-0.3, 0.15, (count, 1)) * thick * (1.15 - 0.6 * t)  # the points are on its upper edge
        way = unit(way) + up / 24 * (0.9 - 1.3 * t - 0.8 * np.sign(across))
        hairs += list(np.stack([at + across * up, at + across * up + (4 + 4 * rng.random((count, 1))) * way], 1))
    return (1.5 * strokes(hairs, 1, 0.8)).clip(0, 1)


def paint(rng, who, hair):
    """The textures of a person, see draw_person and draw_hair; adds who["tone"], 0 light, 1 dark.

    Returns: (colour uint8 [512, 1024, 3], BGR; relief uint8 [512, 1024, 3]: height of the surface, gloss, how solid it
        is; length of the beard, centimetres).
    """
    painter = Painter(rng, who, hair)
    painter.paint_skin()
    beard = painter.paint_beard()
    painter.paint_features()
    painter.paint_hair_and_clothes()
    painter.paint_eyes_and_mouth()
    painter.paint_things()
    image, relief = np.maximum(painter.image, 0.008), painter.relief.clip(0, 1)
    return cv2.convertScaleAbs(image, alpha=255), np.uint8(255 * relief), beard


class Painter:
    """The textures of one person while they are painted: image and relief, see paint(), float32, 0..1; skin and locks,
    the colours of skin and hair [3]; on FACE, views of image and relief, face and bump, and the noise of the skin."""

    def __init__(self, rng, who, hair):
        self.rng, self.age, self.male, self.adult = rng, who["age"], who["male"] > 0.5, who["age"] > 0.3
        self.image, self.relief = np.zeros((2, 512, 1024, 3), np.float32)
        self.relief[..., 2] = 1
        tone = np.clip(who["people"] @ [0.8, 0.36, 0.16] + rng.normal(0, 0.16), 0, 1) * (len(SKINS) - 1)
        self.who, who["tone"], self.light_eyed = who, tone / (len(SKINS) - 1), tone < 2
        skin = np.float32([np.interp(tone, range(len(SKINS)), x) for x in SKINS.T])
        self.skin = skin * np.float32(rng.normal(1, 0.025, 3))
        pores, fine, mid, large = (noise(rng, kind) for kind in range(4))
        grain = 1 + 0.015 * pores + 0.02 * fine + 0.015 * mid + 0.03 * large
        head, bump = self.put("skin", self.skin * grain[..., None])
        # The colour of the hair goes with that of the skin; grey comes with age; a few are dyed.
        odds = np.array([4, 3, 3, 2, 1, 0.0] if self.light_eyed else [6, 3, 1, 0.1, 0.05, 0])
        odds[5] = 12 * max(0, self.age - 0.6)
        dyed = rng.random() >= 0.95
        self.locks = rng.random(3) if dyed else HAIRS[rng.choice(6, p=odds / odds.sum())] * rng.uniform(0.7, 1.3)
        scalp = 0.12 * rng.random() if not hair["length"] else 0.6 if hair["length"] <= 0.6 else 0.9
        over(head, scalp * smoothstep((hairline(canvas()["places"], hair) + 0.3 * mid) / 0.8), self.locks * 0.7)
        self.face, self.bump, *grains = (a[FACE, FACE] for a in (head, bump, pores, fine, mid, large))
        self.pores, self.fine, self.mid, self.large = grains

    def put(self, name, colour, height=0.5, gloss=0.15, solid=1):
        """Fills a tile of ATLAS; returns the views of it in image and relief."""
        x, y, width, tall = ATLAS[name]
        image, relief = (a[y : y + tall, x : x + width] for a in (self.image, self.relief))
        image[:], relief[..., 0], relief[..., 1], relief[..., 2] = colour, height, gloss, solid
        return image, relief

    def shade(self, low=0.0, high=0.9, spread=0.15):
        """A colour of cloth, paint or plastic, [3]."""
        return (self.rng.uniform(low, high) + self.rng.normal(0, spread, 3)).clip(0.01, 1)

    def paint_skin(self):
        rng, c, face, bump, skin, age = self.rng, canvas(), self.face, self.bump, self.skin, self.age
        over(face, c["red"] * rng.uniform(0.05, 0.6) + 0.1 * self.large, skin * [0.74, 0.72, 0.98])
        if rng.random() < 0.2:  # freckles
            over(face, 0.6 * smoothstep(self.fine - 1.2) * c["red"], skin * [0.5, 0.62, 0.78])
        if rng.random() < 0.25:  # blemishes
            over(face, 0.5 * smoothstep(self.mid - 2.0), skin * rng.uniform([0.5, 0.5, 0.7], [0.8, 0.7, 1.0]))
        for x, y in rng.integers(80, 290, (rng.poisson(1.5), 2)).tolist():
            cv2.circle(face, (x, y), 1, (skin * 0.4).tolist(), -1, cv2.LINE_AA)
        folds = draw_folds(rng, age) if self.adult else 0 * self.pores
        over(face, 0.5 * c["under"] * rng.random() + 0.25 * folds * (0.4 + age), skin * [0.55, 0.5, 0.62])
        rough = rng.uniform(0.001, 0.013) * (0.5 + age)
        bump[..., 0] += rough * self.pores + 0.6 * rough * self.fine - 0.22 * folds * age
        bump[..., 1] += rng.uniform(0, 0.35) * c["oily"] + 0.04 * self.fine - 0.03

    def paint_beard(self):
        """Paints the beard of some men; returns the length of hairs that are to be grown there, centimetres."""
        rng, c = self.rng, canvas()
        if not (self.male and self.age > 0.4 and rng.random() < 0.55):
            return 0.0
        length = rng.choice([0.1, rng.uniform(0.3, 0.8), rng.uniform(0.9, 5)], p=[0.5, 0.3, 0.2])
        kinds = [True, (c["y"] < 6.4) & (c["x"] < 3), c["x"] < 2.6, c["y"] > 6.3]  # moustache, goatee, along the jaw
        kind = rng.choice(4, p=[0.6, 0.15, 0.15, 0.1])
        mask = cv2.GaussianBlur(np.float32(c["beard"] * (1 - c["lips"]) * kinds[kind]), (0, 0), 1.5)
        amount = rng.uniform(0.15, 0.5) if length == 0.1 else 0.85
        over(self.face, mask * (amount + 0.25 * amount * self.pores), 0.75 * self.locks + 0.12 * self.skin)
        self.bump[..., 0] += 0.05 * mask * self.fine
        return length * (kind == 0)

    def paint_features(self):
        """Paints lips, make-up, the lids' edges and lashes, nostrils and brows."""
        rng, c, m, face, bump, skin = self.rng, canvas(), model(), self.face, self.bump, self.skin
        self.made_up = self.adult and not self.male and rng.random() < 0.5
        lip = rng.uniform([0.5, 0.48, 0.75], [0.85, 0.8, 0.95])
        if self.made_up and rng.random() < 0.6:
            lip = rng.uniform([0.2, 0.1, 0.5], [0.7, 0.5, 1.0])
        over(face, rng.uniform(0.5, 0.95) * c["lips"] * (1 + 0.08 * self.fine), skin * lip)
        bump[..., 0] += 0.05 * c["lips"] * noise(rng, 4, *c["lips"].shape)
        bump[..., 1] += rng.uniform(0.05, 0.3 + 0.4 * self.made_up) * c["lips"]
        if self.made_up:
            over(face, rng.uniform(0, 0.7) * c["lid"], rng.uniform(0, 0.8, 3) * (0.5 + 0.5 * skin))
            over(face, rng.uniform(0, 0.4) * c["red"], skin * [0.6, 0.5, 1.0])
        rings, lash = m["vertices"][m["lid_rings"]], [0.03, 0.03, 0.04] + 0.15 * skin
        over(face, 0.5 * c["socket"] * rng.random(), skin * [0.55, 0.5, 0.62])
        over(face, strokes(list(flat(rings[:, np.r_[:28, 0]])), 1, 0.7) * rng.uniform(0.1, 0.6), lash)
        wing = rng.uniform(0, 0.5) * np.array([[[side, -rng.random(), -0.4]] for side in (1, -1)])  # beyond the eye
        lashes = np.concatenate([rings[:, 2:14], rings[:, 13:14] + wing], 1)
        lashes = strokes(list(flat(lashes)), 1 + (rng.random() < 0.2 + 0.4 * self.made_up), 0.7)
        over(face, lashes * rng.uniform(0, 0.8 + 0.6 * self.made_up), lash)
        over(face, 0.85 * c["nostril"], skin * [0.1, 0.1, 0.16])
        brows = draw_brows(rng, self.who)
        dark = brows * rng.uniform(0.35, 0.95) * (1 if self.adult else 0.7)
        over(face, dark, self.locks * rng.uniform(0.4, 0.9) + skin * 0.08)
        bump[..., 0] += 0.1 * brows

    def paint_hair_and_clothes(self):
        """Paints strands of hair, thinner to the tips, and what they lie on; cloth with patterns and a hem."""
        rng = self.rng
        for name in "hair", "beard", "fur":
            size = ATLAS[name][3], ATLAS[name][2]
            strand, v = noise(rng, 4, *size), np.linspace(0, 1, size[0])[:, None]
            thick = smoothstep((noise(rng, 4, *size) + rng.uniform(1.5, 2.3) - 2.9 * v**3) / 0.7)
            colour = self.locks * (1 + 0.3 * strand[..., None]) * (0.75 if name == "fur" else rng.uniform(0.8, 1.2))
            solid = smoothstep((v - 0.05) / 0.06) if name == "fur" else thick
            self.put(name, colour, 0.5 + 0.04 * strand, rng.uniform(0.1, 0.5), solid)
        yy, xx = np.mgrid[0:256, 0:256].astype(np.float32)
        inside = yy * SLEEVE / 256 - 1
        for name in "cloth", "hat":
            colour, (thread, weave, rough) = self.shade(), (noise(rng, kind, 256, 256) for kind in range(3))
            tone = colour * (1 + 0.05 * thread + 0.05 * rough)[..., None]
            tex, _ = self.put(name, tone, 0.5 + 0.06 * weave + 0.1 * rough, 0.03, smoothstep(inside / 0.3))
            if rng.random() < 0.35:
                (a, b), f = rng.normal(0, 1, 2), rng.uniform(0.15, 0.9)
                band = np.sin(f * (a * xx + b * yy)) > rng.uniform(-0.5, 0.7)
                patterns = band, band | (np.sin(f * (b * xx - a * yy)) > 0.3), rough > 0.8
                over(tex, 0.9 * patterns[rng.integers(3)], self.shade())
            hem = smoothstep(8 * (inside - 0.2)) * smoothstep(8 * (rng.uniform(0.5, 2) - inside))
            over(tex, rng.random() * hem, colour * rng.uniform(0.4, 1.2))

    def paint_eyes_and_mouth(self):
        rng = self.rng
        yy, xx = np.mgrid[-1.4:1.4:128j, -1.4:1.4:128j].astype(np.float32)
        r, iris, cloud = np.hypot(xx, yy), rng.uniform(0.56, 0.64), noise(rng, 2, 128, 128)
        tex, _ = self.put("eye", np.float32([0.72, 0.76, 0.82]) * rng.uniform(0.6, 1.05), gloss=1)
        veins = smoothstep(1 - 8 * np.abs(cloud)) * smoothstep(r - 0.6) * rng.random()
        over(tex, 0.35 * smoothstep((r - 0.6) / 0.7) + 0.3 * veins, [0.35, 0.35, 0.7])
        odds = [0.4, 0.25, 0.1, 0.15, 0.1] if self.light_eyed else [0.85, 0.12, 0.01, 0.01, 0.01]
        colour = EYES[rng.choice(5, p=odds)]
        over(tex, smoothstep((iris - r) / 0.07), colour * 0.3)
        rays = 1 + 0.25 * np.sin(np.arctan2(yy, xx) * 23 + 3 * cloud)
        over(tex, smoothstep((iris - 0.08 - r) / 0.12), colour * rng.uniform(0.7, 1.3) * rays[..., None])
        over(tex, smoothstep((rng.uniform(0.15, 0.32) - r) / 0.05), [0.01, 0.01, 0.01])
        # teeth and gums, and below them in the same tile tongue and palate
        yy, xx = np.mgrid[0:1:128j, 0:1:128j].astype(np.float32)
        tex, _ = self.put("mouth", np.float32([0.7, 0.8, 0.85]) * rng.uniform(0.75, 1.05), gloss=0.6)
        over(tex, 0.75 * smoothstep(1 - 7 * np.abs(np.sin(xx * 26))), [0.25, 0.3, 0.42])
        over(tex, smoothstep((0.12 - yy) / 0.05), [0.35, 0.32, 0.6])
        tex[64:] = np.float32([0.36, 0.34, 0.62]) * (1 + 0.06 * noise(rng, 1, 64, 128)[..., None])

    def paint_things(self):
        """Paints lashes, lenses and what is mirrored in them, frames, hands and things."""
        rng = self.rng
        yy, xx = np.mgrid[0:1:128j, 0:1:128j].astype(np.float32)
        long = rng.uniform(0.3, 0.6 + 0.4 * self.made_up) * (0.35 + 0.65 * (np.sin(70 * xx) > 0))
        self.put("lash", 0.02, solid=((1 - yy) * long)[::2, ::2])
        colour, solid = rng.uniform(0.2, 0.5, 3), rng.uniform(0, 0.12)
        if rng.random() < 0.45:  # sunglasses
            colour = rng.uniform(0, 0.12) + rng.uniform(0, 0.1, 3)
            solid = rng.uniform(0.7, 1) - rng.uniform(0, 0.5) * yy
        tex, lens = self.put("lens", colour, gloss=0.9, solid=solid)
        for a, b, d in rng.normal(0, [1, 1, 0.3], (rng.integers(0, 4), 3)):
            streak = smoothstep(1.2 - np.abs(a * (xx - 0.5) + b * (yy - 0.5) - d) * rng.uniform(4, 30))
            streak *= rng.uniform(0.1, 0.9 if rng.random() < 0.3 else 0.4)
            over(tex, streak / np.maximum(streak + lens[..., 2], 0.3), rng.uniform(0.5, 1.3, 3))
            lens[..., 2] = np.maximum(lens[..., 2], streak)
        frames = self.shade(0.02, 0.1, 0), rng.uniform(0, 0.7, 3), [0.3, 0.55, 0.7]
        self.put("frame", frames[rng.integers(3)], gloss=rng.random())
        colour = (self.skin if rng.random() < 0.9 else self.shade()) * (1 + 0.04 * noise(rng, 2, 128, 128)[..., None])
        self.put("hand", colour, 0.5 + 0.04 * noise(rng, 1, 128, 128))
        tex, _ = self.put("thing", self.shade(), gloss=rng.uniform(0, 0.8))
        over(tex, (noise(rng, rng.integers(1, 4), 128, 128) > rng.normal(0, 1)) * (rng.random() < 0.5), self.shade())
