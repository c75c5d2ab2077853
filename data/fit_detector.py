"""Fits where the crop (contract 2) lies in the boxes of a face detector, for the constants of landmark/detectors.py.

Usage:
    python data/fit_detector.py                               # data/300W_LP, the detector of test_pb.py
    python data/fit_detector.py --data ~/300W_LP --detector cascade

Fits on the training faces alone and prints how far the boxes are from the true crops on the test faces, before and
after. Each of the four numbers is a median over faces of where that side of the crop lies in the box: the number with
the least mean absolute error.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.cli import command, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse

import numpy as np
from tqdm import tqdm

from landmark.annotations import REAL_SET, find_annotations, split_faces
from landmark.detectors import CASCADE, load_detector
from landmark.files import read_picture
from landmark.inference import match_box, overlap
from landmark.formats import read_points
from landmark.points import crop_box, to_crop, to_photo


def match_faces(detector, annotations):
    """The detector's box on each face's photo that overlaps the true crop best.

    Args:
        detector: of detectors.load_detector.
        annotations: list of Annotation.

    Returns:
        (number of the face in annotations int [M], box of the detector, true crop: float64 [M, 2, 2], corners x y) of
        the faces it finds; a file that cannot be used is reported and left out.
    """
    rows = []
    for i, annotation in enumerate(tqdm(annotations, unit="face", disable=None)):
        try:
            crop = crop_box(next(iter(read_points(annotation).values())))
            boxes = detector.find(read_picture(annotation.photo, stored=True)[0])
        except ValueError as error:
            print(f"{annotation.name}: {error}; left out", file=sys.stderr)
            continue
        best = match_box(crop, boxes)
        if best is not None:
            rows.append((i, boxes[best], crop))
    if not rows:
        raise UserError("the detector finds none of the faces")
    numbers, boxes, crops = zip(*rows, strict=True)
    return np.array(numbers), np.array(boxes, float), np.array(crops, float)


def print_errors(name, boxes, crops):
    """Prints how far boxes are from true crops, float64 [M, 4] each: each side, as a share of the crop's side."""
    errors = np.abs(boxes - crops) / np.tile(crops[:, 2:] - crops[:, :2], 2)
    shared = [overlap(box, crop) for box, crop in zip(boxes, crops, strict=True)]
    sides = " ".join(f"{100 * side:7.1f}" for side in (*errors.mean(0), errors.mean()))
    percentiles = " ".join(f"{100 * side:7.1f}" for side in np.percentile(errors, [50, 90, 99]))
    print(f"{name:8}{sides} {percentiles} {np.mean(shared):9.3f} {np.percentile(shared, 10):9.3f}")


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL_SET, metavar="DIR", help=f"({REAL_SET})")
    parser.add_argument("--detector", metavar="NAME", help="as of test_pb.py")
    args = parser.parse_args()
    annotations = find_annotations([args.data])
    is_test = np.array(split_faces(annotations))
    numbers, boxes, crops = match_faces(load_detector(args.detector), annotations)
    tested = is_test[numbers]
    share = to_crop(crops.reshape(-1, 2, 2), boxes)
    corners = np.median(share[~tested], axis=0)
    for name, chosen in ("train", ~is_test), ("test", is_test):
        print(f"{name}: {np.isin(np.flatnonzero(chosen), numbers).mean():.1%} of {chosen.sum()} faces found")
    print("the test faces' errors, % of the crop's side:")
    print("           left     top   right  bottom     all  median     90%     99%  IoU mean   IoU 10%")
    print_errors("before", boxes[tested], crops[tested])
    print_errors("after", to_photo(corners, boxes[tested]).reshape(-1, 4), crops[tested])
    name = {None: "RETINAFACE_CROP", CASCADE: "HAAR_CROP"}.get(args.detector, "YUNET_CROP")
    print(f"landmark/detectors.py: {name} = np.array({corners.round(3).tolist()})")


if __name__ == "__main__":
    main()
