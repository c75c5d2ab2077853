"""Measures test_pb.py --detect on whole photos that are turned: faces found, unlabelled detections, errors, time.

Usage:
    python bench/photos.py --data ~/300W_LP --data ~/AFLW2000 --data ~/dlib_faces      # all held-out photos: an hour
    python bench/photos.py --data ~/AFLW2000 --photos 20 --any_angle

The photos are the held-out ones of each folder, without the turned variants of 300W_LP. Each is turned about its
middle, black around it. A face is found if the box of its points and the true one share 30% of their union. NME is over
that box, of the inner points, of the faces that are found both upright and turned. `others` are detections that
match no label: people in the background, and false positives.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.startup import describe_device  # first: TensorFlow reads its settings as it is imported

# isort: split

import time

import cv2
import numpy as np
from tqdm import tqdm

from landmark.annotations import find_annotations, find_crop, read_labels, read_usable, split_faces
from landmark.cli import UserError, command, script_parser
from landmark.detectors import load_detector
from landmark.formats import FORMATS
from landmark.inference import FaceFinder, default_model, turn_picture
from landmark.measures import nme
from landmark.points import bounds, match_box
from landmark.runtimes import load_session

ANGLES = 0, 30, 60, 90, 180


def find_photos(folder, most):
    """The held-out photos of a folder, `most` at most: list of (Annotation, true points of all faces, [N, 68, 2]).

    Faces that cannot be read are reported and left out. Raises UserError if no photo remains.
    """
    photos = {}
    annotations = find_annotations([folder])
    held_out = [
        annotation
        for annotation, is_test in zip(annotations, split_faces(annotations), strict=True)
        if is_test and not (FORMATS[annotation.format].variants and not annotation.name.endswith("_0"))
    ]
    for i, _, points, _ in read_usable(held_out):
        photos.setdefault(held_out[i].photo, (held_out[i], []))[1].append(points)
    if not photos:
        raise UserError(f"no held-out photo in {folder} can be used")
    return [(annotation, np.array(points)) for annotation, points in photos.values()][:most]


def find_turned(find_faces, photos, angle):
    """Finds the faces in photos (see find_photos) that are turned clockwise by `angle` degrees, with a FaceFinder.

    Returns: (error of each true face, NME over its box of the inner points, NaN if it is not found; number of
        unlabelled detections; seconds of each photo).
    """
    errors, others, seconds = [], 0, []
    for annotation, points in tqdm(photos, f"{angle}", unit="photo", disable=None, leave=False):
        picture, matrix = turn_picture(read_labels(annotation)[0], -angle)
        began = time.perf_counter()
        faces = find_faces(picture)
        seconds.append(time.perf_counter() - began)
        back = cv2.invertAffineTransform(matrix)
        found = [face.points @ back[:, :2].T + back[:, 2] for face in faces]
        boxes, matched = [bounds(face) for face in found], set()
        for true in points:
            best = match_box(bounds(true), boxes)
            matched.add(best)
            errors.append(np.nan if best is None else nme(found[best][None], true[None], [find_crop(true)]).inner[0])
        others += len(faces) - len(matched - {None})
    return np.array(errors), others, np.array(seconds)


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="may be given several times"
    )
    parser.add_argument("--photos", type=int, metavar="N", help="of each folder at most (all)")
    parser.add_argument("--detector", metavar="FILE", help="see test_pb.py")
    parser.add_argument("--any_angle", action="store_true", help="see test_pb.py")
    args = parser.parse_args()
    model = default_model()
    print(f"finding faces with {model}, on {describe_device()}")
    find_faces = FaceFinder(load_session(model), load_detector(args.detector), args.any_angle)
    sets = {folder: find_photos(folder, args.photos) for folder in args.data}
    print("| photos | faces | turned by | found | NME, found both ways | upright | others a photo | ms a photo |")
    print("|---|---|---|---|---|---|---|---|")
    for folder, photos in sets.items():
        upright = None
        for angle in ANGLES:
            errors, others, seconds = find_turned(find_faces, photos, angle)
            upright = errors if upright is None else upright
            both = np.isfinite(errors) & np.isfinite(upright)
            nmes = [f"{some[both].mean():.2%}" if both.any() else "" for some in (errors, upright)]
            cells = folder.name, len(errors), angle, f"{np.isfinite(errors).mean():.1%}", *nmes
            cells += f"{others / len(photos):.3f}", f"{1000 * np.median(seconds):.0f}"
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
