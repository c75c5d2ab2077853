"""Crops each annotated face around its landmarks into 128x128 records.

Usage:
    python prepare_tfrecords.py                                     # data/300W_LP, or the sample, into data/
    python prepare_tfrecords.py --data ~/300W_LP --data ~/more      # several sets, merged, each in a format of its own
    python prepare_tfrecords.py --data ~/300W_LP --points 3d        # the jaw where it is, not where its outline is seen
    python prepare_tfrecords.py --data data/sample --out data/sample
    python prepare_tfrecords.py --shards 8                          # train-00000-of-00008.tfrecords and so on
    python prepare_tfrecords.py --shards 8 --shard 3                # number 3 of 0..7 alone: one machine's part

Writes train.tfrecords and test.tfrecords (nine faces in ten, one in ten), records.json (what they hold), preview.png
(25 crops with their points: look at it) and skipped.txt (a line for each face left out, with the reason). All the
shards together hold the very same records, and no records.json.
"""

from landmark.ending import leaving_at_once, one_line, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse
import contextlib
import itertools
import shlex
from pathlib import Path

from landmark.annotations import REAL_SET, SAMPLE_SET, deal, find_annotations, read_faces, split_faces
from landmark.files import check_outputs

MOST_SHARDS = 99_999  # five digits


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
    parser.add_argument("--shards", type=int, metavar="N", help="write N files a side, for N machines (one)")
    parser.add_argument("--shard", type=int, metavar="I", help="of these the I-th alone, 0..N-1 (all)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    if args.shards is not None and not 1 <= args.shards <= MOST_SHARDS:
        parser.error(f"argument --shards: {args.shards} is not in 1..{MOST_SHARDS}")
    if args.shard is not None and not 0 <= args.shard < (args.shards or 0):
        parser.error(f"argument --shard: {args.shard} is not in 0..N-1 of --shards N")

    folders = args.data or [REAL_SET if REAL_SET.is_dir() else SAMPLE_SET]
    chosen = range(args.shards or 1) if args.shard is None else [args.shard]
    endings = [f"-{shard:05}-of-{args.shards:05}" if args.shards else "" for shard in chosen]
    ending = endings[0] if len(chosen) == 1 else f"-*-of-{args.shards:05}"
    names = ["train{}.tfrecords", "test{}.tfrecords", "preview{}.png", "skipped{}.txt"]
    outputs = [args.out / name.format(each) for name in names for each in endings]
    if not args.shards:
        outputs.append(args.out / "records.json")
    check_outputs(dict.fromkeys(outputs), args.overwrite)
    annotations = find_annotations(folders)
    is_test = split_faces(annotations)
    shards = deal(is_test, args.shards or 1)
    annotations = [annotations[i] for shard in chosen for i in shards[shard]]
    args.out.mkdir(parents=True, exist_ok=True)
    train, test, left_out = 0, 0, 0
    with contextlib.closing(read_faces(annotations, f"pts_{args.points}")) as faces:
        first = [*itertools.islice(faces, 1)]  # the workers start here, and read on while TensorFlow loads
        with leaving_at_once():
            from landmark.records import write_records

        faces = itertools.chain(first, faces)
        for shard, name in zip(chosen, endings, strict=True):
            sides = [is_test[i] for i in shards[shard]]
            summary, skipped = write_records(sides, itertools.islice(faces, len(sides)), args.out, name)
            train, test, left_out = train + summary.train, test + summary.test, left_out + skipped
    reason = f", see {args.out / f'skipped{ending}.txt'}" if left_out else ""
    print(f"{train} faces for training, {test} for testing, {left_out} left out{reason}")
    written = f"{args.out / f'train{ending}.tfrecords'} and test{ending}.tfrecords written"
    print(f"{written}; {args.out / f'preview{ending}.png'} shows 25 of them")
    print(f"next: python train.py{'' if args.out == Path('data') else f' --data {shlex.quote(str(args.out))}'}")


if __name__ == "__main__":
    main()
