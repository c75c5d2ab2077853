"""Turns near-frontal faces to larger yaws, as the authors of 300W_LP did ("face profiling").

Usage:
    python data/turn_faces.py --data ~/300W_LP --out ~/turned                # 4 variants of each photo
    python data/turn_faces.py --data ~/mine --out ~/turned --variants 8 --seed 1

Writes OUT in the layout of 300W_LP: <SET>_turned/<face>_1, _2, ... show the face of a photo turned further and further,
up to 90 degrees, with pts_2d (jaw on the visible outline), pts_3d and Pose_Para. Give both folders, the photos' and
OUT, to prepare_tfrecords.py, which keeps a face and its variants in one split. The same seed gives the same files.

How it works (after Zhu, Lei, Liu, Shi, Li, "Face Alignment Across Large Poses: A 3D Solution", CVPR 2016): a head is
fitted to the 68 points (fit_head.py) and gives the photo a depth, which falls off around the head towards its back and
the neck. So the photo is a sheet in space: where the head is, the sheet turns with it, less and less further out, and
not at all at the rim; what is in front hides what is behind.
"""

from head import SIZE, grid_triangles, rasterize, rotation, run_workers, smoothstep, write_face  # first: sets threads

import hashlib
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np

from fit_head import angles, fit_head, head_yaw, prior, see, seen_places
from landmark.annotations import find_annotations, identity_keys, photo_name, read_labels
from landmark.cli import CORES, UserError, command, number, script_parser
from landmark.formats import source_of
from landmark.outputs import whole_folder

BOX = 190  # pixels, sqrt(w * h) of a face's points in 300W_LP: photos of another size are scaled to it
MIN_BOX = 20  # pixels: smaller faces are not turned
FARTHEST = 35  # degrees: a face turned further in its photo has too much hidden
AHEAD = 4  # degrees: a face turned by more is turned only further that way, as its far cheek is hidden
TURN = 12, 90  # degrees: the least that is added to the photo's yaw, and the largest yaw of a variant
NOD = 5  # degrees, standard deviation
STEP, RIM = 3, 150  # pixels between vertices of the sheet; how far from the head, and beyond the photo, it is moved
# Depth of what is seen around the head (hair, back of the head, neck) at heights below the eyes; centimetres.
AROUND = [-10, -4, 8, 12], [1, -2, -2, 3]
SLOPE = 3.5  # centimetres beyond the outline at which that depth is reached
NEAR = 1  # centimetres from a landmark within which its depth counts
QUALITY = 92  # of the JPEGs
EDGE = 6  # neighbouring pixels that are this many pixels apart in the photo: the edge of something


def find_photos(folders):
    """The photos to turn: list of (set to write, face, Annotation).

    Raises UserError if the folders hold only turned variants: `_1`, `_2`, ... in the formats of 300W_LP.
    """
    annotations = sorted(find_annotations(folders), key=lambda annotation: annotation.name)
    photos = []
    for annotation, (_, face) in zip(annotations, identity_keys(annotations), strict=True):
        name = photo_name(annotation)
        group, _, stem = name.rpartition("/")
        if stem in (face, f"{face}_0"):
            photos.append((f"{group}_turned", face + annotation.name[len(name) :], annotation))
    if not photos:
        raise UserError(f"no photo to turn in {folders[0]}: by their names (<face>_1, _2, ...) all are turned variants")
    return photos


