"""Labels photos of faces whose eyes are closed, for prepare_tfrecords.py.

Usage:
    python data/close_eyes.py --data ~/closed_eyes --out ~/closed
    python prepare_tfrecords.py --data ~/photos --data ~/closed --out mine

That the eyes are closed is a label: the model finds the points of the largest face of each photo, and the upper lid is
put on the lower one, which it finds well even where it draws an open eye. OUT holds copies of the photos and
points.csv; edit it, or delete rows, where points are wrong. Faces whose points are not sure (--spread) are left out.
The same photos and model give the same files, byte for byte.
"""

import argparse
import csv
import shlex
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from landmark.cli import command
from landmark.errors import UserError
from landmark.formats import POINT_COLUMNS, Folder
from landmark.inference import default_model, load_model
from landmark.outputs import whole_folder
from landmark.pictures import read_picture
from landmark.points import OPENINGS

SPREAD = 0.02  # of a face's width: how far apart two crops may put its points on average
MIN_SIDE = 40  # pixels, width of a face's crop


def close_eyes(find_faces, path, spread):
    """The points of the largest face of a photo, its lids shut: (float64 [68, 2], Face, (width, height)).

    Raises UserError: the file is no picture, or it has no face that is large and sure enough.
    """
    picture, _ = read_picture(path)
    sized = [(np.linalg.norm(face.box[1] - face.box[0]), face) for face in find_faces(picture)]
    if not sized:
        raise UserError("no face found")
    side, face = max(sized, key=lambda row: row[0])
    if side < MIN_SIDE:
        raise UserError(f"the face is {side:.0f} pixels wide, fewer than {MIN_SIDE}")
    if (moved := face.spread.mean() / side) > spread:
        raise UserError(f"the points are not sure: their spread is {moved:.1%} of the face's width")
    points = face.points.copy()
    for eye in "eye_open_right", "eye_open_left":
        upper, lower, *_ = OPENINGS[eye]
        points[upper] = points[lower]
    return points, face, picture.shape[1::-1]


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="photos of faces with closed eyes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--pb", metavar="FILE", help="as of test_pb.py (landmark.pb, else that in models/)")
    parser.add_argument("--spread", type=float, default=SPREAD, help=f"at most, of the face's width ({SPREAD})")
    args = parser.parse_args()
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        raise UserError(f"{args.out} exists: name a new folder with --out")
    photos = [path for path in Folder(args.data).files if cv2.haveImageReader(str(path))]
    if not photos:
        raise UserError(f"no picture in {args.data}")
    find_faces, rows = load_model(args.pb or default_model()), []
    with whole_folder(args.out) as partial:
        for path in tqdm(photos, unit="photo", disable=None):
            try:
                points, face, size = close_eyes(find_faces, path, args.spread)
            except UserError as error:
                tqdm.write(f"{path}: {error}; left out", file=sys.stderr)
                continue
            name = path.relative_to(args.data)
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial / name)
            rows.append([name, *(f"{number:.2f}" for number in points.ravel()), f"{face.score:.2f}", *size])
        if not rows:
            raise UserError(f"none of {len(photos)} photos has a face that can be used")
        with (partial / "points.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as table:
            csv.writer(table).writerows([["picture", *POINT_COLUMNS, "score", "width", "height"], *rows])
    print(f"{len(rows)} of {len(photos)} faces in {args.out}, {len(photos) - len(rows)} left out")
    print(f"next: python prepare_tfrecords.py --data {shlex.quote(str(args.out))}")


if __name__ == "__main__":
    main()
