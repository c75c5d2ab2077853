"""Compares turned faces with the variants that 300W_LP's authors made: mean distance of their points over the box.

Usage:
    python bench/turned.py --data ~/300W_LP          # half a minute

The head that data/turn_faces.py fits to a photo is turned by the rotation between the photo and each variant. The
variants' pts_3d are parallel views of one rigid head, so they give this rotation exactly (Tomasi, Kanade, "Shape and
Motion from Image Streams under Orthography", IJCV 1992).
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("data", "")]
import head  # noqa: F401  # first: it sets how many threads NumPy takes

# isort: split

import numpy as np

from fit_head import fit_head, head_yaw, see
from landmark.annotations import find_annotations, identity_keys
from landmark.cli import CORES, UserError, command, script_parser
from landmark.formats import read_points
from landmark.points import JAW, LANDMARK_TYPES, LANDMARKS
from landmark.pose import YAW_BINS

MIN_VIEWS = 5  # of a face


def find_variants(folder):
    """The faces of a folder that have at least MIN_VIEWS variants with both types of landmarks.

    Faces that cannot be read are reported and left out.

    Returns: list of [K, 2, 68, 2]: pts_2d and pts_3d of the photo and of each variant, pixels.
    """
    faces = {}
    annotations = sorted(find_annotations([folder]), key=lambda annotation: annotation.name)
    for annotation, face in zip(annotations, identity_keys(annotations), strict=True):
        try:
            known = read_points(annotation)
        except UserError as error:
            print(f"{annotation.name}: {error}; left out", file=sys.stderr)
            continue
        if len(known) == len(LANDMARK_TYPES):
            views = faces.setdefault(face, [])
            views.insert(0 if annotation.name.endswith("_0") else len(views), [known[name] for name in LANDMARK_TYPES])
    return [np.array(views) for views in faces.values() if len(views) >= MIN_VIEWS]


def find_turns(points):
    """The rotations from the first view of a rigid head to each of its views.

    The views are a matrix of rank 3. Of its factorisations, the right one has the two axes of each view at right angles
    and of one length.

    points: [K, 68, 2], pixels.
    Returns: [K, 3, 3], in the space of data/head.py.
    """
    flat = (points - points.mean(1, keepdims=True)).transpose(0, 2, 1).reshape(-1, LANDMARKS)
    u, s, vt = np.linalg.svd(flat, full_matrices=False)
    axes, shape = (u[:, :3] * s[:3]).reshape(-1, 2, 3), vt[:3]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

    def products(a, b):  # of two axes under a symmetric metric, linear in its six numbers
        return np.stack([a[:, i] * b[:, j] + (i != j) * a[:, j] * b[:, i] for i, j in pairs], 1)

    x, y = axes[:, 0], axes[:, 1]
    numbers = np.linalg.svd(np.concatenate([products(x, x) - products(y, y), products(x, y)]))[2][-1]
    metric = np.zeros((3, 3))
    for (i, j), number in zip(pairs, numbers, strict=True):
        metric[i, j] = metric[j, i] = number
    root = np.linalg.cholesky(metric * np.sign(np.trace(metric)))
    x, y = ((axes @ root)[:, k] for k in (0, 1))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    views = np.stack([x, y, np.cross(x, y)], 1)
    depth = views[0, 2] @ np.linalg.solve(root, shape)
    turns = views @ views[0].T
    if depth[30] < depth[[36, 45]].mean():  # the nose must be in front of the eyes
        turns = turns * np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    return turns


def compare(views):
    """How far our points of each variant of a face are from the authors', after aligning the means of the inner points.

    views: [K, 2, 68, 2], see find_variants.
    Returns: list of (yaw, degrees; [2, 68], distances over the box, of pts_2d and pts_3d).
    """
    fit = fit_head(views[0, 0])
    answers = []
    for true, turn in zip(views[1:], find_turns(views[:, 1])[1:], strict=True):
        ours = np.array(see(fit, turn @ fit.turn))
        shift = (ours - true)[1, 17:].mean(0)  # the authors turn the head about another point
        box = np.sqrt(np.ptp(true[0], axis=0).prod())
        answers.append((abs(head_yaw(turn @ fit.turn)), np.linalg.norm(ours - shift - true, axis=-1) / box))
    return answers


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="300W_LP, with IBUG in it")
    args = parser.parse_args()
    print(f"turning the faces of {args.data}, on {CORES} CPU cores")
    faces = find_variants(args.data)
    if not faces:
        raise UserError(
            f"no face in {args.data} has {MIN_VIEWS} variants with pts_2d and pts_3d: give 300W_LP with IBUG"
        )
    answers = [answer for views in faces for answer in compare(views)]
    yaws, distances = (np.array(column) for column in zip(*answers, strict=True))
    print(f"{len(answers)} variants of {len(faces)} faces; mean distance over the face's box\n")
    print("| yaw, degrees | variants | inner points | jaw, pts_2d | jaw, pts_3d |\n|---|---|---|---|---|")
    jaw = np.isin(np.arange(LANDMARKS), JAW)
    for low, high in YAW_BINS:
        these = (yaws >= low) & ((yaws < high) | (high == 90))
        if these.any():
            parts = distances[these][:, 1, ~jaw], distances[these][:, 0, jaw], distances[these][:, 1, jaw]
            print(f"| {low}-{high} | {these.sum()} | " + " | ".join(f"{part.mean():.2%}" for part in parts) + " |")


if __name__ == "__main__":
    main()
