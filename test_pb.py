"""Draws the 68 points that landmark.pb finds on faces: on crops, on whole photos, in a video.

Usage:
    python test_pb.py                                    # images/ -> images/out/
    python test_pb.py --images ~/crops --output ~/drawn --show     # a folder, pictures, or "~/crops/*.jpg"
    python test_pb.py --detect --images ~/photos         # finds the faces first
    python test_pb.py --detect --images ~/photos --pose --any_angle --score 0.8
    python test_pb.py --video clip.mov --json            # -> images/out/clip.mp4, clip.csv, clip.json
    python test_pb.py --camera 0 --show                  # until q or Ctrl-C

Without --detect each picture is taken as a face crop: cut as contract 2 (landmark/README.md) cuts it. points.csv
beside the drawn pictures, or the .csv beside the drawn video, holds a line a face: the name of the picture, or the
number of the frame, from 0; the second in the video at which it is shown; the number of the face; the points, x0 y0
... x67 y67 in pixels of the picture; yaw (to the picture's left), pitch (up) and roll (clockwise) in degrees; the
score, 0 to 1, that it is a face; spread0 ... spread67, how far apart two looks put each point, in pixels. A picture or
frame without a face has a line without all of these. The .json (--json) is a list of

    {"picture": name, "seconds": in the video, null of pictures, "milliseconds": all that was done on it,
     "faces": [{"face": number, "box": [[x, y], 4 of them], "points": [[x, y], 68 of them],
                "yaw": degrees, "pitch": degrees, "roll": degrees, "score": 0 to 1, "spread": [pixels, 68 of them],
                "milliseconds": for its points}]}

The box is what the face was cut out with, upright: its corners at the face's top left, top right, bottom right, bottom
left.

The number of a face stays the same for as long as it is followed through a video. A video lasts as long as it was;
where its frames come unevenly, some are shown twice or left out.

A file that another command, or this one of another source, wrote is not replaced but with --overwrite.
"""

from landmark.ending import one_line, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse
import contextlib
import csv
import glob
import itertools
import json
import math
import mimetypes
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from landmark.detectors import CASCADE, LEAST_SCORE, YUNET, load_detector
from landmark.files import check_outputs, read_picture, whole_file
from landmark.find import OWN_PB, default_pb, detect_faces, follow_faces, load_graph, predict, take_crop
from landmark.points import IMAGE_SIZE, LANDMARKS, draw_landmarks
from landmark.pose import draw_axes, estimate_pose
from landmark.video import Video, write_video

MANY = 10  # names on a line
POSE = "yaw", "pitch", "roll"
COLUMNS = [f"{axis}{i}" for i in range(LANDMARKS) for axis in "xy"]
COLUMNS += [*POSE, "score", *(f"spread{i}" for i in range(LANDMARKS))]


@contextlib.contextmanager
def write_points(paths):
    """Writes the points of faces, each file whole or not at all.

    Args:
        paths: Path of the .csv, and of the .json if there is to be one.

    Yields:
        add(picture, shown, faces, seconds), where picture is a name or the number of a frame, shown the second in the
        video or None, faces a list of Face, and seconds what it took.
    """
    with contextlib.ExitStack() as files:

        def create(path):
            partial = files.enter_context(whole_file(path))
            return files.enter_context(partial.open("w", newline="", encoding="utf-8", errors="surrogateescape"))

        rows = csv.writer(create(paths[0]))
        rows.writerow(["picture", "seconds", "face", *COLUMNS])
        text = create(paths[1]) if paths[1:] else None
        lead = itertools.chain("[", itertools.repeat(","))

        def add(picture, shown, faces, seconds):
            shown = None if shown is None else round(shown, 4)
            angles = [[None if math.isnan(a) else round(a, 2) for a in estimate_pose(face.points)] for face in faces]
            for face, pose in zip(faces, angles, strict=True):
                points, spread = ([f"{number:.2f}" for number in row.ravel()] for row in (face.points, face.spread))
                rows.writerow([picture, shown, face.number, *points, *pose, f"{face.score:.2f}", *spread])
            if not faces:
                rows.writerow([picture, shown, None, *[None] * len(COLUMNS)])
            if text:
                found = [
                    {
                        "face": face.number,
                        "box": face.box.round(2).tolist(),
                        "points": face.points.round(2).tolist(),
                        **dict(zip(POSE, pose, strict=True)),
                        "score": round(face.score, 2),
                        "spread": face.spread.round(2).tolist(),
                        "milliseconds": round(face.milliseconds, 2),
                    }
                    for face, pose in zip(faces, angles, strict=True)
                ]
                took = round(1000 * seconds, 2)
                entry = {"picture": picture, "seconds": shown, "milliseconds": took, "faces": found}
                text.write(f"{next(lead)}\n{json.dumps(entry)}")

        yield add
        if text:
            text.write("\n]\n")


