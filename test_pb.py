"""Draws the 68 points that landmark.pb finds on faces: on crops, on whole photos, in a video.

Usage:
    python test_pb.py                                    # images/ -> images/out/
    python test_pb.py --images ~/crops --output ~/drawn --show
    python test_pb.py --detect --images ~/photos         # finds the faces first
    python test_pb.py --video clip.mp4 --json            # -> images/out/clip.mp4, points.csv, points.json
    python test_pb.py --camera 0 --show                  # until q or Ctrl-C

Without --detect each picture is taken as a face crop: cut as contract 2 (landmark/README.md) cuts it. points.csv
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
import os
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from landmark.files import one_line, read_picture, whole_file
from landmark.find import (
    OWN_PB,
    SHIPPED_PB,
    YUNET,
    default_pb,
    detect_faces,
    follow_faces,
    load_detector,
    load_graph,
    predict,
    take_crop,
)
from landmark.points import IMAGE_SIZE, LANDMARKS, draw_landmarks

MP4V = cv2.VideoWriter.fourcc(*"mp4v")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


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
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
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


@one_line
def main():
    args = parse_args()
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


if __name__ == "__main__":
    main()
