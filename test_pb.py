"""Draws the 68 points that landmark.pb finds on faces: on crops, on whole photos, in a video.

Usage:
    python test_pb.py                                    # images/ -> images/out/
    python test_pb.py --images ~/crops --output ~/drawn --show
    python test_pb.py --detect --images ~/photos         # finds the faces first
    python test_pb.py --video clip.mp4 --json            # -> images/out/clip.mp4, points.csv, points.json
    python test_pb.py --camera 0 --show                  # until q or Ctrl-C

Without --detect each picture is taken as a face crop: cut as prepare_tfrecords.crop_box would cut it. points.csv
beside the drawn pictures holds the points, x0 y0 ... x67 y67 in pixels of the picture, a line a face; in a video the
number of the frame, from 0, stands for the name of the picture. points.json (--json) is a list of

    {"picture": name, "milliseconds": all that was done on it,
     "faces": [{"face": number, "box": [x_min, y_min, x_max, y_max], "points": [[x, y], 68 of them],
                "milliseconds": for its points}]}

The number of a face stays the same for as long as it is followed through a video.
"""

import argparse
import contextlib
import csv
import errno
import itertools
import json
import math
import os
import signal
import sys
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from prepare_tfrecords import (
    IMAGE_SIZE,
    LANDMARKS,
    crop_box,
    crop_face,
    draw_landmarks,
    read_picture,
    to_photo,
    whole_file,
)
from senet import INPUT_NAME, OUTPUT_NAME

OWN_PB = Path("landmark.pb")
SHIPPED_PB = Path("models/landmark.pb")
MP4V = cv2.VideoWriter.fourcc(*"mp4v")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

YUNET = "face_detection_yunet_2023mar.onnx"
YUNET_URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{YUNET}"
DETECTOR_SIDE = 640  # the detector sees a picture no longer than this, pixels: faces from a 20th of it
HAAR_MARGIN = 0.1  # around what the cascade sees, in its longer side
# The corners of the crop of SPEC 2 in a detector's box, x y as shares of its sides: data/fit_detector.py.
HAAR_CROP = np.array([[0.048, -0.014], [0.956, 1.108]])
# Not fitted: its training faces (WIDER FACE) are boxed from forehead to chin, as the crop is but for its margins.
YUNET_CROP = np.array([[0.0, 0.0], [1.0, 1.0]])
NUDGE = 0.05  # a face's points are the mean over two crops, this share of the sides off its box to either side
# Points that follow the nudge by more than this share of it lie on no face: 99% of the held-out faces of 300W_LP stay
# under 0.28, 99% of as many crops of their backgrounds lie over 0.42.
NO_FACE = 0.4
REFINEMENTS = 3  # of a detected face: evaluate.py --detect gives 4.6% NME with 1, 4.3% with 2, 4.2% with 3
SMALLEST = 8  # side of a face in pixels
OVERLAP = 0.3  # boxes that share more than this of their union are of one face
SEARCH = 30  # frames for which a lost face is looked for while others are followed
# One Euro filter, in frames and sides of the face's box; README.md has what it does to noise and lag.
SLOWEST, OPENING, SPEED_SHARE = 0.02, 20, 0.2

# number: int; box: (x_min, y_min, x_max, y_max), ints, what the points were cut with; points: float64 [68, 2], both in
# pixels of the picture; milliseconds: float, for the points.
Face = namedtuple("Face", "number box points milliseconds")


def default_pb():
    """The Path of the user's own landmark.pb, else, with a word about it, of the one in models/."""
    if OWN_PB.exists() or not SHIPPED_PB.exists():
        return OWN_PB
    print(f"no {OWN_PB} yet: using {SHIPPED_PB}")
    return SHIPPED_PB