def draw_faces(picture, faces, pose=False):
    """Draws the points of faces into a picture, in place, thicker on a larger face; and their axes, if pose is true."""
    for face in faces:
        side = np.linalg.norm(face.box[[1, 3]] - face.box[0], axis=-1).min()
        draw_landmarks(picture, face.points, side=side)
        if pose:
            draw_axes(picture, face.points, side)


def draw_pictures(session, detector, targets, points, pose=False):
    """Writes each picture with its points, and these; a file that is no picture, or none to draw on, is reported and
    left out, a photo without a face is reported and written as it is.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector, or None: every picture is a face crop.
        targets: dict of the Path of each picture, at least one, to the Path to draw it to.
        points: Paths, as of write_points.
        pose: whether to draw axes.

    Returns:
        (list of the Paths written, a line that says what was done).

    Raises:
        ValueError: not one of them is a picture; nothing is written then.
    """
    drawn, count, seconds = [], 0, []
    with write_points(points) as add:
        for path, target in tqdm(targets.items(), unit="picture", disable=None):
            try:
                picture, content = read_picture(path)
                began = time.perf_counter()
                faces = detect_faces(session, detector, picture) if detector else take_crop(session, picture)
                took = time.perf_counter() - began
                if faces:
                    draw_faces(picture, faces, pose)
                    kind = path.suffix if cv2.haveImageWriter(f"a{path.suffix}") else ".jpg"  # .jfif
                    written, content = cv2.imencode(kind, picture)
                    if not written:
                        raise cv2.error
            except ValueError as error:
                print(f"{path}: {error}; left out", file=sys.stderr)
                continue
            except cv2.error:
                height, width = picture.shape[:2]
                print(f"{path}: OpenCV cannot draw faces into {width}x{height} pixels; left out", file=sys.stderr)
                continue
            if not faces:
                print(f"{path}: no face found; written as it is", file=sys.stderr)
            with whole_file(target) as partial:
                partial.write_bytes(content)
            add(path.name, None, faces, took)
            drawn.append(target)
            seconds.append(took)
            count += len(faces)
        if not drawn:
            raise ValueError(f"not one of {len(targets)} pictures can be used: {', '.join(map(str, targets))}")
    what = f"for {count} faces and their points" if detector else "for the points"
    return drawn, f"{len(drawn)} pictures in {target.parent}, {1000 * np.median(seconds):.1f} ms each {what}"


