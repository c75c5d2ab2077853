"""Fits where the face crop lies in the boxes of a face detector, for the constants in landmark/detectors.py.

Usage:
    python data/fit_detector.py                               # data/300W_LP, RetinaFace
    python data/fit_detector.py --data ~/300W_LP --detector face_detection_yunet_2023mar.onnx

Fits on the training faces, and prints how far the boxes are from the true crops of the test faces before and after.
Each of the four numbers is the median over faces of where that side of the crop lies in the box, which has the least
mean absolute error.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import numpy as np
from tqdm import tqdm

from landmark.annotations import REAL_SET, find_annotations, read_usable, split_faces
from landmark.cli import CORES, UserError, command, script_parser
from landmark.detectors import load_detector
from landmark.points import match_box, overlap, to_crop, to_photo


def print_errors(name, boxes, crops):
    """Prints how far boxes are from true crops, float64 [M, 4] each: each side, as a share of the crop's side."""
    errors = np.abs(boxes - crops) / np.tile(crops[:, 2:] - crops[:, :2], 2)
    shared = [overlap(box, crop) for box, crop in zip(boxes, crops, strict=True)]
    sides = " ".join(f"{100 * side:7.1f}" for side in (*errors.mean(0), errors.mean()))
    percentiles = " ".join(f"{100 * side:7.1f}" for side in np.percentile(errors, [50, 90, 99]))
    print(f"{name:8}{sides} {percentiles} {np.mean(shared):9.3f} {np.percentile(shared, 10):9.3f}")


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, default=REAL_SET, metavar="DIR", help=f"({REAL_SET})")
    parser.add_argument("--detector", metavar="FILE", help="see test_pb.py")
    args = parser.parse_args()
    print(f"fitting the crop in the boxes of {args.detector or 'RetinaFace'}, on {CORES} CPU cores")
    annotations = find_annotations([args.data])
    is_test = np.array(split_faces(annotations))
    detector, rows = load_detector(args.detector), []
    for i, photo, _, crop in read_usable(tqdm(annotations, unit="face", disable=None)):
        boxes = detector.find(photo)
        if (best := match_box(crop, boxes)) is not None:
            rows.append((i, boxes[best], crop))
    if not rows:
        raise UserError(f"the detector finds none of {len(annotations)} faces")
    numbers, boxes, crops = map(np.array, zip(*rows, strict=True))
    tested = is_test[numbers]
    share = to_crop(crops.reshape(-1, 2, 2), boxes)
    corners = np.median(share[~tested], axis=0)
    for name, chosen in ("train", ~is_test), ("test", is_test):
        print(f"{name}: {np.isin(np.flatnonzero(chosen), numbers).mean():.1%} of {chosen.sum()} faces found")
    print("the test faces' errors, % of the crop's side:")
    print("           left     top   right  bottom     all  median     90%     99%  IoU mean   IoU 10%")
    print_errors("before", boxes[tested], crops[tested])
    print_errors("after", to_photo(corners, boxes[tested]).reshape(-1, 4), crops[tested])
    name = "YUNET_CROP" if args.detector else "RETINAFACE_CROP"
    print(f"landmark/detectors.py: {name} = np.array({corners.round(3).tolist()})")


if __name__ == "__main__":
    main()
