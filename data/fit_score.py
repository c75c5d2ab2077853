"""Fits the score of a face, for the constants of landmark.inference.py: to be run again for another landmark.pb.

Usage:
    python data/fit_score.py --data ~/300W_LP --data ~/AFLW2000

On held-out faces, and on as many boxes of the same sizes elsewhere in their photos, it measures how far points follow
their crop, as find.look does. The score is a logistic function of its logarithm.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.cli import command, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse

import numpy as np
import tensorflow.compat.v1 as tf
from scipy.optimize import minimize
from tqdm import tqdm

from landmark.annotations import find_annotations, split_faces
from landmark.files import read_picture
from landmark.inference import NUDGE, default_pb, load_graph, look, overlap
from landmark.formats import read_points
from landmark.points import box_corners, crop_box

TRIES = 20  # boxes until one is off every face


def measure(session, annotations):
    """How far points follow their crop, as shares of its way: lists of faces, and of what is none."""
    faces, others = [], []
    rng = np.random.default_rng(0)
    for annotation in tqdm(annotations, unit="face", disable=None):
        picture, _ = read_picture(annotation.photo, stored=True)
        box = np.array(crop_box(next(iter(read_points(annotation).values()))), float)
        sides = box[2:] - box[:2]
        corner = next(
            (
                corner
                for corner in rng.uniform(-sides / 2, picture.shape[1::-1] - sides / 2, [TRIES, 2])
                if not overlap(box, [*corner, *(corner + sides)])
            ),
            None,
        )
        for found, low in (faces, box[:2]), (others, corner):
            face = low is not None and look(session, picture, box_corners([*low, *(low + sides)]))
            if face:
                found.append(face.spread.mean() / np.linalg.norm(2 * NUDGE * (face.box[2] - face.box[0])))
    return faces, others


def fit(faces, others):
    """The score by Platt's logistic regression ("Probabilistic Outputs for Support Vector Machines", 1999) on the
    logarithm of how far points follow; faces and others count alike, however many there are of either.

    Args:
        faces, others: of measure.

    Returns:
        (NO_FACE, STEEPNESS).

    Raises:
        UserError: faces do not move less than the others, or there is nothing to fit.
    """
    if not faces or not others:
        raise UserError(
            f"{len(faces)} faces and {len(others)} boxes beside faces: --data needs photos with room for both"
        )
    moved, counts = np.log([*faces, *others]), np.array([len(faces), len(others)])
    # His targets, a little less than sure, keep the steepness finite where one number parts all.
    targets, weights = np.repeat([[1, 0] + [-1, 1] / (counts + 2), 1 / counts], counts, axis=1)

    def loss(line):
        scores = line[0] + line[1] * moved
        return weights @ (np.logaddexp(0, scores) - targets * scores)

    level, slope = minimize(loss, [0, 0]).x
    if slope >= 0:
        raise UserError("this landmark.pb does not tell faces from what is none: train it further")
    return np.exp(-level / slope), -slope


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="as of evaluate.py")
    parser.add_argument("--pb", type=Path, metavar="FILE", help="as of evaluate.py")
    args = parser.parse_args()
    chosen = []
    for folder in args.data:
        annotations = find_annotations([folder])
        chosen += [face for face, test in zip(annotations, split_faces(annotations), strict=True) if test]
    tf.logging.set_verbosity(tf.logging.ERROR)
    with tf.Session(graph=load_graph(args.pb or default_pb())) as session:
        faces, others = measure(session, chosen)
    middle, steepness = fit(faces, others)
    for name, moved, right, percentiles in (
        ("faces", faces, np.array(faces) < middle, [50, 95, 99]),
        ("others", others, np.array(others) > middle, [50, 5, 1]),
    ):
        shares = ", ".join(f"{share:.2f}" for share in np.percentile(moved, percentiles))
        print(
            f"{len(moved)} {name}, on the right side of 0.5: {right.mean():.1%}; {percentiles}% move less than {shares}"
        )
    print(f"landmark.inference.py: NO_FACE, STEEPNESS = {middle:.2f}, {steepness:.1f}; examples/web/landmarks.js: NO_FACE")


if __name__ == "__main__":
    main()
