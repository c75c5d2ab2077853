"""Renders 3D faces in the layout of 300W_LP, to train on without downloading any photos.

Usage:
    python data/make_sample.py                                       # 300 faces in 4 poses -> data/sample
    python data/make_sample.py --faces 50 --seed 1 --out /tmp/few    # a quick look at other people

Writes OUT/SAMPLE/SAMPLE_00000_0.jpg, .mat beside it, and OUT/landmarks/SAMPLE/SAMPLE_00000_0_pts.mat. Variant 0 is the
"photo" (|yaw| < 25 degrees); 1, 2, ... are the same person turned further, to at most 80 degrees, each with another
expression, light and camera. The same seed gives the same files, byte for byte; face i is the same whatever --faces is.

Nothing in it comes from photos or their labels: head.npz is MakeHuman's (make_head.py), and all else is drawn: people
(people.py), their textures (paint.py), hair, clothes and things (dress.py).
"""

from head import SIZE, rasterize, rotation, run_workers, smoothstep, unit, vertex_normals, write_face  # sets threads

import functools
import shlex
from pathlib import Path

import cv2
import numpy as np

import dress
from dress import Part, flat, joined, tile
from landmark.cli import CORES, command, number, script_parser
from landmark.outputs import whole_folder
from paint import canvas, noise, over, paint
from people import EYE, LASH, SKIN, TONGUE, TOOTH, WET, draw_expression, draw_person, express, follow, landmarks, model

LINEAR = ((np.arange(256) / 255) ** 2.2).astype(np.float32)  # a texture's bytes to light
RAYS = 5  # of the soft shadow


@functools.cache
def body_parts():
    """Of the mesh: (texture [V, 2], pixels; its triangles but those of the lashes; these), built once."""
    m = model()
    v, kind, uv = m["vertices"], m["kind"], flat(m["vertices"])
    for side in -1, 1:
        eye = np.flatnonzero((kind == EYE) & (side * v[:, 0] > 0))
        d = v[eye] - (v[eye].min(0) + v[eye].max(0)) / 2
        uv[eye] = np.where(d[:, 2:] < 0, tile("eye", 0.02, 0.02), tile("eye", 0.5 + d[:, 0] / 2.8, 0.5 + d[:, 1] / 2.8))
    teeth = np.flatnonzero(kind == TOOTH)
    for jaw, up in (teeth[:68], 1), (teeth[68:], -1):
        y = up * v[jaw, 1]
        across = np.arctan2(v[jaw, 0], v[jaw, 2] + 4) / 2.4 + 0.5
        uv[jaw] = tile("mouth", across, 0.02 + 0.44 * (y - y.min()) / np.ptp(y))
    for soft, down in (TONGUE, 0.75), (WET, 0.85):
        uv[kind == soft] = tile("mouth", 0.5 + v[kind == soft, 0] / 6, down)
    lash = kind == LASH
    away = np.linalg.norm(v[lash, None] - v[m["lid_rings"].ravel()], axis=-1).min(1)
    uv[lash] = tile("lash", np.abs(v[lash, 0]) % 1.0, away / 0.9)
    lashes = lash[m["triangles"]].all(1)
    return uv, m["triangles"][~lashes], m["triangles"][lashes]


class Camera:
    """turn, body: the poses of head and torso, [3, 3]; scale: pixels per centimetre; distance: from the origin,
    centimetres; centre: where the origin is in the picture, [2], pixels."""

    def __init__(self, turn, body, scale, distance):
        self.turn, self.body, self.scale, self.distance, self.centre = turn, body, scale, distance, np.zeros(2)

    def turned(self, xyz, vectors):
        """Vectors [V, 3] turned as the vertices [V, 3] are that they belong to."""
        head = follow(xyz)[:, None]
        return head * (vectors @ self.turn.T) + (1 - head) * (vectors @ self.body.T)

    def posed(self, xyz):
        """Vertices [V, 3] as the person stands before the camera."""
        neck = np.array([0, 4, -9.0])
        return self.turned(xyz, xyz - neck) + self.turn @ neck

    def project(self, xyz):
        """Pixels [V, 2] and depth [V] of vertices."""
        posed = self.posed(xyz)
        return posed[:, :2] * (self.scale / (1 - posed[:, 2:] / self.distance)) + self.centre, posed[:, 2]