def draw_video(session, detector, source, target, points, pose=False, shown=False):
    """Writes a video with the points of its faces, and these; Ctrl-C ends it early, but well.

    Args:
        session: tf.Session on a graph of load_graph.
        detector: of load_detector.
        source: Path of a video, or the number of a camera, int.
        target: Path of the mp4 to write.
        points: Paths, as of write_points.
        pose: whether to draw axes.
        shown: whether to show it in a window; q there ends it.

    Returns:
        a line that says what was written.

    Raises:
        ValueError: the source cannot be opened or has no frame, or no video of its size can be written; nothing is
            written then.
        OSError: the video could not be written whole.
    """
    video = Video(source)
    count, with_face, began = 0, 0, time.perf_counter()
    with write_points(points) as add, whole_file(target) as partial, write_video(partial, video.rate) as write:
        followed = follow_faces(session, detector, video)
        for frame, faces, seconds in tqdm(followed, total=video.length, unit="frame", disable=None):
            draw_faces(frame, faces, pose)
            write(frame, video.seconds)
            add(count, video.seconds, faces, seconds)
            count += 1
            with_face += bool(faces)
            if shown and show(frame, 1) == ord("q"):
                break
        if not count:
            kind = "camera" if isinstance(source, int) else "video"
            raise ValueError(f"OpenCV can read no {kind} {source}")
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
    parser.add_argument("--pb", type=Path, metavar="FILE", help=f"({OWN_PB}, else that in models/)")
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[Path("images")], metavar="PATH", help="face crops (images)"
    )
    parser.add_argument("--output", type=Path, default=Path("images/out"), metavar="DIR", help="(images/out)")
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument("--detect", action="store_true", help="--images holds whole photos: find the faces first")
    whole.add_argument("--video", type=Path, metavar="FILE", help="a video in place of --images")
    whole.add_argument("--camera", type=int, metavar="N", help="a camera in place of --images; 0 is the first")
    parser.add_argument("--detector", metavar="NAME", help=f"FILE of {YUNET}, or {CASCADE}: OpenCV 4's (RetinaFace)")
    parser.add_argument("--any_angle", action="store_true", help="search turned copies even where a face is upright")
    parser.add_argument("--score", type=float, metavar="S", help=f"least one of a face, 0 to 1 ({LEAST_SCORE})")
    parser.add_argument("--pose", action="store_true", help="draw axes: to the face's left red, down green, ahead blue")
    parser.add_argument("--json", action="store_true", help="write the points as .json too")
    parser.add_argument("--show", action="store_true", help="show what is drawn in a window")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    args.is_video = bool(args.video) or args.camera is not None
    args.target = args.output / (f"{args.video.stem}.mp4" if args.video else f"camera{args.camera}.mp4")
    for name in "detector", "any_angle", "score":
        if getattr(args, name) not in (None, False) and not (args.detect or args.is_video):
            parser.error(f"--{name} needs --detect, --video or --camera")
    args.score = LEAST_SCORE if args.score is None else args.score
    if not 0 <= args.score <= 1:
        parser.error(f"--score {args.score} is not from 0 to 1")
    args.paths = [] if args.is_video else list_pictures(args.images)
    if any(args.output.resolve() in (path.parent.resolve(), path.resolve().parent) for path in args.paths):
        parser.error(f"--output {args.output} would overwrite the pictures in --images")
    if args.video and args.target.resolve() == args.video.resolve():
        parser.error(f"--output {args.output} would overwrite {args.video}")
    return args


def list_pictures(images):
    """The pictures that --images names; other files beside them, but texts, are named on one line.

    Args:
        images: Paths of folders and of files, also with * and ?.

    Returns:
        list of Path.

    Raises:
        ValueError: there is no such folder or file, or no picture among them.
    """
    files = {}
    for path in images:
        found = path.iterdir() if path.is_dir() else [path] if path.exists() else map(Path, glob.glob(str(path)))
        found = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
        if not found:
            raise ValueError(f"no pictures in {path}" if path.is_dir() else f"no folder or picture {path}")
        files |= dict.fromkeys(found)
    pictures = [file for file in files if cv2.haveImageReader(os.fsencode(file))]
    if not pictures:
        raise ValueError(f"none of {len(files)} files in {', '.join(map(str, images))} is a picture that OpenCV reads")
    others = [str(file) for file in files if file not in {*pictures}]
    others = [name for name in others if not (mimetypes.guess_type(name)[0] or "").startswith("text/")]
    if others:
        more = f" and {len(others) - MANY} more" if len(others) > MANY else ""
        print(f"no pictures that OpenCV reads, left out: {', '.join(others[:MANY])}{more}", file=sys.stderr)
    return pictures


@one_line
def main():
    args = parse_args()
    source = args.camera if args.video is None else args.video
    targets = {path: args.output / path.name for path in args.paths}
    points = [args.target.with_suffix(".csv") if args.is_video else args.output / "points.csv"]
    points += [points[0].with_suffix(".json")] * args.json
    sources = {target: str(path.resolve()) for path, target in targets.items()}
    if len(sources) < len(targets):
        raise ValueError("two pictures in --images have the same name: give each folder an --output of its own")
    if args.is_video:
        made_of = f"camera {source}" if args.video is None else str(source.resolve())
        sources = dict.fromkeys([args.target, *points], made_of)
    else:
        sources |= dict.fromkeys(points, ", ".join(sorted({str(path.resolve().parent) for path in args.paths})))
    check_outputs(sources, args.overwrite)
    whole = args.detect or args.is_video
    detector = load_detector(args.detector, args.any_angle, args.score) if whole else None
    with tf.Session(graph=load_graph(args.pb or default_pb())) as session:
        predict(session, np.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8))  # the first run plans the graph
        args.output.mkdir(parents=True, exist_ok=True)
        if args.is_video:
            drawn, done = [], draw_video(session, detector, source, args.target, points, args.pose, args.show)
        else:
            drawn, done = draw_pictures(session, detector, targets, points, args.pose)
    print(f"{done}\nthe points in {' and '.join(map(str, points))}")
    for path in drawn if args.show else []:
        show(read_picture(path)[0])


if __name__ == "__main__":
    main()
