"""Crops each face of a 300W_LP folder around its landmarks into 128x128 records.

Usage:
    python prepare_tfrecords.py                                     # data/300W_LP, or the sample, into data/
    python prepare_tfrecords.py --data ~/300W_LP --data ~/more      # several sets, merged
    python prepare_tfrecords.py --data data/sample --out data/sample

Writes train.tfrecords and test.tfrecords (nine faces in ten, one in ten), preview.png (25 crops with their points:
look at it) and skipped.txt (a line for each face left out, with the reason).
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import signal
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from tqdm import tqdm

IMAGE_SIZE = 128
LANDMARKS = 68
TEST_SHARE = 0.1
REAL_SET = Path("data/300W_LP")
SAMPLE_SET = Path("data/sample")
# The parts of a face as lines through the iBUG 68 points; a closed part ends where it starts.
PARTS = {
    "jaw": [range(0, 17)],
    "brows": [range(17, 22), range(22, 27)],
    "nose": [range(27, 31), range(31, 36)],
    "eyes": [[*range(36, 42), 36], [*range(42, 48), 42]],
    "mouth": [[*range(48, 60), 48], [*range(60, 68), 60]],
}
GREEN = (0, 255, 0)
SHEET_COLUMNS = 5
PREVIEW_CROPS = 25
CHUNK = 16  # faces a worker takes at a time
CHUNKS_AHEAD = 64  # read before they are written, 90 MB: what two cores read while TensorFlow loads
MAX_CROP = 10  # a crop this many times its photo's side has points that are not in the photo's pixels


# The crop (SPEC 2)


def crop_box(points):
    """The box that SPEC 2 cuts around a face.

    Args:
        points: [68, 2] finite x, y in pixels of the photo.

    Returns:
        (x_min, y_min, x_max, y_max), ints, in pixels of the photo; may leave the photo, and may be empty when all
        points are alike.
    """
    (x_min, y_min), (x_max, y_max) = points.min(0).tolist(), points.max(0).tolist()
    x_max, x_min, y_max, y_min = int(x_max), int(x_min), int(y_max), int(y_min)
    y_min = int(y_min - 0.30 * (y_max - y_min))
    y_max = int(y_max + 0.05 * (y_max - y_min))
    x_min = int(x_min - 0.05 * (x_max - x_min))
    x_max = int(x_max + 0.05 * (x_max - x_min))
    return x_min, y_min, x_max, y_max


def crop_face(photo, box):
    """Cuts a box out of a photo, black where it leaves the photo, and resizes it.

    Args:
        photo: uint8 [H, W, 3].
        box: (x_min, y_min, x_max, y_max), ints, that overlaps the photo.

    Returns:
        uint8 [128, 128, 3]; the two sides scale apart.
    """
    x_min, y_min, x_max, y_max = box
    height, width = photo.shape[:2]
    inside = photo[max(y_min, 0) : max(y_max, 0), max(x_min, 0) : max(x_max, 0)]
    black = max(-y_min, 0), max(y_max - height, 0), max(-x_min, 0), max(x_max - width, 0)
    if any(black):
        inside = cv2.copyMakeBorder(inside, *black, cv2.BORDER_CONSTANT)
    return cv2.resize(inside, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)


def to_crop(points, box):
    """Points [..., 68, 2] in pixels of the photo as shares of boxes [..., 4]: the label of SPEC 2."""
    box = np.asarray(box, np.float64)[..., None, :]
    return (points - box[..., :2]) / (box[..., 2:] - box[..., :2])


def to_photo(points, box):
    """The way back from to_crop: shares of boxes [..., 4] to points [..., 68, 2] in pixels of the photo."""
    box = np.asarray(box, np.float64)[..., None, :]
    return points * (box[..., 2:] - box[..., :2]) + box[..., :2]


# Reading a face


def read_picture(path):
    """Reads a picture file.

    Returns:
        (picture uint8 [H, W, 3], BGR, whatever the file's depth and number of channels; the bytes of the file).

    Raises:
        ValueError: the file is missing, empty, cut short or no picture; the message says which.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ValueError("empty file")
    # OpenCV decodes a JPEG that is cut short to grey; inside a scan neither marker can occur.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise ValueError("JPEG is cut short")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        raise ValueError("not a picture that OpenCV can read")
    return picture, data


def read_points(path):
    """Reads `pts_2d` of a landmarks file: float64 [68, 2], x and y in pixels of the photo.

    Raises:
        ValueError: the file is no MAT file, or its points are missing, of another shape or not finite.
    """
    try:
        mat = scipy.io.loadmat(path, variable_names=["pts_2d"])
    except Exception as error:  # scipy raises a dozen types for a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"not a readable MAT file: {reason}") from None
    if "pts_2d" not in mat:
        raise ValueError("no pts_2d in the MAT file")
    points = mat["pts_2d"]
    if points.shape != (LANDMARKS, 2) or points.dtype.kind not in "fiu":
        raise ValueError(f"pts_2d is {points.dtype} {list(points.shape)}, not numbers [{LANDMARKS}, 2]")
    if not np.isfinite(points).all():
        raise ValueError("pts_2d holds NaN or infinite points")
    return points.astype(np.float64)


def read_face(landmarks):
    """Reads and crops one face.

    Args:
        landmarks: Path of DIR/landmarks/<SET>/<stem>_pts.mat; the photo is DIR/<SET>/<stem>.jpg.

    Returns:
        (crop uint8 [128, 128, 3], label float32 [136], box (x_min, y_min, x_max, y_max) in pixels of the photo,
        the bytes of the photo's file).

    Raises:
        ValueError: the face cannot be used; the message names the file and the reason.
    """
    path = landmarks
    try:
        points = read_points(path)
        box = x_min, y_min, x_max, y_max = crop_box(points)
        if x_min >= x_max or y_min >= y_max:
            raise ValueError("the points span no area: all alike, or on one line")
        path = photo_path(landmarks)
        photo, data = read_picture(path)
        height, width = photo.shape[:2]
        if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
            raise ValueError(f"crop {box} lies wholly outside the photo of {width}x{height}")
        if x_max - x_min > MAX_CROP * width or y_max - y_min > MAX_CROP * height:
            raise ValueError(f"crop {box} is over {MAX_CROP} times the photo of {width}x{height}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return crop_face(photo, box), to_crop(points, box).astype(np.float32).ravel(), box, data


def photo_path(landmarks):
    """DIR/landmarks/<SET>/<stem>_pts.mat -> DIR/<SET>/<stem>.jpg."""
    folder = landmarks.parents[2] / landmarks.parent.name
    return folder / (landmarks.name.removesuffix("_pts.mat") + ".jpg")


# Which faces, in which order, on which side


def find_faces(folders):
    """The landmarks files of 300W_LP folders, a folder named twice taken once, in an order that looks random but
    depends on their names alone, so that neighbours in a record file are not the same face or set."""
    folders = dict.fromkeys(Path(folder).resolve() for folder in folders)
    faces = [path for folder in folders for path in sorted(folder.glob("landmarks/*/*_pts.mat"))]
    return sorted(faces, key=lambda path: _hash(face_name(path)))


def split_faces(names):
    """Which records are for testing.

    All pose variants of a face and its mirror fall on one side: a face is the stem less its last number.

    Args:
        names: `<SET>/<stem>` of each record.

    Returns:
        list of bool, True for test: a tenth of the faces, at least one, by the hash of their names.
    """
    faces = [name.rpartition("/")[2].rpartition("_")[0] for name in names]
    ordered = sorted(set(faces), key=_hash)
    test = set(ordered[: max(1, round(TEST_SHARE * len(ordered)))])
    return [face in test for face in faces]


def face_name(landmarks):
    return f"{landmarks.parent.name}/{landmarks.name.removesuffix('_pts.mat')}"


def _hash(text):
    return hashlib.md5(text.encode()).hexdigest()


# Drawing


def draw_landmarks(picture, points, colour=GREEN, side=None):
    """Draws 68 points and the lines along the parts of the face into a picture, at its own size.

    Args:
        picture: uint8 [H, W, 3], BGR, changed in place.
        points: [68, 2] x, y in pixels of the picture.
        colour: BGR.
        side: of the face in pixels, which the dots grow with; the picture's shorter one if it is not said.
    """
    side = side or min(picture.shape[:2])
    radius = max(1, round(side / 150))
    shift = 4  # OpenCV draws at 1/16 pixel
    fixed = np.round(np.clip(points, -max(picture.shape), 2 * max(picture.shape)) * 2**shift).astype(np.int32)
    for lines in PARTS.values():
        for line in lines:
            cv2.polylines(picture, [fixed[list(line)]], False, colour, max(1, radius // 3), cv2.LINE_AA, shift)
    for point in fixed.tolist():
        cv2.circle(picture, point, radius << shift, colour, cv2.FILLED, cv2.LINE_AA, shift)


def contact_sheet(crops, points, zoom=2):
    """Crops with their points in rows of five.

    Args:
        crops: uint8 [N, S, S, 3].
        points: list of ([N, 68, 2] shares of the crop, colour), drawn one over the other.
        zoom: how many times larger each crop is shown.

    Returns:
        uint8 [rows * S * zoom, 5 * S * zoom, 3].
    """
    side = crops.shape[1] * zoom
    sheet = np.zeros((-(-len(crops) // SHEET_COLUMNS) * side, SHEET_COLUMNS * side, 3), np.uint8)
    for i, crop in enumerate(crops):
        row, column = divmod(i, SHEET_COLUMNS)
        tile = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        for shares, colour in points:
            draw_landmarks(tile, shares[i] * side, colour)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    return sheet


# Writing


@contextlib.contextmanager
def whole_file(path):
    """A path beside `path` to write to, renamed to `path` when the block ends well and deleted when it does not."""
    partial = Path(path).with_name(f".partial-{Path(path).name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _work_quietly():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells us to stop


def _read_chunk(landmarks):
    faces = []
    for path in landmarks:
        try:
            faces.append(read_face(path))
        except ValueError as error:
            faces.append(str(error))
    return faces


def read_faces(landmarks, workers):
    """Yields what read_face returns for each path, in order, or the message of its ValueError; `workers` processes
    do the reading, and the chunks under way are few, however long the list."""
    # There is a worker for each core; and a fork does not copy OpenCV's threads: a worker would wait for them for ever.
    cv2.setNumThreads(1)
    with ProcessPoolExecutor(workers, initializer=_work_quietly) as pool:
        pending = deque()
        try:
            for start in range(0, len(landmarks), CHUNK):
                pending.append(pool.submit(_read_chunk, landmarks[start : start + CHUNK]))
                if len(pending) > CHUNKS_AHEAD:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def example(name, crop, label, box, photo):
    """The record of SPEC 3, a serialized tf.train.Example, of what read_face returns.

    The photo's file as it is leaves train.py the room to turn and shift the crop, costs no time here, and is smaller
    than the pixels of the crop (40 KB in 300W_LP)."""
    import tensorflow.compat.v1 as tf  # here: worker processes import this file and must not pay for TensorFlow

    record = tf.train.Example()
    feature = record.features.feature  # filled in place: a message given to another is copied, 90 KB each time
    feature["image"].bytes_list.value.append(crop.tobytes())
    feature["label"].float_list.value.extend(label)
    feature["name"].bytes_list.value.append(name.encode())
    feature["box"].int64_list.value.extend(box)
    feature["photo"].bytes_list.value.append(photo)
    return record.SerializeToString(deterministic=True)


def write_records(landmarks, out, workers):
    """Writes train.tfrecords, test.tfrecords, preview.png and skipped.txt into the folder `out`.

    Args:
        landmarks: Paths as find_faces returns them.
        out: Path of a folder that exists.
        workers: number of processes; the files do not depend on it.

    Returns:
        (faces written to train, to test, left out).

    Raises:
        ValueError: train or test would be empty; only skipped.txt is written then.
    """
    names = [face_name(path) for path in landmarks]
    counts, skipped, crops, labels = [0, 0], [], [], []
    with contextlib.ExitStack() as files:
        faces = files.enter_context(contextlib.closing(read_faces(landmarks, workers)))
        first = next(faces)  # the workers start here, and read on while TensorFlow loads
        import tensorflow.compat.v1 as tf

        paths = [files.enter_context(whole_file(out / f"{side}.tfrecords")) for side in ("train", "test")]
        writers = [files.enter_context(tf.io.TFRecordWriter(str(path))) for path in paths]
        everyone = zip(names, split_faces(names), itertools.chain([first], faces), strict=True)
        for name, is_test, face in tqdm(everyone, total=len(names), unit="face", disable=None):
            if isinstance(face, str):
                skipped.append(face)
                continue
            crop, label, *_ = face
            writers[is_test].write(example(name, *face))
            counts[is_test] += 1
            if len(crops) < PREVIEW_CROPS:
                crops.append(crop)
                labels.append(label.reshape(LANDMARKS, 2))
        with whole_file(out / "skipped.txt") as path:
            path.write_text("".join(f"{line}\n" for line in sorted(skipped)))
        if not all(counts):
            raise ValueError(
                f"{sum(counts)} usable faces of {len(names)} are too few to train and test on;"
                f" {out / 'skipped.txt'} says what is wrong with the others"
            )
    with whole_file(out / "preview.png") as path:
        path.write_bytes(cv2.imencode(".png", contact_sheet(np.array(crops), [(labels, GREEN)]))[1])
    return *counts, len(skipped)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--data",
        action="append",
        type=Path,
        metavar="DIR",
        help=f"a folder in the 300W_LP layout; may be given several times ({REAL_SET}, else {SAMPLE_SET})",
    )
    parser.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="where to write (data)")
    args = parser.parse_args()

    folders = args.data or [REAL_SET if REAL_SET.is_dir() else SAMPLE_SET]
    for folder in folders:
        if not folder.is_dir():
            sys.exit(
                f"no data in {folder}: put the photos there as data/README.md says, or render some with"
                " python data/make_sample.py"
            )
        if not next(folder.glob("landmarks/*/*_pts.mat"), None):
            sys.exit(f"no landmarks in {folder}: it has no landmarks/<SET>/<stem>_pts.mat (see data/README.md)")
    landmarks = find_faces(folders)
    print(f"{len(landmarks)} faces in {', '.join(map(str, folders))}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        train, test, skipped = write_records(landmarks, args.out, workers=len(os.sched_getaffinity(0)))
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write to {args.out}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    reason = f", see {args.out / 'skipped.txt'}" if skipped else ""
    print(f"{train} faces for training, {test} for testing, {skipped} left out{reason}")
    print(f"{args.out / 'train.tfrecords'} and test.tfrecords written; {args.out / 'preview.png'} shows 25 of them")
    print(f"next: python train.py{'' if args.out == Path('data') else f' --data {args.out}'}")


if __name__ == "__main__":
    main()