class Frame:
    """What each of SIZE * SIZE pixels shows before light falls on it: its depth; cover, 0..1; and a row of ten numbers:
    colour, linear; height; gloss; normal; sky; and softness, how far light enters: 1 on skin, 0 on cloth."""

    def __init__(self, camera, textures):
        self.camera, self.textures = camera, textures
        self.depth, self.cover = np.full(SIZE * SIZE, -1e3, np.float32), np.zeros(SIZE * SIZE, np.float32)
        self.rows = np.zeros((SIZE * SIZE, 10), np.float32)

    def lay(self, part, soft, sides=2):
        """Draws a Part, seen from one or both sides, over what is there; soft: see Frame."""
        xy, depth = self.camera.project(part.xyz)
        normal = self.camera.turned(part.xyz, part.normal)
        values = np.zeros((len(xy), 8), np.float32)
        values[:, 0], values[:, 1:3], values[:, 3:6], values[:, 6] = depth, part.uv, normal, part.sky
        pixels, values = rasterize(xy, values, part.tri, len(part.tri) * (sides - 1))
        if not len(pixels):
            return
        where = np.ascontiguousarray(values[:, 1:3]).reshape(-1, 512, 2)
        colour, relief = (cv2.remap(t, where, None, cv2.INTER_LINEAR).reshape(-1, 3) for t in self.textures)
        over = np.flatnonzero((values[:, 0] > self.depth.take(pixels)) & (relief[:, 2] > 5))
        pixels, relief, colour, values = (a.take(over, 0) for a in (pixels, relief, colour, values))
        relief, new = relief * np.float32(1 / 255), np.full((len(over), 10), soft, np.float32)
        new[:, :3], new[:, 3:5], new[:, 5:9] = cv2.LUT(colour, LINEAR), relief[:, :2], values[:, 3:7]
        solid, cover = relief[:, 2], self.cover.take(pixels)
        total = cover + solid - cover * solid
        old = self.rows.take(pixels, 0)
        self.rows[pixels], self.cover[pixels] = old + (solid / total)[:, None] * (new - old), total
        self.depth[pixels] = np.where(solid > 0.5, values[:, 0], self.depth.take(pixels))


def shadow(rng, camera, parts, places, light, size):
    """How much of a lamp each place [N, 3] sees, [N], 0..1.

    light: [3], the way to the lamp, length 1; size: of the lamp, as the width of a shadow's edge, centimetres.
    """
    across = unit(np.cross(light, [0.3, 0.8, 0.2]))
    side, zoom, middle = 240, 8, camera.turn @ [0, 2, -4.0]
    axes = np.float32(zoom * np.stack([across, np.cross(across, -light), light], 1))
    shift = np.float32([side / 2, side / 2, 0] - middle @ axes)
    solid = joined(parts)
    seen = np.float32(camera.posed(solid.xyz)) @ axes + shift
    pixels, depth = rasterize(seen[:, :2], seen[:, 2:] / zoom, solid.tri, len(solid.tri), side)
    image = np.full(side * side, -1e3, np.float32)
    image[pixels] = depth[:, 0]
    at, turn = places @ axes + shift, rng.uniform(0, 2 * np.pi)
    far, free = at[:, 2] / zoom + 0.25, np.zeros(len(at), np.float32)
    right, down = at.T[:2].copy()
    for k in range(RAYS):
        radius, angle = zoom * size * np.sqrt((k + 0.5) / RAYS), turn + k * 2.4
        x = (right + np.float32(0.5 + radius * np.cos(angle))).astype(np.int32).clip(0, side - 1)
        y = (down + np.float32(0.5 + radius * np.sin(angle))).astype(np.int32).clip(0, side - 1)
        free += image.take(y * side + x) < far
    return free / RAYS