def load_graph(path):
    """Loads a frozen graph as any other program would.

    Args:
        path: of landmark.pb.

    Returns:
        tf.Graph that holds INPUT_NAME and OUTPUT_NAME.

    Raises:
        ValueError: the file is missing, no graph, lacks the two names, or was frozen in training mode; the message
            names it.
    """
    definition = tf.GraphDef()
    try:
        definition.ParseFromString(Path(path).read_bytes())
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(definition, name="")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; python freeze_graph.py writes it") from None
    except (DecodeError, ValueError, tf.errors.OpError):
        raise ValueError(f"{path} is not a frozen graph: write one with python freeze_graph.py") from None
    for name in INPUT_NAME, OUTPUT_NAME:
        try:
            graph.get_tensor_by_name(name)
        except KeyError:
            raise ValueError(f"{path} has no {name}: it is the graph of another network") from None
    for op in graph.get_operations():  # a training graph loads everywhere, and its points are off by a quarter
        if op.type == "RandomUniform" or op.type.startswith("FusedBatchNorm") and op.get_attr("is_training"):
            raise ValueError(f"{path} is a frozen training graph ({op.name}): write one with python freeze_graph.py")
    return graph


def predict(session, crops):
    """Points on crops, by a session on a graph of load_graph.

    Args:
        session: tf.Session.
        crops: uint8 or float32 [N, 128, 128, 3], BGR, 0..255.

    Returns:
        float32 [N, 136]: x0 y0 ... x67 y67 as shares of the crop's sides.
    """
    return session.run(OUTPUT_NAME, {INPUT_NAME: crops})


def find_landmarks(session, picture, boxes):
    """Points in some boxes of a picture.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        boxes: ints [N, 4], x_min y_min x_max y_max in pixels of the picture, each overlapping it.

    Returns:
        float64 [N, 68, 2], x and y in pixels of the picture.
    """
    crops = np.stack([crop_face(picture, box) for box in boxes])
    return to_photo(predict(session, crops).reshape(-1, LANDMARKS, 2), boxes)


# Whole photos


def load_detector(path=None):
    """The face detector: YuNet from its ONNX file, else the Haar cascade of the installed OpenCV.

    Returns:
        cv2.FaceDetectorYN or cv2.CascadeClassifier, for detect_boxes.

    Raises:
        ValueError: the file is no YuNet; or none is given, and this OpenCV (5) has no cascade.
    """
    if path:
        try:
            return cv2.FaceDetectorYN.create(str(path), "", (DETECTOR_SIDE, DETECTOR_SIDE))
        except cv2.error:
            raise ValueError(f"--detector {path} is not {YUNET}: get it from {YUNET_URL}") from None
    if not hasattr(cv2, "CascadeClassifier"):
        raise ValueError(f"OpenCV {cv2.__version__} has no face cascade: get {YUNET_URL}, then --detector {YUNET}")
    return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")


def detect_boxes(detector, picture):
    """The boxes of a detector as it gives them.

    Args:
        detector: of load_detector.
        picture: uint8 [H, W, 3], BGR.

    Returns:
        float64 [N, 4], x_min y_min x_max y_max in pixels of the picture.
    """
    scale = min(1, DETECTOR_SIDE / max(picture.shape[:2]))
    seen = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    if isinstance(detector, cv2.FaceDetectorYN):
        detector.setInputSize(seen.shape[1::-1])
        found = detector.detect(seen)[1]
        found = np.empty([0, 4]) if found is None else found[:, :4]
    else:
        # With a margin it finds 47 of 50 faces whose crop the photo's edge cuts by 7%, without it 35. Two neighbours
        # keep faces that the usual three or five lose; what is none, settle sorts out.
        margin = round(HAAR_MARGIN * max(seen.shape[:2]))
        grey = cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY)
        grey = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        found = np.reshape(detector.detectMultiScale(grey, 1.1, 2, minSize=(32, 32)), (-1, 4)) - [margin, margin, 0, 0]
    found = found.astype(np.float64) / scale
    return np.hstack([found[:, :2], found[:, :2] + found[:, 2:]])


