"""The people that make_sample.py renders: the mesh of head.npz, moved by who someone is and what the face does.

Space: as in head.py, with the origin between the eyes. All heads have one size; the camera makes faces small or large.
"""

from head import smoothstep

from functools import cache
from pathlib import Path

import numpy as np

SKIN, WET, EYE, TOOTH, TONGUE, LASH = range(6)  # kinds of vertices
LOOP = 3  # of the loops of `edge`, where the lips meet at rest
LESS, MORE = "decr down in backward concave compress".split(), "incr up out forward convex uncompress".split()
# Standard deviation of how far a detail is moved, by a part of its name; the first that fits.
SPREAD = {"asym": 0.12, "eye-scale": 0.25, "eye-trans": 0.25, "eye-height": 0.25, "eye-corner": 0.3, "push": 0.15,
          "epicanthus": 0.4, "head-trans": 0, "head-angle": 0.1, "head-scale": 0.2, "head-fat": 0.3, "head-": 0.12,
          "neck-trans": 0.1, "neck": 0.3, "nose-trans": 0.25, "mouth-trans": 0.25, "lip-height": 0.3, "forehead": 0.3,
          "": 0.35}  # fmt: skip
# MakeHuman's average head is short and has a small mouth and eyes, compared with measured adults (Farkas, Anthropometry
# of the Head and Face, 1994: the face is 13.5 cm wide; nasion to chin 11.6, eye 3.0, mouth 5.2 on average). Its eyes
# become as wide as the white, 2.6: the mesh has no caruncle, the red of the inner corner.
AVERAGE = {"head-scale-vert": 0.35, "head-scale-horiz": -0.1, "head-fat": -0.15, "eye-scale": 0.7, "eye-push1": 0.4,
           "eye-push2": -0.2, "eye-trans": 0.3, "mouth-scale-horiz": 0.45, "nose-scale-vert": 0.2}  # fmt: skip
AVERAGE_BROW = np.r_[np.linspace(0.25, 3.5, 5), np.linspace(5.5, 8.75, 5)], 0.5  # the mean of what draw_person draws
# Face units: of the brows, and others that are drawn at random beside those of the lids and of the mouth's opening.
BROWS = "browDown browOuterUp browInnerUp".split()
MOUTH = "Pucker Funnel Left Right ShrugLower ShrugUpper Frown Stretch UpperUp LowerDown Dimple".split()
OTHER = [f"mouth{name}" for name in MOUTH] + "jawLeft jawRight jawForward cheekPuff noseSneer".split()


@cache
def model():
    """What head.npz holds (see make_head.py) and what follows from it: a dict, built once.

    number: dict of the name of a shape to its index; follow: [V], see follow(); skin: the triangles [T, 3] of the skin.
    details: dict of a detail's name without side and direction to {side: {direction, -1 or 1: number of the shape}}.
    lids: of each eye, left and right: the vertices of the upper and of the lower lid that lie above each other; the
        blink's moves [V, 3]; and beside which of these vertices each vertex lies, [V].
    """
    with np.load(Path(__file__).with_name("head.npz")) as stored:
        m = {name: a.astype(np.int64) if a.dtype == np.uint16 else a for name, a in stored.items()}
    m["sky"], m["skin"] = np.float32(m["sky"]) / 255, m["triangles"][(m["kind"] == SKIN)[m["triangles"]].all(1)]
    sizes = np.where(m["torso"], m["scales"][:, 1:], m["scales"][:, :1])
    m["shapes"] = (m["shapes"] * sizes[..., None]).reshape(len(sizes), -1)
    m["number"] = {name: k for k, name in enumerate(m["names"].tolist())}
    m["follow"], m["details"], m["lids"] = follow(m["vertices"]), {}, []
    for name in m["names"][36 : m["number"]["browDownLeft"]].tolist():
        side, stem = (name[0], name[2:]) if name[:2] in ("l-", "r-") else ("", name)
        start, _, pole = stem.rpartition("-")
        sides = m["details"].setdefault(start if pole in LESS + MORE else stem, {})
        sides.setdefault(side, {})[-1 if pole in LESS else 1] = m["number"][name]
    x = m["vertices"][:, 0]
    for side, ring in zip(("Left", "Right"), m["lid_rings"], strict=True):
        upper, lower = ring[3:12], ring[25:16:-1]
        order = np.argsort(x[upper])
        blink = m["shapes"][m["number"][f"eyeBlink{side}"]].reshape(-1, 3)
        m["lids"].append((upper, lower, blink, np.interp(x, x[upper][order], order)))
    return m