def draw_light(rng):
    """A light at random: dict of key, the way to the lamp [3], its colour (lamp) and size; the ambient light's colour,
    the way most of it comes from, and how uneven it is (lean); rim, a light from behind, and its side; exposure."""
    # Lowest and highest of: where the lamp is, around and up, radians; its share of the light.
    kinds = {"soft": ((-1.2, 1.2), (0, 0.9), (0.35, 0.65)), "side": ((0.6, 1.9), (-0.3, 0.7), (0.55, 0.97)),
             "flash": ((-0.15, 0.15), (-0.1, 0.2), (0.6, 0.9)), "sun": ((-1.4, 1.4), (0.4, 1.2), (0.5, 0.95)),
             "flat": ((-1, 1), (0, 1), (0, 0.25))}  # fmt: skip
    kind = str(rng.choice(list(kinds), p=[0.3, 0.24, 0.12, 0.22, 0.12]))
    around, high, share = (rng.uniform(*limits) for limits in kinds[kind])
    around *= rng.choice([-1, 1])
    tints = 1 + rng.normal(0, [[0.12], [0.15]]) * [-1, 0, 1] + rng.normal(0, 0.03, (2, 3))
    if rng.random() < 0.07:  # a stage, a night
        tints[rng.integers(2)] = rng.uniform(0.1, 1.6, 3)
    return {
        "key": np.array([np.sin(around) * np.cos(high), -np.sin(high), np.cos(around) * np.cos(high)]),
        "lamp": share * np.maximum(0.05, tints[0]) * 1.2, "ambient": (1 - share) * np.maximum(0.05, tints[1]),
        "size": 0.05 if kind in ("sun", "flash") else rng.uniform(0.2, 1.6), "side": rng.choice([-1, 1]),
        "way": unit(rng.normal([0, -1.2, 0.4], 1)), "lean": rng.uniform(0.1, 0.7),
        "rim": max(0, rng.normal(-0.2, 0.5)), "exposure": np.exp(rng.normal(0, 0.3)), "flash": kind == "flash",
    }  # fmt: skip