def read_photo(annotation):
    """Reads a photo; one that is not of SIZE x SIZE is scaled and cut to that around the face.

    Returns: (photo uint8 [SIZE, SIZE, 3], BGR; points [68, 2]; whether their jaw is on the visible outline).
    Raises UserError: it cannot be used; the message names the file.
    """
    photo, _, known = read_labels(annotation)
    points = known.get("pts_2d", known.get("pts_3d"))
    box = np.sqrt(np.ptp(points, axis=0).prod())
    if not box >= MIN_BOX:  # NaN if points are missing
        raise UserError(f"{source_of(annotation)}: the face is too small to turn, or not all of its points are there")
    if photo.shape[:2] != (SIZE, SIZE):
        zoom, middle = BOX / box, (points.min(0) + points.max(0)) / 2
        shift = SIZE / 2 - zoom * middle
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        photo = cv2.warpAffine(photo, matrix, (SIZE, SIZE), flags=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        points = points * zoom + shift
    return photo, points, "pts_2d" in known


def sheet(fit):
    """The photo as a sheet in space: (its vertices in the photo [N, 2], pixels; the same in the head's space [N, 3],
    centimetres; how much each follows the head [N], 0..1; triangles [T, 3])."""
    side = SIZE + 2 * RIM
    view = fit.places @ fit.turn.T
    pixels, depth = rasterize(fit.scale * view[:, :2] + fit.origin, view[:, 2:].astype(np.float32), prior()[2], 0)
    space = np.full(SIZE * SIZE, np.nan, np.float32)
    space[pixels] = depth[:, 0]
    space = cv2.copyMakeBorder(space.reshape(SIZE, SIZE), *[RIM] * 4, cv2.BORDER_CONSTANT, value=np.nan)
    empty = np.isnan(space).astype(np.uint8)
    away, label = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(label.max() + 1, np.float32)
    nearest[label[empty == 0]] = space[empty == 0]
    space = nearest[label]
    space = np.where(empty, cv2.GaussianBlur(space, (0, 0), 5), space)
    _, regions = cv2.connectedComponents(empty)
    outside = regions == regions[0, 0]  # and not in the mouth
    away *= outside
    # At a cheek's outline depth changes fast and differently from row to row: it is blended into its mean along there.
    weight = cv2.GaussianBlur(outside.astype(np.float32), (0, 0), 8)
    level = cv2.GaussianBlur(np.where(outside, space, 0), (0, 0), 8) / np.maximum(weight, 1e-6)
    edge = smoothstep(1 - cv2.distanceTransform((~outside).astype(np.uint8), cv2.DIST_L2, 5) / 8)
    edge *= smoothstep((7 - level) / 4)  # but not at the chin
    space = space + edge * (level - space)

    inside = np.arange(RIM, RIM + SIZE + 1, STEP)
    line = np.r_[0:RIM:15, inside, RIM + SIZE + 15 : side : 15, side - 1]
    x, y = (v.ravel() for v in np.meshgrid(line, line))
    place = np.stack([x, y], 1) - RIM
    away, space = away[y, x], space[y, x]
    follow = np.maximum(0, 1 - away / RIM)
    flat = (place - fit.origin) / fit.scale
    beyond = np.interp(flat @ fit.turn[:2, 1], *AROUND)
    space = space + smoothstep(away / fit.scale / SLOPE) * (beyond - space)
    # The sheet passes through the landmarks, whose depth is known where the outline's is not.
    marks = view[seen_places(fit.places, fit.turn)]
    apart = [((flat[:, None] - marks[:, :2]) ** 2).sum(-1), ((marks[:, None, :2] - marks[:, :2]) ** 2).sum(-1)]
    near = [np.exp(-distance / (2 * NEAR**2)) for distance in apart]
    middle = np.argmin(apart[0], 0)
    space = space + near[0] @ np.linalg.solve(near[1] + 0.1 * np.eye(68), marks[:, 2] - space[middle])
    return place, np.c_[flat, space] @ fit.turn, follow, grid_triangles(len(line), len(line))


def turn_photo(photo, fit, surface, turn):
    """The face of a photo, uint8 [SIZE, SIZE, 3], in another pose, [3, 3]; fit: see fit_head; surface: see sheet.

    Returns: (picture uint8 [SIZE, SIZE, 3]; pts_2d and pts_3d, [68, 2], pixels).
    """
    place, space, follow, triangles = surface
    moved = space @ turn.T
    xy = place + follow[:, None] * (fit.scale * moved[:, :2] + fit.origin - place)
    depth = follow * moved[:, 2] - 30 * (1 - follow)  # what does not follow is behind
    pixels, values = rasterize(xy, np.c_[depth, place].astype(np.float32), triangles, 0)
    where = np.zeros((SIZE, SIZE, 2), np.float32)
    where.reshape(-1, 2)[pixels] = values[:, 1:]
    picture = cv2.remap(photo, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    jump = cv2.morphologyEx(where, cv2.MORPH_GRADIENT, np.ones((3, 3))).max(-1) > EDGE
    picture[jump] = cv2.GaussianBlur(picture, (3, 3), 0)[jump]  # the z-buffer leaves jagged edges
    return picture, *see(fit, turn)


def choose_turns(rng, fit, variants):
    """Random poses [variants, 3, 3] for the head in a photo, from the least turned to the most, evenly over TURN.

    The camera moves up or down a little; the head turns about its own vertical axis, so that it stays on its neck.
    """
    now = head_yaw(fit.turn)
    first = abs(now) + TURN[0]
    turned = first + (np.arange(variants) + rng.random(variants)) / variants * (TURN[1] - first)
    way = np.sign(now) if abs(now) > AHEAD else rng.choice([-1, 1]) * (-1) ** np.arange(variants)
    starts = [rotation(nod, 0, 0) @ fit.turn for nod in np.deg2rad(NOD) * rng.normal(0, 1, variants).clip(-2, 2)]
    yaws = np.deg2rad(way * turned - [head_yaw(start) for start in starts])
    return [start @ rotation(0, yaw, 0) for start, yaw in zip(starts, yaws, strict=True)]


def turn_face(job):
    """Writes the variants of a photo; job: (folder, set, face, Annotation, variants, seed).

    Returns: True; None if the photo is turned too far; or a str, what is wrong with its files.
    """
    out, group, face, annotation, variants, seed = job
    try:
        photo, points, is_outline = read_photo(annotation)
    except UserError as error:
        return str(error)
    fit = fit_head(points, is_outline)
    if abs(head_yaw(fit.turn)) > FARTHEST:
        return None
    rng = np.random.default_rng([seed, *hashlib.md5(f"{group}/{face}".encode()).digest()])
    surface = sheet(fit)
    for k, turn in enumerate(choose_turns(rng, fit, variants), 1):
        pose = {"Pose_Para": [[*angles(turn), *fit.origin, 0, fit.scale]]}
        write_face(out, group, f"{face}_{k}", *turn_photo(photo, fit, surface, turn), pose, QUALITY)
    return True


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="photos; repeatable")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--variants", type=number(int, 1, 99), default=4, help="turned pictures of each photo (4)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="random seed (0)")
    args = parser.parse_args()
    print(f"turning the faces of {', '.join(map(str, args.data))}, on {CORES} CPU cores")
    with whole_folder(args.out) as partial:
        photos = find_photos(args.data)
        jobs = [(partial, *photo, args.variants, args.seed) for photo in photos]
        answers = run_workers(turn_face, jobs, "photo", [prior])
        far, wrong = answers.count(None), [answer for answer in answers if isinstance(answer, str)]
        for line in wrong:
            print(f"{line}; left out", file=sys.stderr)
        if not (faces := len(answers) - far - len(wrong)):
            raise UserError(f"none of {len(photos)} photos can be turned: {far} are turned too far already")
    print(f"{far} photos left out as they are turned over {FARTHEST} degrees, {len(wrong)} because of their files")
    print(f"{faces * args.variants} pictures of {faces} faces in {args.out}")
    options = "".join(f" --data {shlex.quote(str(folder))}" for folder in [*args.data, args.out])
    print(f"next: python prepare_tfrecords.py{options}")


if __name__ == "__main__":
    main()