def follow(xyz):
    """How much places [N, 3] follow the head and not the torso: [N], 0..1."""
    return 1 - smoothstep((xyz[:, 1] - 0.6 * xyz[:, 2] - 11) / 9)


def draw_person(rng):
    """Someone at random.

    Returns: (vertices float32 [V, 3] of the face at rest; dict of age, 0 a baby, 0.2 a child, 0.5 young, 1 old; male,
        0..1; people [3], how African, Asian and European; brow: along and high, see brow_points).
    """
    m = model()
    people, male, fat = rng.dirichlet([0.45] * 3), rng.beta(0.25, 0.25), rng.normal(0, 0.4)
    age = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.15, 0.42), rng.uniform(0.42, 1)], p=[0.03, 0.14, 0.83])
    ages = [np.interp(age, [0, 0.18, 0.5, 1], row) for row in np.eye(4)]
    weights = np.zeros(len(m["names"]), np.float32)
    weights[:24] = np.einsum("p,s,a->psa", people, [1 - male, male], ages).ravel()
    adult = [ages[0] + ages[1], ages[2], ages[3]]
    weights[24:36] = np.einsum("s,a,w->saw", [1 - male, male], adult, np.maximum(0, [-fat, fat])).ravel()
    for stem, sides in m["details"].items():
        spread = next(s for part, s in SPREAD.items() if part in stem)
        amount = rng.normal(0, spread) if stem != "head-age" else max(0, 1.2 * (age - 0.6)) * rng.random()
        for moves in sides.values():  # no face is quite symmetric
            own = min(1, max(-1, amount + rng.normal(0, 0.15 * spread))) + AVERAGE.get(stem, 0)
            if (way := 1 if own > 0 else -1) in moves:
                weights[moves[way]] = abs(own)
    vertices = m["vertices"] + (weights @ m["shapes"]).reshape(-1, 3)
    arch, height, tilt = rng.normal(0, [0.12, 0.18, 0.12])
    at, ends = np.linspace(-1, 1, 5), np.clip(rng.normal([0.5, 3.75], [0.25, 0.3]), [0, 2.8], [1.2, 4])
    left, along = 0.5 + height + arch * (1 - 2 * at**2) + tilt * at, np.linspace(*ends, 5)
    high = np.clip(np.r_[left[::-1], left] + rng.normal(0, 0.02, 10), 0, 1)
    brow = np.r_[4 - along[::-1], 5 + along], high  # from the right temple to the left one
    return vertices - vertices[m["kind"] == EYE].mean(0), {"age": age, "male": male, "people": people, "brow": brow}


def draw_expression(rng):
    """An expression at random: dict of face units to strengths; and of `open` to how far the left and the right eye are
    open, [2], 1 as at rest, 0 closed."""
    units, numbers = {}, model()["number"]

    def add(name, amount, lean=0.15):  # a face unit, or those of both sides
        for side in ("",) if name in numbers else ("Left", "Right"):
            units[name + side] = min(1.2, max(0, amount * rng.normal(1, lean)))

    eyes = rng.choice(["rest", "closed", "closing", "wide"], p=[0.62, 0.13, 0.11, 0.14])
    opened = {"rest": rng.normal(0.95, 0.1), "closed": 0, "closing": rng.uniform(0.05, 0.6), "wide": 1}[eyes]
    opened = np.maximum(0, opened + rng.normal(0, 0.02, 2) * (eyes != "closed"))
    if rng.random() < 0.03:
        opened[rng.integers(2)] = 0  # a wink
    if eyes == "wide":
        add("eyeWide", rng.uniform(0.3, 1))
    if rng.random() < 0.25:
        add("eyeSquint", rng.uniform(0.2, 1))
        add("cheekSquint", rng.uniform(0, 0.8))
    aside, down = rng.normal(0, [0.35, 0.3])
    for side, inwards in ("Left", -1), ("Right", 1):
        units[f"eyeLook{'In' if aside * inwards > 0 else 'Out'}{side}"] = min(1, abs(aside))
        units[f"eyeLook{'Down' if down > 0 else 'Up'}{side}"] = min(1, abs(down))
    for name in rng.choice(BROWS, rng.integers(0, 3)):
        add(str(name), rng.uniform(0.2, 1))
    mouth = rng.choice(["rest", "talk", "open", "pressed"], p=[0.3, 0.3, 0.2, 0.2])
    if mouth in ("talk", "open"):
        add("jawOpen", rng.uniform(0, 0.3) if mouth == "talk" else rng.uniform(0.3, 1))
        add("tongueOut", rng.uniform(0.2, 1) * (mouth == "open" and rng.random() < 0.25))
    elif mouth == "pressed":
        add("mouthPress", rng.uniform(0.4, 1) * (rng.random() < 0.5))
        units["mouthRollLower"], units["mouthRollUpper"] = rng.uniform(0, 1, 2)
    if rng.random() < (0.1 if mouth == "pressed" else 0.6):
        smile, teeth = rng.uniform(0.2, 1.1), rng.uniform(0, 1.2) * (mouth != "pressed" and rng.random() < 0.75)
        for name, amount in ("Smile", smile), ("UpperUp", teeth), ("LowerDown", 0.7 * teeth):
            add(f"mouth{name}", amount)
        add("cheekSquint", 0.7 * smile)
    elif rng.random() < 0.45:
        for name in rng.choice(OTHER, 3):
            add(str(name), rng.uniform(0.1, 0.85), 0.4)
    return units | {"open": opened}