def shine(rng, frame, parts, light, floor):
    """A Frame's pixels in a light: (their numbers [N]; colours [N, 3], linear). Shadows fall above the row `floor`."""
    pixels = np.flatnonzero(frame.cover > 0.02)
    rows = frame.rows.take(pixels, 0)
    colour, (gloss, sky, soft) = rows[:, :3].T.copy(), rows[:, [4, 8, 9]].T.copy()
    n = unit(rows[:, 5:8])
    depth, camera = frame.depth.take(pixels), frame.camera
    xy = np.stack([pixels % SIZE, pixels // SIZE], 1) - camera.centre
    places = np.c_[xy * ((1 - depth / camera.distance) / camera.scale)[:, None], depth]
    places = np.float32(places) + np.float32(0.2) * n
    height = np.full(SIZE * SIZE, 0.5, np.float32)  # its slope on the screen tilts the normal
    height[pixels] = rows[:, 3]
    for k in range(2):
        slope = cv2.Sobel(height.reshape(SIZE, SIZE), cv2.CV_32F, 1 - k, k, scale=0.9)
        n[:, k] -= slope.ravel().take(pixels).clip(-0.5, 0.5)
    n, light = unit(n), {name: np.float32(value)[..., None] for name, value in light.items()}  # vectors in columns
    key, lamp, ambient = light["key"], light["lamp"], light["ambient"]
    high = np.searchsorted(pixels, SIZE * int(floor))
    free = np.ones(len(pixels), np.float32)
    free[:high] = shadow(rng, camera, parts, places[:high], key[:, 0], light["size"])
    toward, half = (n @ key)[:, 0], unit(key.T + np.float32([[0, 0, 1]])).T
    wrap = soft * np.float32([[0.08], [0.13], [0.28]])  # how far BGR light reaches round the edge of the shadow
    lit = np.maximum((toward + wrap) / (1 + wrap), 0) * free
    lit[2] += 0.2 * soft * np.sqrt(free) * (1 - free) * np.maximum(toward, 0)  # red reaches into the cast one
    f12, edge = np.maximum(0, n @ half)[:, 0] ** 12, (1 - np.clip(n[:, 2], 0, 1)) ** 3
    spot, wet = np.zeros_like(gloss), gloss > 0.93
    for which, bright in (~wet, lambda f: 0.35 * f + 0.8 * f**5), (wet, lambda f: 9 * f**33):
        which = np.flatnonzero(which & (free > 0) & (toward > 0))
        spot[which] = gloss[which] * bright(f12[which]) * free[which]
    rim = light["rim"] * edge * np.clip(n[:, 0] * light["side"], 0, 1) * (0.3 + sky)
    around = (1 + light["lean"] * (n @ light["way"])[:, 0]) * (0.25 + 0.75 * sky) * ambient
    falls = lit * lamp * (0.6 + 0.4 * sky) + around + rim
    level = falls.T[soft == 1].mean() if (soft == 1).any() else np.float32(0.5)  # a camera looks at the face
    out = colour * falls + (spot * lamp + 0.25 * gloss * edge * ambient * sky) * np.float32(0.55)
    return pixels, np.ascontiguousarray((out * light["exposure"] * np.float32(0.95 / (0.3 + level))).T)


def backdrop(rng):
    """A random background, uint8 [SIZE, SIZE, 3]: a wall, leaves, things in front of it, lamps; out of focus."""
    half = SIZE // 2
    yy, xx = np.mgrid[-1 : 1 : half * 1j, -1 : 1 : half * 1j].astype(np.float32)

    def colour():  # mostly greyish, as rooms and streets are
        return (rng.uniform(0, 1) + abs(rng.normal(0, 0.08)) * rng.normal(0, 1, 3) + rng.normal(0, 0.02, 3)).clip(0, 1)

    a, b, turn, kind = colour(), colour(), rng.uniform(0, 2 * np.pi), rng.random()
    ramp = smoothstep(0.5 + 0.5 * (xx * np.cos(turn) + yy * np.sin(turn)))[..., None]
    image = np.float32(a) + np.float32(b - a) * ramp
    for _ in range(rng.integers(1, 4) if kind < 0.2 else 0):
        spots = noise(rng, rng.integers(1, 4), half, half)
        over(image, smoothstep((spots + rng.normal(0, 0.5)) / rng.uniform(0.2, 1.5)), colour())
    lean = rng.normal(0, 8)
    for _ in range(rng.integers(0, 16)):
        tint, (x, y), (w, t) = colour().tolist(), *rng.integers([[0, 0], [4, 4]], [[half], [70]]).tolist()
        if rng.random() < 0.65:
            cv2.fillPoly(image, [cv2.boxPoints(((x, y), (w, 3 * t), lean)).astype(np.int32)], tint, cv2.LINE_AA)
        else:
            cv2.ellipse(image, (x, y), (w, t), rng.uniform(0, 180), 0, 360, tint, -1, cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (0, 0), rng.choice([0.6, 2, 5, 10]))
    for x, y, r in rng.integers([0, 0, 2], [half, half, 14], (rng.integers(3, 25) * (rng.random() < 0.15), 3)).tolist():
        cv2.circle(image, (x, y), r, (colour() * 0.5 + 0.5).tolist(), -1, cv2.LINE_AA)
    image *= 1 + rng.uniform(0, 0.1) * noise(rng, rng.integers(0, 4), half, half)[..., None]
    return cv2.convertScaleAbs(cv2.resize(image, (SIZE, SIZE)).clip(0, 1), alpha=255)


def develop(rng, image):
    """What a camera, an album and a web page do to a picture: from linear float32 [SIZE, SIZE, 3] to uint8."""
    image = np.clip(image / (1 + 0.25 * image**2) * np.float32(1.12), 0, 1)  # highlights roll off
    image **= np.float32(1 / 2.2)
    image = (image - 0.5) * rng.normal(1.08, 0.17) + (0.5 + rng.normal(0, 0.03))
    image *= np.float32(rng.normal(1, 0.03, 3))
    grey = rng.random()
    if grey < 0.3:
        saturation = 0 if grey < 0.12 else rng.uniform(0.2, 1.8)
        mean = (image @ np.float32([0.114, 0.587, 0.299]))[..., None]
        image = mean + saturation * (image - mean)
    if grey < 0.04:  # an old print
        image = image * rng.uniform([0.6, 0.75, 0.8], [0.8, 0.8, 0.85]) + rng.uniform(0.03, 0.12)
    blur = rng.choice([rng.uniform(0.5, 0.9), rng.uniform(0.9, 2.2)], p=[0.75, 0.25])
    image = cv2.GaussianBlur(np.float32(image), (0, 0), blur)
    if rng.random() < 0.2:  # few pixels
        small = cv2.resize(image, None, fx=(share := rng.uniform(0.2, 0.7)), fy=share, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    grain = rng.choice([rng.uniform(0.02, 0.15), rng.uniform(0.15, 0.5)], p=[0.8, 0.2])
    r, q = rng.integers(0, 600 - SIZE, 2)
    speck = canvas()["grain"][r : r + SIZE, q : q + SIZE]
    speck = cv2.merge([speck[..., 0]] * 3) if grey < 0.12 else np.ascontiguousarray(speck)
    return cv2.addWeighted(cv2.convertScaleAbs(image.clip(0, 1), alpha=255), 1, speck, grain, -128 * grain)


class Person:
    """Someone at random: shape, hair, clothes, textures."""

    def __init__(self, rng):
        self.vertices, self.who = draw_person(rng)
        hair, self.clothes = dress.draw_hair(rng, self.who), dress.draw_clothes(rng)
        if self.clothes["hat"] == "hood":
            hair["length"] = 0.0
        *self.textures, beard = paint(rng, self.who, hair)
        normals = vertex_normals(self.vertices, body_parts()[1])
        self.strands = dress.grow(rng, self.vertices, normals, hair, beard)
        if self.strands and self.clothes["hat"] in ("beanie", "cap", "brim"):  # no hair through the hat
            rooted = dress.hat_field(model()["vertices"], self.clothes)[self.strands.root] > 0.3
            held = rooted & (dress.hat_field(self.strands.xyz, self.clothes) > -0.4)
            self.strands = self.strands._replace(tri=self.strands.tri[~held[self.strands.tri].any(1)])
        self.glasses = dress.glasses(rng, self.vertices) if rng.random() < 0.22 else None

    def render(self, rng, yaw, pitch, roll):
        """The person in a pose, radians, with an expression and in a light at random.

        Returns: ((numbers of pixels [N]; their colours [N, 3], linear; cover [N]); Camera; points, see landmarks();
            whether a flash lights the scene).
        """
        m, (uv, tri, lash_tri) = model(), body_parts()
        expression, light = draw_expression(rng), draw_light(rng)
        xyz = express(self.vertices, expression)
        normal, kind, sky = vertex_normals(xyz, tri), m["kind"], m["sky"].copy()
        inside = (kind == WET) | (kind == TOOTH) | (kind == TONGUE)
        dim = 0.15 + 0.8 * (kind[inside] == TOOTH) + 0.35 * min(1, expression.get("jawOpen", 0) * 1.3)
        sky[inside] = np.maximum(sky[inside], dim * smoothstep((xyz[inside, 2] + 3) / 6))
        sky[kind == EYE] = 0.4 + 0.35 * smoothstep((xyz[kind == EYE, 1] + 0.6) / 0.7)  # below the lid it is darker
        turn, lean = rotation(pitch, yaw, roll), rng.normal(0, 0.08, 3)
        body = rotation(0.15 * pitch + lean[0], 0.5 * yaw + lean[1], 0.3 * roll + lean[2])
        camera = Camera(turn, body, rng.uniform(9.5, 12.5), np.exp(rng.uniform(np.log(35), np.log(250))))
        points = landmarks(camera.project(xyz)[0], turn[:2, 1] / np.hypot(*turn[:2, 1]), self.who["brow"])
        camera.centre = SIZE / 2 + rng.normal(0, 8, 2) - (points[0].min(0) + points[0].max(0)) / 2 + [0, 12]

        frame, none = Frame(camera, self.textures), np.full(len(xyz), -1)
        parts = [Part(xyz, uv, tri, normal, sky, none), dress.wear(xyz, normal, self.clothes)]
        frame.lay(parts[0], 1.0, sides=1)
        if self.strands:
            moved = self.strands.xyz + (xyz - self.vertices)[self.strands.root]
            parts.append(self.strands._replace(xyz=moved))
            frame.lay(parts[-1], 0.2)
        frame.lay(parts[1], 0.0)
        frame.lay(Part(xyz, uv, lash_tri, np.broadcast_to([0, -0.5, 0.8], xyz.shape), sky, none), 0.0)
        before = []
        if self.glasses and rng.random() < 0.85:
            frame.lay(self.glasses[1], 0.0)
            before.append(self.glasses[0])
        near = xyz[(kind == SKIN) & (xyz[:, 2] > -2) & (xyz[:, 1] < 11)]
        if rng.random() < 0.1:
            before.append(dress.hand(rng, rng.choice(near)))
        if rng.random() < 0.08:
            before.append(dress.thing(rng, rng.choice(near), xyz[m["points"][0, 24, 0]]))
        if before:
            parts.append(joined(before))
            frame.lay(parts[-1], 0.3)
        points = [place + camera.centre for place in points]
        pixels, colours = shine(rng, frame, parts, light, points[0][:, 1].max() + 60)
        return (pixels, colours, frame.cover[pixels]), camera, points, light["flash"]


bystander = functools.cache(lambda number: Person(np.random.default_rng([number])))  # to stand behind others


def behind(rng, image):
    """An image [SIZE * SIZE, 3] with one of eight people behind, smaller and blurred."""
    pixels, colours, cover = bystander(rng.integers(8)).render(rng, rng.uniform(-1.2, 1.2), *rng.normal(0, 0.15, 2))[0]
    layer = np.zeros((SIZE * SIZE, 4), np.float32)
    layer[pixels] = np.c_[colours * cover[:, None], cover]
    zoom, shift = rng.uniform(0.4, 1.0), [rng.choice([-1, 1]) * rng.uniform(110, 220), rng.normal(0, 60)]
    move = np.c_[zoom * np.eye(2), (1 - zoom) * SIZE / 2 + np.array(shift)]
    layer = cv2.warpAffine(layer.reshape(SIZE, SIZE, 4), move, (SIZE, SIZE), flags=cv2.INTER_AREA)
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.5, 4)).reshape(-1, 4)
    return image * (1 - layer[:, 3:]) + layer[:, :3]


def render_face(seed, face, variants):
    """Yields one person in several poses, drawn from seed and face and nothing else: (photo uint8 [450, 450, 3], BGR;
    pts_2d and pts_3d, float32 [68, 2], pixels; params, see write_face; quality of the JPEG)."""
    rng = np.random.default_rng([seed, face])
    person = Person(rng)
    who = person.who
    # yaw: the photo's, then evenly on to the last, turning one way
    way, photo_yaw, last = rng.choice([-1, 1]), abs(rng.normal(0, 11)), rng.uniform(35, 80)
    steps = (np.arange(variants) - rng.uniform(0, 0.2, variants)) / max(1, variants - 1)
    steps[0] = 0
    yaws = way * np.deg2rad(min(photo_yaw, 24) * (1 - steps) + last * steps)
    pitch0, roll0 = rng.normal(0, 7, 2) * rng.choice([1, 1, 1, 1, 3], 2)
    for yaw in yaws:
        pitch, roll = np.deg2rad(np.clip([pitch0 + rng.normal(0, 5), roll0 + rng.normal(0, 4)], -30, 30))
        image = cv2.LUT(backdrop(rng), LINEAR).reshape(-1, 3)
        if rng.random() < 0.07:
            image = behind(rng, image)
        (pixels, colours, cover), camera, points, flash = person.render(rng, yaw, pitch, roll)
        image = image * np.float32(np.exp(rng.normal(-0.2, 0.5)) * (0.4 if flash else 1))
        image[pixels] += cover[:, None] * (colours - image[pixels])
        photo = develop(rng, image.reshape(SIZE, SIZE, 3))
        quality = int(rng.choice([rng.integers(70, 96), rng.integers(25, 70)], p=[0.8, 0.2]))
        params = {"Pose_Para": [[pitch, yaw, roll, *camera.centre, 0, camera.scale]],
                  "Shape_Para": np.c_[[who["tone"], who["age"], who["male"], *who["people"]]]}  # fmt: skip
        yield photo, *np.float32(points), params, quality


def write_person(job):
    """Renders a person and writes the files; job: (folder, seed, face, variants)."""
    out, seed, face, variants = job
    for k, rendered in enumerate(render_face(seed, face, variants)):
        write_face(out, "SAMPLE", f"SAMPLE_{face:05d}_{k}", *rendered)


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "sample", help="folder to make")
    parser.add_argument("--faces", type=number(int, 1), default=300, help="people (300)")
    parser.add_argument("--variants", type=number(int, 1), default=4, help="poses of each (4)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="random seed (0)")
    args = parser.parse_args()
    print(f"rendering {args.faces} faces in {args.variants} poses, on {CORES} CPU cores")
    with whole_folder(args.out) as partial:
        jobs = [(partial, args.seed, face, args.variants) for face in range(args.faces)]
        run_workers(write_person, jobs, "face", [canvas, body_parts])
    print(f"{args.faces * args.variants} photos of {args.faces} faces in {args.out}")
    out = shlex.quote(str(args.out))
    print(f"next: python prepare_tfrecords.py --data {out} --out {out}")


if __name__ == "__main__":
    main()
