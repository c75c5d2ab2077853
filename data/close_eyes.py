"""Labels photos of faces whose eyes are closed, for prepare_tfrecords.py.

Usage:
    python data/close_eyes.py --data ~/closed_eyes --out ~/closed
    python prepare_tfrecords.py --data ~/photos --data ~/closed --out mine

Knowing that the eyes are closed is label enough: the model finds the points of the largest face of each photo, and the
upper lids are put on the lower ones, which it finds well even where it draws open eyes. OUT holds copies of the photos,
and points.csv: correct or delete rows whose points are wrong. The same photos and model give the same files.
"""

import csv
import shlex
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from landmark.cli import UserError, command, number, script_parser
from landmark.formats import POINT_COLUMNS, Folder
from landmark.inference import default_model, load_model
from landmark.outputs import whole_folder
from landmark.pictures import is_text, read_picture
from landmark.points import OPENINGS

MIN_SIDE = 40  # pixels, width of a face's crop
SPREAD = 0.02  # of that width: how far apart two crops may put its points on average


def close_eyes(find_faces, picture, most):
    """The largest Face of a picture, lids shut. Raises UserError: it is too small, or its spread is above `most`."""
    found = [(np.linalg.norm(face.box[1] - face.box[0]), face) for face in find_faces(picture)]
    side, face = max(found, key=lambda row: row[0], default=(0, None))
    if side < MIN_SIDE:
        raise UserError(f"the face is {side:.0f} pixels wide, fewer than {MIN_SIDE}" if face else "no face found")
    if (spread := face.spread.mean() / side) > most:
        raise UserError(f"the points are uncertain: their spread is {spread:.1%} of the face's width")
    for eye in "eye_open_right", "eye_open_left":
        (upper, lower), _ = OPENINGS[eye]
        face.points[upper] = face.points[lower]
    return face


@command
def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="photos of faces with closed eyes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--pb", metavar="FILE", help="the model (landmark.pb, else that in models/)")
    parser.add_argument("--spread", type=number(float, 0), default=SPREAD, help=f"largest spread, per width ({SPREAD})")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise UserError(f"no folder {args.data}")
    photos = [path for path in Folder(args.data).files if not is_text(path)]
    with whole_folder(args.out) as partial:
        find_faces, rows = load_model(args.pb or default_model()), []
        for path in tqdm(photos, unit="photo", disable=None):
            try:
                picture, content = read_picture(path)
                face = close_eyes(find_faces, picture, args.spread)
            except UserError as error:
                tqdm.write(f"{path}: {error}; left out", file=sys.stderr)
                continue
            name = path.relative_to(args.data)
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
            rows.append([name, *(f"{x:.2f}" for x in (*face.points.ravel(), face.score)), *picture.shape[1::-1]])
        if not rows:
            raise UserError(f"none of {len(photos)} pictures in {args.data} has a face that can be used")
        with (partial / "points.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as table:
            csv.writer(table).writerows([["picture", *POINT_COLUMNS, "score", "width", "height"], *rows])
    print(f"{len(rows)} of {len(photos)} faces in {args.out}, {len(photos) - len(rows)} left out")
    print(f"next: python prepare_tfrecords.py --data {shlex.quote(str(args.out))}")


if __name__ == "__main__":
    main()
