"""Crops each annotated face around its landmarks into 128x128 records.

Usage:
    python prepare_tfrecords.py                                     # data/300W_LP, or the sample, into data/
    python prepare_tfrecords.py --data ~/300W_LP --data ~/more      # several sets, each in a format of its own
    python prepare_tfrecords.py --data ~/300W_LP --points 3d        # the jaw where it is, not where its outline is seen
    python prepare_tfrecords.py --data data/sample --out data/sample
    python prepare_tfrecords.py --shards 8                          # train-00000-of-00008.tfrecords and so on
    python prepare_tfrecords.py --shards 8 --shard 3                # only number 3 of 0..7: one machine's part

Writes train.tfrecords and test.tfrecords (nine faces in ten, one in ten), records.json (what they hold), preview.png
(25 crops with their points: look at it) and skipped.txt (a line for each face left out, with the reason). Shards have
files of their own, and together hold the same records.
"""

from landmark.startup import CORES  # first: TensorFlow reads its settings as it is imported

import contextlib
import hashlib
import itertools
import os
import re
import shlex
from pathlib import Path

from landmark.annotations import REAL_SET, SAMPLE_SET, find_annotations, read_faces, split_faces, split_shards, types_of
from landmark.cli import UserError, command, number, script_parser
from landmark.outputs import Outputs
from landmark.records import write_records


def parse_args():
    parser = script_parser(__doc__, allow_abbrev=False)
    default = REAL_SET if REAL_SET.is_dir() else SAMPLE_SET
    parser.add_argument("--data", action="append", type=Path, metavar="DIR", help=f"photos, repeatable ({default})")
    parser.add_argument("--points", choices=["2d", "3d"], default="2d", help="which jaw the labels have (2d)")
    parser.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="where to write (data)")
    shards = number(int, 1, 99_999)  # five digits
    parser.add_argument("--shards", type=shards, metavar="N", help="write N files a split, for N machines (one)")
    parser.add_argument("--shard", type=int, metavar="I", help="only the I-th of these, 0..N-1 (all)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    if args.shard is not None and not 0 <= args.shard < (args.shards or 0):
        parser.error(f"argument --shard: {args.shard} is not in 0..N-1 of --shards N")
    args.data = args.data or [default]
    return args


def name_files(args):
    """(Numbers of the shards to write; the ending of each one's files; the one to print: "-*-of-00008" for several)."""
    if not args.shards:
        return [0], [""], ""
    numbers = range(args.shards) if args.shard is None else [args.shard]
    endings = [f"-{number:05}-of-{args.shards:05}" for number in numbers]
    return numbers, endings, endings[0] if len(endings) == 1 else f"-*-of-{args.shards:05}"


def find_other_records(folder, shards):
    """The record files in a folder that another --shards wrote, list of Path; shards: this one's number, or None."""
    own = f"-of-{shards:05}" if shards else ""
    ours = re.compile(r"(train|test)(-\d{5}(?P<shards>-of-\d{5}))?\.tfrecords")
    return [
        path for path in folder.glob("t*") if (match := ours.fullmatch(path.name)) and (match["shards"] or "") != own
    ]


def hash_faces(annotations, points):
    """The fingerprint of a list of Annotations and of --points, "2d" or "3d": str."""
    digest = hashlib.md5(points.encode())
    for annotation in annotations:
        digest.update(os.fsencode(annotation.name))
        row = annotation.points
        with contextlib.suppress(OSError):  # such a face will be left out
            digest.update(row.path.read_bytes() if row.numbers is None else repr(row.numbers).encode())
    return digest.hexdigest()


@command
def main():
    args = parse_args()
    print(f"cropping the faces of {', '.join(map(str, args.data))}, on {CORES} CPU cores")
    numbers, endings, ending = name_files(args)
    names = ["train{}.tfrecords", "test{}.tfrecords", "records{}.json", "preview{}.png", "skipped{}.txt"]
    outputs = Outputs(dict.fromkeys(args.out / name.format(each) for name in names for each in endings), args.overwrite)
    if others := sorted(find_other_records(args.out, args.shards)):
        raise UserError(f"{others[0]} was written with other --shards: delete such files, or give another --out")
    annotations = find_annotations(args.data)
    has_jaw = any(f"pts_{args.points}" in types_of([annotation]) for annotation in annotations)
    if not has_jaw and (types := types_of(annotations)):
        known = " or ".join(name.removeprefix("pts_") for name in sorted(types))
        raise UserError(f"no face has {args.points.upper()} labels of the jaw: give --points {known}, or more faces")
    is_test = split_faces(annotations)
    shards = split_shards(is_test, args.shards or 1)
    fingerprint = hash_faces(annotations, args.points)
    args.out.mkdir(parents=True, exist_ok=True)
    train, test, left_out = 0, 0, 0
    chosen = [annotations[i] for number in numbers for i in shards[number]]
    with contextlib.closing(read_faces(chosen, f"pts_{args.points}")) as faces:
        for number, each in zip(numbers, endings, strict=True):
            part = [is_test[i] for i in shards[number]]
            some = itertools.islice(faces, len(part))
            manifest, skipped = write_records(part, some, args.out, each, fingerprint, outputs.write)
            train, test, left_out = train + manifest.train, test + manifest.test, left_out + skipped
    reason = f", see {args.out / f'skipped{ending}.txt'}" if left_out else ""
    print(f"{train} faces for training, {test} for testing, {left_out} left out{reason}")
    written = f"{args.out / f'train{ending}.tfrecords'} and test{ending}.tfrecords written"
    print(f"{written}; {args.out / f'preview{ending}.png'} shows some of them")
    print(f"next: python train.py{'' if args.out == Path('data') else f' --data {shlex.quote(str(args.out))}'}")


if __name__ == "__main__":
    main()
