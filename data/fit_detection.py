"""Fits how faces are found: where the crop lies in a detector's boxes, and the score of a face.

Usage:
    python data/fit_detection.py --data ~/300W_LP                             # RetinaFace, and the landmark.pb in use
    python data/fit_detection.py --data ~/300W_LP --detector face_detection_yunet_2023mar.onnx
    python data/fit_detection.py --data ~/300W_LP --data ~/AFLW2000 --pb mine.pb

Prints the lines to put into landmark/detectors.py and landmark/inference.py. Each of the crop's four numbers is the
median over the training faces of where that side lies in the box, which has the least mean absolute error; how far the
boxes are from the true crops before and after is printed for the test faces. The score is a logistic function of the
logarithm of how far points follow their crop, on the test faces and on as many boxes beside them, of the same sizes.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import numpy as np
from scipy.optimize import minimize
from tqdm import tqdm

from landmark.annotations import find_annotations, read_usable, split_faces
from landmark.cli import CORES, UserError, command, script_parser
from landmark.detectors import load_detector
from landmark.inference import NUDGE, box_corners, default_model, find_upright
from landmark.points import match_box, overlap, to_crop, to_photo
from landmark.runtimes import loader_for

TRIES = 20  # boxes drawn in a photo until one is off its face


def print_errors(name, boxes, crops):
    """Prints how far boxes are from true crops, float64 [M, 4] each: each side, as a share of the crop's side."""
    errors = np.abs(boxes - crops) / np.tile(crops[:, 2:] - crops[:, :2], 2)
    shared = [overlap(box, crop) for box, crop in zip(boxes, crops, strict=True)]
    sides = " ".join(f"{100 * side:7.1f}" for side in (*errors.mean(0), errors.mean()))
    percentiles = " ".join(f"{100 * side:7.1f}" for side in np.percentile(errors, [50, 90, 99]))
    print(f"{name:8}{sides} {percentiles} {np.mean(shared):9.3f} {np.percentile(shared, 10):9.3f}")


def draw_beside(rng, picture, crop):
    """A box as large as a face's crop and off it, float64 [4], at random in its picture; None if there is no room."""
    sides = crop[2:] - crop[:2]
    corners = rng.uniform(-sides / 2, picture.shape[1::-1] - sides / 2, [TRIES, 2])
    boxes = np.c_[corners, corners + sides]
    return next((box for box in boxes if not overlap(crop, box)), None)


def fit_score(faces, others):
    """The score by Platt scaling ("Probabilistic Outputs for Support Vector Machines", 1999) on the
    logarithm of how far points follow; faces and others have the same total weight, however many there are of either.

    faces, others: lists of float, how far points follow their crop, as a share of its move: on faces and beside them.
    Returns: (SCORE_MIDPOINT, STEEPNESS).
    Raises UserError: points do not follow less on faces than beside them, or a list is empty.
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
    parser.add_argument("--detector", metavar="FILE", help="see test_pb.py")
    parser.add_argument("--pb", type=Path, metavar="FILE", help="see test_pb.py")
    args = parser.parse_args()
    model, detector = args.pb or default_model(), load_detector(args.detector)
    print(f"fitting crops in {args.detector or 'RetinaFace'}'s boxes and the score for {model}, on {CORES} CPU cores")
    predict, folders = loader_for(model)(model), [find_annotations([folder]) for folder in args.data]
    is_test = np.concatenate([split_faces(annotations) for annotations in folders])
    rng, rows, faces, others = np.random.default_rng(0), [], [], []
    for i, photo, _, crop in read_usable(tqdm(sum(folders, []), unit="face", disable=None)):
        crop, boxes = np.array(crop, float), detector.find(photo)
        if (best := match_box(crop, boxes)) is not None:
            rows.append((i, boxes[best], crop))
        for moved, box in ((faces, crop), (others, draw_beside(rng, photo, crop))) if is_test[i] else ():
            if box is not None and (face := find_upright(predict, photo, box_corners(box))):
                moved.append(face.spread.mean() / np.linalg.norm(2 * NUDGE * (face.box[2] - face.box[0])))
    if not rows:
        raise UserError(f"the detector finds none of {len(is_test)} faces")
    numbers, boxes, crops = map(np.array, zip(*rows, strict=True))
    tested = is_test[numbers]
    corners = np.median(to_crop(crops.reshape(-1, 2, 2), boxes)[~tested], axis=0)
    for name, chosen in ("train", ~is_test), ("test", is_test):
        print(f"{name}: {np.isin(np.flatnonzero(chosen), numbers).mean():.1%} of {chosen.sum()} faces found")
    print("the test faces' errors, % of the crop's side:")
    print("           left     top   right  bottom     all  median     90%     99%  IoU mean   IoU 10%")
    print_errors("before", boxes[tested], crops[tested])
    print_errors("after", to_photo(corners, boxes[tested]).reshape(-1, 4), crops[tested])
    name = "YUNET_CROP" if args.detector else "RETINAFACE_CROP"
    print(f"landmark/detectors.py: {name} = np.array({corners.round(3).tolist()})")
    middle, steepness = fit_score(faces, others)
    rows = ("faces", faces, np.less, [50, 95, 99]), ("others", others, np.greater, [50, 5, 1])
    for name, moved, right, percentiles in rows:
        shares = ", ".join(f"{share:.2f}" for share in np.percentile(moved, percentiles))
        print(f"{len(moved)} {name}, {right(moved, middle).mean():.1%} on the right side of 0.5; percentiles "
              f"{percentiles} of how far points follow: {shares}")  # fmt: skip
    print(f"landmark/inference.py: SCORE_MIDPOINT, STEEPNESS = {middle:.2f}, {steepness:.1f}")
    print("then: python examples/web/constants.py")


if __name__ == "__main__":
    main()
