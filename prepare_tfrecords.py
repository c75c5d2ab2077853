"""Crops each annotated face around its landmarks into 128x128 records.

Usage:
    python prepare_tfrecords.py                                     # data/300W_LP, or the sample, into data/
    python prepare_tfrecords.py --data ~/300W_LP --data ~/more      # several sets, merged, each in a format of its own
    python prepare_tfrecords.py --data ~/300W_LP --points 3d        # the jaw where it is, not where its outline is seen
    python prepare_tfrecords.py --data data/sample --out data/sample

Writes train.tfrecords and test.tfrecords (nine faces in ten, one in ten), records.json (what they hold), preview.png
(25 crops with their points: look at it) and skipped.txt (a line for each face left out, with the reason).
"""

from landmark.ending import leave_at_once, leaving_at_once, one_line

if __name__ == "__main__":
    leave_at_once()  # on Ctrl-C, while the imports load

import argparse
import contextlib
import itertools
import shlex
from pathlib import Path

from landmark.annotations import REAL_SET, SAMPLE_SET, find_annotations, read_faces
from landmark.files import check_outputs


@one_line
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--data",
        action="append",
        type=Path,
        metavar="DIR",
        help=f"a folder of annotated photos; may be given several times ({REAL_SET}, else {SAMPLE_SET})",
    )
    parser.add_argument("--points", choices=["2d", "3d"], default="2d", help="which jaw the labels have (2d)")
    parser.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="where to write (data)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()

    folders = args.data or [REAL_SET if REAL_SET.is_dir() else SAMPLE_SET]
    outputs = [f"{side}.tfrecords" for side in ("train", "test")] + ["records.json", "preview.png", "skipped.txt"]
    check_outputs(dict.fromkeys(args.out / name for name in outputs), args.overwrite)
    annotations = find_annotations(folders)
    args.out.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(read_faces(annotations, f"pts_{args.points}")) as faces:
        first = next(faces)  # the workers start here, and read on while TensorFlow loads
        with leaving_at_once():
            from landmark.records import write_records

        summary, skipped = write_records(annotations, itertools.chain([first], faces), args.out)
    reason = f", see {args.out / 'skipped.txt'}" if skipped else ""
    print(f"{summary.train} faces for training, {summary.test} for testing, {skipped} left out{reason}")
    print(f"{args.out / 'train.tfrecords'} and test.tfrecords written; {args.out / 'preview.png'} shows 25 of them")
    print(f"next: python train.py{'' if args.out == Path('data') else f' --data {shlex.quote(str(args.out))}'}")


if __name__ == "__main__":
    main()
