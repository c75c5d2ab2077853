"""Fits the score of a face, for the constants of landmark/find.py: to be run again for another landmark.pb.

Usage:
    python data/fit_score.py --data ~/300W_LP --data ~/AFLW2000

On held-out faces, and on as many boxes of the same sizes elsewhere in their photos, it measures how far points follow
their crop, as find.look does. The score is a logistic function of its logarithm.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.ending import leave_at_once, one_line

if __name__ == "__main__":
    leave_at_once()  # on Ctrl-C, while the imports load

import argparse

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from landmark.annotations import find_annotations, split_faces
from landmark.files import read_picture
from landmark.find import NUDGE, default_pb, load_graph, look, overlap
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
    """(NO_FACE, STEEPNESS) of the score that is 0.9 where all but 1% of faces move less, and 0.1 where all but 1% of
    the others move more.

    Raises:
        ValueError: there is no such score, or nothing to fit.
    """
    if not faces or not others:
        raise ValueError(
            f"{len(faces)} faces and {len(others)} boxes beside faces: --data needs photos with room for both"
        )
    near, far = np.percentile(faces, 99), np.percentile(others, 1)
    if near >= far:
        raise ValueError(
            f"this landmark.pb does not tell faces, {near:.2f}, from what is none, {far:.2f}: train it further"
        )
    return np.sqrt(near * far), 2 * np.log(9) / np.log(far / near)


@one_line
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
    print(f"landmark/find.py: NO_FACE, STEEPNESS = {middle:.2f}, {steepness:.1f}")


if __name__ == "__main__":
    main()