def express(vertices, expression):
    """Moves the vertices [V, 3] of a face at rest by an expression, see draw_expression: [V, 3]."""
    m, first = model(), model()["number"]["browDownLeft"]
    weights = np.zeros(len(m["names"]) - first, np.float32)
    for name in expression.keys() - {"open"}:
        weights[m["number"][name] - first] = expression[name]
    moved = vertices + (weights @ m["shapes"][first:]).reshape(-1, 3)
    for (upper, lower, blink, columns), opened in zip(m["lids"], expression["open"], strict=True):
        # The blink is made for one face: on this one each column of the lid moves as far as the opening asks.
        rest, now = (np.maximum(0.05, (v[lower] - v[upper])[:, 1]) for v in (vertices, moved))
        amount = np.maximum(0, now - opened * rest) / np.maximum(0.2, blink[upper, 1]) * (opened < 0.85)
        moved += np.interp(columns, range(len(upper)), amount)[:, None].astype(np.float32) * blink
    return moved


def spots(vertices, name):
    """Places of head.npz (jaw, points, lips, brow, edge) on a mesh [V, D]: weighted means of vertices, [..., D]."""
    return (vertices[model()[name]] * model()[f"{name}_weights"][..., None]).sum(-2)


def brow_points(lines, along, high):
    """The 10 points of the brows, [10, D].

    lines: [2, 10, D], ten points along the longest brows there are, where these lie lowest and highest.
    along, high: [10], or one number for all: where among the ten each point is, 0..9, and how high, 0..1.
    """
    bottom, top = ([np.interp(along, range(10), x) for x in line.T] for line in lines)
    return (bottom + high * np.subtract(top, bottom)).T


def places(vertices, brow=AVERAGE_BROW):
    """The 68 landmarks [68, D] on a head whose vertices are [V, D]; brow: see draw_person."""
    jaw, still, lips = spots(vertices, "jaw")[::4, 0], spots(vertices, "points")[0], spots(vertices, "edge")[LOOP]
    return np.concatenate([jaw, brow_points(spots(vertices, "brow"), *brow), still, lips])


def landmarks(view, down, brow):
    """The 68 points in a picture.

    view: [V, 2], where the vertices are seen, pixels.
    down: [2], where the chin points there, length 1.
    brow: see draw_person.
    Returns: (pts_2d [68, 2], whose jaw is on the visible outline, evenly along either half; pts_3d [68, 2]).
    """
    points = places(view, brow)
    # The inner edge of a lip is that of its loops which is seen furthest out.
    loops = spots(view, "edge")
    edge = np.argmax(loops @ down * [0, 1, 1, 1, 0, -1, -1, -1], 0)
    edge[[0, 4]] = LOOP
    points[60:] = loops[edge, range(8)]
    row, lean = spots(view, "jaw"), model()["jaw_lean"][:, None]
    outwards = np.cos(lean) * [down[1], -down[0]] + np.sin(lean) * down
    step = np.pad(np.argmax(np.einsum("lrk,lk->lr", row, outwards), 1), 2, "edge")
    step = np.median(np.lib.stride_tricks.sliding_window_view(step, 5), 1).astype(int)  # without jumps
    outline = row[range(len(row)), step]
    for _ in range(3):
        outline[1:-1] = (outline[:-2] + 2 * outline[1:-1] + outline[2:]) / 4
    seen, half = points.copy(), len(row) // 2
    seen[:9], seen[8:17] = evenly(outline[: half + 1], 9), evenly(outline[half:], 9)
    return seen, points


def evenly(line, count):
    """A number of places along a line [N, D], evenly as seen in its first two coordinates: [count, D]."""
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(line[:, :2], axis=0).T))]
    return np.stack([np.interp(np.linspace(0, along[-1], count), along, x) for x in line.T], 1)
