"""Fits the score of a face, for the constants in landmark/inference.py: to be run again for another landmark.pb.

Usage:
    python data/fit_score.py --data ~/300W_LP --data ~/AFLW2000

On held-out faces, and on as many boxes of the same sizes elsewhere in their photos, it measures how far points follow
their crop, as inference.find_upright does. The score is a logistic function of the logarithm of that.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from landmark.annotations import find_annotations, read_usable, split_faces
from landmark.cli import CORES, UserError, command, script_parser
from landmark.inference import NUDGE, box_corners, default_model, find_upright
from landmark.points import overlap
from landmark.runtimes import loader_for

TRIES = 20  # boxes drawn in a photo until one is off its face


def measure(predict, annotations):
    """How far points follow their crop, as a share of its move.

    Photos that cannot be read are reported and left out.
    predict: function of crops that returns points, see landmark/runtimes.py.
    Returns: (list of float, of the faces; list of float, of other boxes in their photos).
    """
    faces, others = [], []
    rng = np.random.default_rng(0)
    for _, picture, _, crop in read_usable(tqdm(annotations, unit="face", disable=None)):
        box = np.array(crop, float)
        sides = box[2:] - box[:2]
        corners = rng.uniform(-sides / 2, picture.shape[1::-1] - sides / 2, [TRIES, 2])
        beside = next((corner for corner in corners if not overlap(box, [*corner, *(corner + sides)])), None)
        for found, low in (faces, box[:2]), (others, beside):
            face = low is not None and find_upright(predict, picture, box_corners([*low, *(low + sides)]))
            if face:
                found.append(face.spread.mean() / np.linalg.norm(2 * NUDGE * (face.box[2] - face.box[0])))
    return faces, others


def fit(faces, others):
    """The score by Platt's logistic regression ("Probabilistic Outputs for Support Vector Machines", 1999) on the
    logarithm of how far points follow; faces and others have the same total weight, however many there are of either.

    faces, others: see measure.
    Returns: (SCORE_MIDPOINT, STEEPNESS).
    Raises UserError: faces do not move less than the others, or one of them is missing.
    """
    if not (len(faces) and len(others)):
        raise UserError(f"{len(faces)} faces, {len(others)} boxes beside faces: --data needs photos with room for both")
    moved, counts = np.log([*faces, *others]), np.array([len(faces), len(others)])
    # Platt's targets, a little short of 0 and 1, keep the steepness finite when the two are perfectly separable.
    targets, weights = np.repeat([[1, 0] + [-1, 1] / (counts + 2), 1 / counts], counts, axis=1)

    def loss(line):
        scores = line[0] + line[1] * moved
        return weights @ (np.logaddexp(0, scores) - targets * scores)

    level, slope = minimize(loss, [0, 0]).x
    if slope >= 0:
        raise UserError("this landmark.pb does not tell faces from other boxes: train it further")
    return np.exp(-level / slope), -slope


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="photos; repeatable")
    parser.add_argument("--pb", type=Path, metavar="FILE", help="see test_pb.py")
    args = parser.parse_args()
    model = args.pb or default_model()
    print(f"fitting the score of faces for {model}, on {CORES} CPU cores")
    predict = loader_for(model)(model)
    chosen = []
    for folder in args.data:
        annotations = find_annotations([folder])
        chosen += [face for face, test in zip(annotations, split_faces(annotations), strict=True) if test]
    faces, others = map(np.array, measure(predict, chosen))
    middle, steepness = fit(faces, others)
    rows = ("faces", faces, faces < middle, [50, 95, 99]), ("others", others, others > middle, [50, 5, 1])
    for name, moved, right, percentiles in rows:
        shares = ", ".join(f"{share:.2f}" for share in np.percentile(moved, percentiles))
        print(f"{len(moved)} {name}, {right.mean():.1%} on the right side of 0.5; percentiles {percentiles} of how far "
              f"points follow: {shares}")  # fmt: skip
    print(f"landmark/inference.py: SCORE_MIDPOINT, STEEPNESS = {middle:.2f}, {steepness:.1f}")
    print("then: python examples/web/constants.py")


if __name__ == "__main__":
    main()
