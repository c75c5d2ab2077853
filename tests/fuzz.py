"""Damages real files at random and reads each: no crash, no hang, no 2 GiB of memory, no traceback, nothing written.

Usage:
    python tests/fuzz.py                                      # 20,000 MAT files and pictures, 2,000 of each other kind
    python tests/fuzz.py --kind mat --count 500 --seed 1

Files that fail are kept in fuzz-failures/. The same seed damages the same files in the same way.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import landmark.startup  # noqa: F401  first: TensorFlow and OpenCV read their settings as they are imported

# isort: split

import contextlib
import mmap
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import namedtuple
from types import SimpleNamespace

import cv2
import numpy as np
import scipy.io
import tensorflow.compat.v1 as tf
from conftest import REPO, draw_photo, place_points, write_face
from test_formats import SHARED, write_set

from landmark.annotations import find_annotations, read_face
from landmark.augment import augment_batch
from landmark.checkpoints import prefix_of, read_checkpoint
from landmark.cli import UserError, script_parser
from landmark.formats import FORMATS
from landmark.mat import read_mat
from landmark.pictures import read_picture
from landmark.points import LANDMARK_TYPES
from landmark.recipe import DEFAULT
from landmark.records import check_records, read_batches, read_manifest, read_records, to_record
from landmark.runtimes import load_session
from senet import SENet, crops_placeholder

SECONDS, MEMORY = 5, 2**31  # of processor time for one file; bytes
EDITS = 1, 1, 1, 2, 3, 6  # of one file: with more of them, little would be read before the first is found
NUMBERS = 0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 60_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF  # sizes and signs
SMALL = SimpleNamespace(photo=lambda seed: draw_photo(seed, 100, 120), points=lambda i: place_points(i, (60, 50), 40))

# make: function of an empty folder that writes whole files there and returns the Paths of those to damage; read:
# function of such a Path, called in its folder, that may raise UserError; count: how many to damage in a long run.
Kind = namedtuple("Kind", "make read count")


# Kinds of files


def make_mats(folder):
    points = place_points(0)
    contents = {"pts": {"pts_2d": points, "pts_3d": points}, "fit": {"pt2d": points.T, "Pose_Para": np.ones([1, 7])}}
    contents["other"] = {"pt3d_68": np.ones([3, 68], np.float32), "cell": np.array([[1, "a"]], object), "text": "a"}
    paths = []
    for name, variables in contents.items():
        for compressed in False, True:
            paths.append(folder / f"{name}-{compressed}.mat")
            scipy.io.savemat(paths[-1], variables, do_compression=compressed)
    return paths + copy_real(folder, "landmarks/AFW/*.mat", "AFW/*.mat")


def read_matrices(path):
    read_mat(path, [*LANDMARK_TYPES, "pt2d", "pt3d_68", "Pose_Para"])


def make_pictures(folder):
    photo = SMALL.photo(0)
    pictures = {f"a.{suffix}": photo for suffix in ("jpg", "png", "webp", "tif", "bmp", "gif")}
    pictures |= {"deep.png": photo.astype(np.uint16) * 257, "grey.tif": photo[..., 0], "progressive.jpg": photo}
    for name, picture in pictures.items():
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if name == "progressive.jpg" else []
        cv2.imwrite(str(folder / name), picture, options)
    return [folder / name for name in pictures] + copy_real(folder, "AFW/*.jpg")


def read_stored_and_upright(path):
    read_picture(path)
    read_picture(path, stored=True)


def make_graphs(folder):
    def frozen(getter, name, shape, **options):  # one number for each matrix, so that the damage is not all in weights
        return tf.constant(0.01, shape=shape)

    paths = [folder / f"{network}.pb" for network in ("original", "deep")]
    for path in paths:
        with tf.Graph().as_default() as graph:
            with tf.variable_scope(tf.get_variable_scope(), custom_getter=frozen):
                SENet(crops_placeholder(), network=path.stem)
        path.write_bytes(graph.as_graph_def().SerializeToString())
    return paths


def run_graph(path):
    load_session(path)(np.zeros([1, 128, 128, 3], np.uint8))


def make_examples(folder):
    """Records without the checksums of the file."""
    for i in range(2):
        write_face(folder, "AFW", f"AFW_{i}_0", i, SMALL.points(i), SMALL.photo(i))
    paths = []
    for annotation in find_annotations([folder]):
        paths.append(folder / f"{len(paths)}.record")
        paths[-1].write_bytes(to_record(read_face(annotation)))
    return paths


def train_on_example(path):
    """Reads a record, under correct checksums, as train.py does: batched and augmented, and checked if that fails."""
    record = path.read_bytes()
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)

    def augment(number, *batch):
        return augment_batch(DEFAULT, 0, 1000, *batch)

    try:
        for _ in read_batches([path], 1, augment=augment):
            pass
    except (tf.errors.OpError, UnicodeDecodeError):  # TensorFlow's message may hold the record's bytes
        check_records([path], [path])
        raise


def make_records(folder):
    examples = [path.read_bytes() for path in make_examples(folder)]
    with tf.io.TFRecordWriter(str(folder / "train.tfrecords")) as writer:
        for example in examples:
            writer.write(example)
    return [folder / "train.tfrecords"]


def read_whole_records(path):
    list(read_records([path]))


def make_manifest(folder):
    make_records(folder)
    shutil.copy(folder / "train.tfrecords", folder / "test.tfrecords")
    read_manifest(folder)  # writes it
    return [folder / "records.json"]


def make_checkpoint(folder):
    return [Path(shutil.copy(path, folder)) for path in sorted(REPO.glob("models/landmark.ckpt.[di]*"))]


def make_set(name):
    def make(folder):
        return [write_set(folder, name, SMALL, 2)[1]]

    return make


def read_set(path):
    refused = []
    for annotation in find_annotations([Path.cwd()]):
        try:
            read_face(annotation)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError(" ".join(refused))


def copy_real(folder, *patterns):
    """A real file of each pattern, where there are any, copied into a folder."""
    found = [next((SHARED / "300W_LP").glob(pattern), None) for pattern in patterns]
    return [Path(shutil.copy(path, folder)) for path in found if path]


FUZZED = {
    "mat": Kind(make_mats, read_matrices, 20_000),
    "picture": Kind(make_pictures, read_stored_and_upright, 20_000),
    "graph": Kind(make_graphs, run_graph, 2000),
    "records": Kind(make_records, read_whole_records, 2000),
    "example": Kind(make_examples, train_on_example, 2000),
    "manifest": Kind(make_manifest, lambda path: read_manifest(path.parent), 2000),
    "checkpoint": Kind(make_checkpoint, lambda path: read_checkpoint(prefix_of(str(path))), 2000),
} | {name: Kind(make_set(name), read_set, 2000) for name in FORMATS}


# Damage


def damage(data, others, rng):
    """Some bytes with a few edits: bits, bytes and numbers changed, pieces missing, doubled or of another file, or cut.

    others: list of bytes of the same kind; rng: random.Random.
    """
    data = bytearray(data)
    for _ in range(rng.choice(EDITS)):
        at, size = rng.randrange(len(data) + 1), 1 + int(rng.expovariate(1 / 30))
        edit = rng.randrange(20)
        if edit < 8 and at < len(data):
            data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), rng.randrange(256), rng.choice(data)))
        elif edit < 13:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % 256**width
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif edit < 15:
            del data[at : at + size]
        elif edit < 19:
            source = data if edit < 17 else rng.choice(others)
            begin = rng.randrange(len(source) + 1)
            data[at : at + rng.choice((0, size))] = source[begin : begin + size]
        else:
            del data[at:]
    return bytes(data)


def fuzz(name, count, seed, keep):
    """Damages files of a kind and reads them in a process of its own; if that dies, another one goes on.

    name: a name in FUZZED.
    count: number of files.
    seed: int, of the damage.
    keep: Path of the folder to keep the failing ones in.
    Returns: the number of failing ones.
    """
    kind, began = FUZZED[name], time.monotonic()
    tally = memoryview(mmap.mmap(-1, 24)).cast("Q")  # files begun, read, failed; shared by the processes
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(None):
            paths = kind.make(Path(folder).resolve())
        whole = [path.read_bytes() for path in paths]

        def make(i):
            rng = random.Random(f"{name} {seed} {i}")
            which = rng.randrange(len(paths))
            return paths[which], whole[which], damage(whole[which], whole, rng)

        def fail(i, what):
            path, _, data = make(i)
            keep.mkdir(exist_ok=True)
            (keep / re.sub(r"[^\w.]+", "-", f"{name}-{seed}-{i}{path.suffix}")).write_bytes(data)
            tally[2] += 1
            os.write(out, f"{name} {i} ({path.name}): {what}\n".encode())

        out = os.dup(1)
        while tally[0] < count:
            sys.stdout.flush()
            process = os.fork()
            if not process:
                read_files(kind.read, make, count, tally, fail, folder)
                os._exit(0)
            status = os.waitpid(process, 0)[1]
            if status:
                fail(tally[0] - 1, signal.Signals(os.WTERMSIG(status)).name)
                path, before, _ = make(tally[0] - 1)
                path.write_bytes(before)
        os.close(out)
    begun, read, failed = tally
    took = time.monotonic() - began
    print(f"{name}: {begun:,} files, {read:,} read, {begun - read - failed:,} refused, {failed} failed; {took:.0f} s")
    return failed


def read_files(read, make, count, tally, fail, folder):
    """What a process of fuzz() does, from the first file that no process has begun."""
    os.chdir(folder)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    there = set(Path(folder).rglob("*"))
    for i in range(tally[0], count):
        tally[0] += 1
        path, before, data = make(i)
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # these signals end the process
        signal.alarm(120 * SECONDS)
        wrong = None
        try:
            read(path)
            tally[1] += 1
        except UserError as error:
            if "\n" in str(error):
                wrong = f"more than one line: {error}"
        except BaseException:
            wrong = traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        path.write_bytes(before)
        if more := set(Path(folder).rglob("*")) - there:
            wrong = f"it wrote {more}"
        if wrong:
            fail(i, wrong)


def main():
    parser = script_parser(__doc__)
    parser.add_argument("--kind", choices=FUZZED, action="append", help="(all)")
    parser.add_argument("--count", type=int, help="files of each kind (20000 or 2000)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="(fuzz-failures)")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # a fork does not copy threads
    args.keep = args.keep.resolve()
    kinds = args.kind or FUZZED
    sys.exit(any([fuzz(name, args.count or FUZZED[name].count, args.seed, args.keep) for name in kinds]))


if __name__ == "__main__":
    main()