def overlap(box, other):
    """What two boxes (x_min, y_min, x_max, y_max) share, as a share of their union: 0..1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / sum([(x_max - x_min) * (y_max - y_min) for x_min, y_min, x_max, y_max in (box, other)], -shared)


def match_box(box, others):
    """The index of the one of some boxes that overlaps a box most, or None where none is of the same face."""
    shared = [overlap(box, other) for other in others]
    return int(np.argmax(shared)) if max(shared, default=0) > OVERLAP else None


def can_hold_face(box, picture):
    """Whether a box, ints [4], has some size, and its middle in the picture."""
    middle, sides, frame = (box[:2] + box[2:]) / 2, box[2:] - box[:2], np.array(picture.shape[1::-1])
    return ((middle > 0) & (middle < frame) & (sides >= SMALLEST) & (sides < 2 * frame.max())).all()


def settle(session, picture, points):
    """The points of a face about which something is known: from a first look, or in the frame before.

    The network always answers with a face. On a real one the points stay where they are when the crop moves a little;
    elsewhere they move along with it.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR.
        points: float64 [68, 2], about where they are.

    Returns:
        (box, points float64 [68, 2]), both in pixels of the picture, or None where there is no face.
    """
    box = np.array(crop_box(points))
    if not can_hold_face(box, picture):
        return None
    nudge = np.tile(np.ceil(NUDGE * (box[2:] - box[:2])).astype(int), 2)
    pair = find_landmarks(session, picture, [box - nudge, box + nudge])
    moved = np.linalg.norm(pair[0] - pair[1], axis=-1).mean() / np.linalg.norm(2 * nudge[:2])
    return None if moved > NO_FACE else (tuple(box.tolist()), pair.mean(0))


def take_crop(session, picture):
    """The face of a picture that is a face crop: a list of one Face."""
    began = time.perf_counter()
    box = 0, 0, picture.shape[1], picture.shape[0]
    points = find_landmarks(session, picture, [box])[0]
    return [Face(0, box, points, 1000 * (time.perf_counter() - began))]


def detect_faces(session, detector, picture, known=()):
    """The faces of a whole photo: found by the detector, refined with the crop of their points.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector.
        picture: uint8 [H, W, 3], BGR.
        known: boxes of faces to leave out.

    Returns:
        list of Face.
    """
    corners = YUNET_CROP if isinstance(detector, cv2.FaceDetectorYN) else HAAR_CROP
    faces = []
    for box in np.round(to_photo(corners, detect_boxes(detector, picture))).astype(int).reshape(-1, 4):
        if not can_hold_face(box, picture):
            continue
        began = time.perf_counter()
        settled = box, find_landmarks(session, picture, [box])[0]
        for _ in range(REFINEMENTS):
            settled = settled and settle(session, picture, settled[1])
        taken = [*known, *(face.box for face in faces)]
        if settled and match_box(settled[0], taken) is None:
            faces.append(Face(len(faces), *settled, 1000 * (time.perf_counter() - began)))
    return faces


# Videos


def steady(points, before, speed, side):
    """One frame of a One Euro filter (Casiez, Roussel, Vogel, CHI 2012): a low-pass that opens with the speed.

    Args:
        points: float64 [68, 2], as found.
        before: float64 [68, 2], as steadied in the frame before.
        speed: float64 [68, 2], sides a frame, of the frame before.
        side: of the face, in pixels.

    Returns:
        (points steadied, speed), float64 [68, 2] each.
    """
    speed = speed + SPEED_SHARE * ((points - before) / side - speed)
    cutoff = SLOWEST + OPENING * np.linalg.norm(speed, axis=-1, keepdims=True)
    share = 1 / (1 + 1 / (2 * math.pi * cutoff))
    return before + share * (points - before), speed


def follow_faces(session, detector, frames):
    """Follows faces from frame to frame; the detector runs only while one is lost or none is there.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector.
        frames: iterable of uint8 [H, W, 3], BGR.

    Yields:
        (frame, list of Face whose points are steadied, seconds it took).
    """
    numbers, tracks, missing, search = itertools.count(), [], 0, 0
    for frame in frames:
        began = time.perf_counter()
        faces, followed = [], []
        for number, found, before, speed in tracks:
            start = time.perf_counter()
            settled = settle(session, frame, found)
            if settled and match_box(settled[0], [other.box for other in faces]) is None:
                box, found = settled
                points, speed = steady(found, before, speed, box[2] - box[0])
                followed.append((number, found, points, speed))
                faces.append(Face(number, box, points, 1000 * (time.perf_counter() - start)))
        lost = len(tracks) - len(followed)
        search = SEARCH if lost else search - 1
        missing = lost + (missing if search > 0 else 0)
        if missing or not followed:
            for face in detect_faces(session, detector, frame, [face.box for face in faces]):
                face = face._replace(number=next(numbers))
                followed.append((face.number, face.points, face.points, np.zeros_like(face.points)))
                faces.append(face)
                missing = max(missing - 1, 0)
        tracks = followed
        yield frame, faces, time.perf_counter() - began


# Output


@contextlib.contextmanager
def write_points(output, as_json):
    """Writes points.csv, and points.json if asked for, into a folder, whole or not at all.

    Yields:
        add(picture, faces, seconds), where picture is a name or the number of a frame and faces a list of Face.
    """
    with contextlib.ExitStack() as files:

        def create(name):
            return files.enter_context(files.enter_context(whole_file(output / name)).open("w", newline=""))

        rows = csv.writer(create("points.csv"))
        rows.writerow(["picture", *(f"{axis}{i}" for i in range(LANDMARKS) for axis in "xy")])
        text = create("points.json") if as_json else None
        lead = itertools.chain("[", itertools.repeat(","))

        def add(picture, faces, seconds):
            for face in faces:
                rows.writerow([picture, *(f"{number:.2f}" for number in face.points.ravel())])
            if text:
                found = [
                    {
                        "face": face.number,
                        "box": face.box,
                        "points": face.points.round(2).tolist(),
                        "milliseconds": round(face.milliseconds, 2),
                    }
                    for face in faces
                ]
                entry = {"picture": picture, "milliseconds": round(1000 * seconds, 2), "faces": found}
                text.write(f"{next(lead)}\n{json.dumps(entry)}")

        yield add
        if text:
            text.write("\n]\n")


def draw_faces(picture, faces):
    """Draws the points of faces into a picture, in place, thicker on a larger face."""
    for face in faces:
        x_min, y_min, x_max, y_max = face.box
        draw_landmarks(picture, face.points, side=min(x_max - x_min, y_max - y_min))


def draw_pictures(session, detector, paths, output, as_json=False):
    """Writes each picture with its points into a folder under its own name, and points.csv; a file that is no picture
    is reported and left out, a photo without a face is reported and written as it is.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector, or None: every picture is a face crop.
        paths: Paths of the pictures, at least one.
        output: Path of a folder that exists.
        as_json: whether to write points.json too.

    Returns:
        (list of the Paths written, a line that says what was done).

    Raises:
        ValueError: not one of them is a picture; nothing is written then.
    """
    drawn, count, seconds = [], 0, []
    with write_points(output, as_json) as add:
        for path in tqdm(paths, unit="picture", disable=None):
            try:
                picture, content = read_picture(path)
            except ValueError as error:
                print(f"{path}: {error}; left out", file=sys.stderr)
                continue
            began = time.perf_counter()
            faces = detect_faces(session, detector, picture) if detector else take_crop(session, picture)
            seconds.append(time.perf_counter() - began)
            count += len(faces)
            add(path.name, faces, seconds[-1])
            if faces:
                draw_faces(picture, faces)
                content = cv2.imencode(path.suffix, picture)[1]
            else:
                print(f"{path}: no face found; written as it is", file=sys.stderr)
            with whole_file(output / path.name) as partial:
                partial.write_bytes(content)
            drawn.append(output / path.name)
        if not drawn:
            raise ValueError(f"none of the {len(paths)} files in {paths[0].parent} is a picture that can be read")
    what = f"for {count} faces and their points" if detector else "for the points"
    return drawn, f"{len(drawn)} pictures in {output}, {1000 * np.median(seconds):.1f} ms each {what}"


def read_frames(capture):
    """Yields the frames of a cv2.VideoCapture, uint8 [H, W, 3], BGR, until its end or Ctrl-C."""
    stops = []
    before = signal.signal(signal.SIGINT, lambda *_: stops.append(True))  # in the midst of a frame it would tear files
    try:
        while not stops and (frame := capture.read()[1]) is not None:
            yield frame
    finally:
        signal.signal(signal.SIGINT, before)


def draw_video(session, detector, source, target, as_json=False, shown=False):
    """Writes a video with the points of its faces, and points.csv beside it; Ctrl-C ends it early, but well.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector.
        source: path of a video, str, or the number of a camera, int.
        target: Path of the mp4 to write.
        as_json: whether to write points.json too.
        shown: whether to show it in a window; q there ends it.

    Returns:
        a line that says what was written.

    Raises:
        ValueError: the source cannot be opened or has no frame; nothing is written then.
        OSError: the video could not be written whole.
    """
    capture = cv2.VideoCapture(source)
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 1 <= rate <= 1000 else 30  # cameras may not know theirs
    length = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
    count, with_face, writer, began = 0, 0, None, time.perf_counter()
    with write_points(target.parent, as_json) as add, whole_file(target) as partial:
        followed = follow_faces(session, detector, read_frames(capture))
        for frame, faces, seconds in tqdm(followed, total=length, unit="frame", disable=None):
            writer = writer or cv2.VideoWriter(str(partial), MP4V, rate, frame.shape[1::-1])
            draw_faces(frame, faces)
            writer.write(frame)
            add(count, faces, seconds)
            count += 1
            with_face += bool(faces)
            if shown and show(frame, 1) == ord("q"):
                break
        if not count:
            kind = "camera" if isinstance(source, int) else "video"
            raise ValueError(f"OpenCV can read no {kind} {source}")
        writer.release()
        if cv2.VideoCapture(str(partial)).get(cv2.CAP_PROP_FRAME_COUNT) != count:  # the writer itself says nothing
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    rate = count / (time.perf_counter() - began)
    return f"{count} frames in {target}, {with_face} with a face, {rate:.1f} frames a second"


def show(picture, milliseconds=0):
    """Shows a picture in a window until a key is pressed, or for some milliseconds: the key's number, -1 for none.

    Raises:
        ValueError: there is no display, or this OpenCV has no windows.
    """
    try:
        cv2.imshow("landmarks: any key for the next, q ends a video", picture)
        return cv2.waitKey(milliseconds)
    except cv2.error:
        raise ValueError(
            "--show needs a display and an OpenCV with windows:"
            " pip uninstall opencv-python-headless, then pip install opencv-python"
        ) from None


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pb", type=Path, metavar="FILE", help=f"({OWN_PB}, else {SHIPPED_PB})")
    parser.add_argument("--images", type=Path, default=Path("images"), metavar="DIR", help="face crops (images)")
    parser.add_argument("--output", type=Path, default=Path("images/out"), metavar="DIR", help="(images/out)")
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument("--detect", action="store_true", help="--images holds whole photos: find the faces first")
    whole.add_argument("--video", type=Path, metavar="FILE", help="a video in place of --images")
    whole.add_argument("--camera", type=int, metavar="N", help="a camera in place of --images; 0 is the first")
    parser.add_argument("--detector", type=Path, metavar="FILE", help=f"{YUNET} (the Haar cascade of OpenCV 4)")
    parser.add_argument("--json", action="store_true", help="write points.json too")
    parser.add_argument("--show", action="store_true", help="show what is drawn in a window")
    args = parser.parse_args()
    args.is_video = bool(args.video) or args.camera is not None
    args.target = args.output / (f"{args.video.stem}.mp4" if args.video else f"camera{args.camera}.mp4")
    if args.detector and not (args.detect or args.is_video):
        parser.error("--detector needs --detect, --video or --camera")
    if not args.is_video and args.output.resolve() == args.images.resolve():
        parser.error(f"--output {args.output} would overwrite the pictures in --images")
    if args.video and args.target.resolve() == args.video.resolve():
        parser.error(f"--output {args.output} would overwrite {args.video}")
    return args


def list_pictures(folder):
    """The Paths of the pictures in a folder, sorted.

    Raises:
        ValueError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"no pictures in {folder}: put some there ({' '.join(sorted(SUFFIXES))})")
    return paths


def main():
    args = parse_args()
    try:
        paths = [] if args.is_video else list_pictures(args.images)
        detector = load_detector(args.detector) if args.detect or args.is_video else None
        with tf.Session(graph=load_graph(args.pb or default_pb())) as session:
            predict(session, np.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8))  # the first run plans the graph
            args.output.mkdir(parents=True, exist_ok=True)
            if args.is_video:
                source = args.camera if args.video is None else str(args.video)
                drawn, done = [], draw_video(session, detector, source, args.target, args.json, args.show)
            else:
                drawn, done = draw_pictures(session, detector, paths, args.output, args.json)
        print(f"{done}\nthe points in {args.output / 'points.csv'}{' and points.json' if args.json else ''}")
        for path in drawn if args.show else []:
            show(cv2.imread(str(path)))
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write to {args.output}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
