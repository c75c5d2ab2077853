"""Measures test_pb.py --detect on whole photos, turned: faces found, faces that nobody labelled, errors, time.

Usage:
    python bench/photos.py --data ~/300W_LP --data ~/AFLW2000 --data ~/dlib_faces      # all held-out photos: an hour
    python bench/photos.py --data ~/AFLW2000 --photos 20 --detector cascade

The photos are the held-out ones of each folder (of 300W_LP those that are not turned variants). Each is turned about
its middle, black around it. A face is found where the box of its points and the true one share 30% of their union.
NME is over that box, of the inner points, of the faces that are found both upright and turned. `others` are finds that
no label belongs to: people in the background, and what is no face.
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.annotations import find_annotations, split_faces  # noqa: E402
from landmark.detectors import load_detector  # noqa: E402
from landmark.cli import command  # noqa: E402
from landmark.files import read_picture  # noqa: E402
from landmark.inference import bounds, default_pb, detect_faces, load_graph, match_box, turn_picture  # noqa: E402
from landmark.formats import FORMATS, read_points  # noqa: E402
from landmark.points import crop_box, nme  # noqa: E402

ANGLES = 0, 30, 60, 90, 180


def find_photos(folder, most):
    """The held-out photos of a folder: list of (Path, true points float64 [N, 68, 2])."""
    photos = {}
    annotations = find_annotations([folder])
    for annotation, is_test in zip(annotations, split_faces(annotations), strict=True):
        if is_test and not (FORMATS[annotation.format].variants and not annotation.name.endswith("_0")):
            photos.setdefault(annotation.photo, []).append(next(iter(read_points(annotation).values())))
    return [(photo, np.array(points)) for photo, points in photos.items()][:most]


def find_turned(session, detector, photos, angle):
    """What is found on photos that are turned clockwise.

    Returns:
        (errors of each true face, NME over its box of the inner points, NaN where it is not found; number of others;
        seconds of each photo).
    """
    errors, others, seconds = [], 0, []
    for path, points in tqdm(photos, f"{angle}", unit="photo", disable=None, leave=False):
        picture, matrix = turn_picture(read_picture(path, stored=True)[0], -angle)
        began = time.perf_counter()
        faces = detect_faces(session, detector, picture)
        seconds.append(time.perf_counter() - began)
        back = cv2.invertAffineTransform(matrix)
        found = [face.points @ back[:, :2].T + back[:, 2] for face in faces]
        boxes, matched = [bounds(face) for face in found], set()
        for true in points:
            best = match_box(bounds(true), boxes)
            matched.add(best)
            errors.append(np.nan if best is None else nme(found[best][None], true[None], [crop_box(true)]).inner[0])
        others += len(faces) - len(matched - {None})
    return np.array(errors), others, np.array(seconds)


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="as of evaluate.py")
    parser.add_argument("--photos", type=int, metavar="N", help="of each folder at most (all)")
    parser.add_argument("--detector", metavar="NAME", help="as of test_pb.py")
    parser.add_argument("--any_angle", action="store_true", help="as of test_pb.py")
    args = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    detector = load_detector(args.detector, args.any_angle)
    sets = {folder: find_photos(folder, args.photos) for folder in args.data}
    print("| photos | faces | turned by | found | NME, found alike | upright | others a photo | ms a photo |")
    print("|---|---|---|---|---|---|---|---|")
    with tf.Session(graph=load_graph(default_pb())) as session:
        for folder, photos in sets.items():
            upright = None
            for angle in ANGLES:
                errors, others, seconds = find_turned(session, detector, photos, angle)
                upright = errors if upright is None else upright
                alike = np.isfinite(errors) & np.isfinite(upright)
                cells = folder.name, len(errors), angle, f"{np.isfinite(errors).mean():.1%}"
                cells += f"{errors[alike].mean():.2%}", f"{upright[alike].mean():.2%}", f"{others / len(photos):.3f}"
                print(f"| {' | '.join(map(str, cells))} | {1000 * np.median(seconds):.0f} |", flush=True)


if __name__ == "__main__":
    main()
