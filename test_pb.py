"""Draws the 68 points that a model finds on faces: on crops, on whole photos, in a video.

Usage:
    python test_pb.py                                    # images/ -> images/out/
    python test_pb.py --images ~/crops --output ~/drawn --show     # a folder, pictures, or "~/crops/*.jpg"
    python test_pb.py --detect --images ~/photos         # finds the faces first
    python test_pb.py --detect --images ~/photos --pose --any_angle --score 0.8
    python test_pb.py --video clip.mov --json            # -> images/out/clip.mp4, clip.csv, clip.json; or several
    python test_pb.py --camera 0 --show                  # until q or Ctrl-C; or /dev/video1, rtsp://...

Without --detect each picture is taken as a face crop (landmark/README.md, "The crop"). points.csv beside the drawn
pictures, or the .csv beside the drawn video, has a line for each face: the name of the picture, or the number of the
frame, from 0; the second in the video at which it is shown; the number of the face; the points, x0 y0 ... x67 y67 in
pixels of the picture; yaw (to the picture's left), pitch (up) and roll (clockwise) in degrees; the score, 0 to 1, that
it is a face; spread0 ... spread67, how far apart two crops put each point, in pixels; width and height of the picture;
eye_open_right, eye_open_left (the person's) and mouth_open, 0 when shut: the mean gap of the lids, or inner lips, over
the distance of their corners; for an eye this is the eye aspect ratio (|p37 - p41| + |p38 - p40|) / (2 |p36 - p39|) of
Soukupova and Cech (2016), near 0.3 when open (landmark/README.md, "Measures").
Pictures are turned upright as their EXIF orientation says, and the points are in pixels of the upright picture;
prepare_tfrecords.py reads them that way. A picture or frame without a face has one line, in which the columns of the
face are empty. The .json (--json) is a list of

    {"picture": name, "seconds": in the video, null for pictures, "milliseconds": to find its faces,
     "faces": [{"face": number, "box": [[x, y], 4 of them], "points": [[x, y], 68 of them],
                "yaw": degrees, "pitch": degrees, "roll": degrees, "score": 0 to 1, "spread": [pixels, 68 of them],
                "eye_open_right": ratio, "eye_open_left": ratio, "mouth_open": ratio,
                "milliseconds": for its points}]}

The box is the face's crop: its corners at the face's top left, top right, bottom right and bottom left.

The number of a face stays the same for as long as it is followed through a video. The drawn video lasts as long as the
original; where frames come unevenly, some are shown twice or left out.

Files not written by this same command, or made of another source, are kept unless you pass --overwrite.
"""

from landmark.startup import describe_device  # first: TensorFlow reads its settings as it is imported

import contextlib
import csv
import functools
import glob
import json
import math
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from landmark.cli import UserError, command, number, script_parser
from landmark.detectors import YUNET, load_detector
from landmark.formats import POINT_COLUMNS, Folder
from landmark.inference import MIN_SCORE, FaceFinder, FaceTracker, default_model, find_on_crop
from landmark.measures import measure_openings
from landmark.outputs import Outputs
from landmark.pictures import is_text, read_picture
from landmark.points import LANDMARKS, OPENINGS, draw_landmarks
from landmark.pose import Pose, draw_axes
from landmark.runtimes import check_model, load_session, loader_for
from landmark.video import Video, write_video

MAX_NAMES = 10  # on a line
IN_COLOUR = {".pgm": ".ppm", ".pbm": ".ppm"}  # the same format with colours, read by its first bytes
COLUMNS = [*POINT_COLUMNS, *Pose._fields, "score", *(f"spread{i}" for i in range(LANDMARKS)), "width", "height"]
COLUMNS += OPENINGS


@contextlib.contextmanager
def write_points(outputs, paths):
    """Writes the points of faces to a .csv, and a .json if `paths` has two, each whole or not at all.

    Yields add(picture, shown, faces, seconds, size): picture is a name or the number of a frame, shown the second in
    the video or None, faces a list of Face, seconds the time it took, and size (width, height) of the picture.
    """
    entries = []
    with contextlib.ExitStack() as files:
        partials = [files.enter_context(outputs.write(path)) for path in paths]
        table = partials[0].open("w", newline="", encoding="utf-8", errors="surrogateescape")
        rows = csv.writer(files.enter_context(table))
        rows.writerow(["picture", "seconds", "face", *COLUMNS])

        def add(picture, shown, faces, seconds, size):
            shown = None if shown is None else round(shown, 4)
            for face in faces:
                points, spread = ([f"{number:.2f}" for number in row.ravel()] for row in (face.points, face.spread))
                angles, openings = _rounded(face.pose, 2), _rounded(measure_openings(face.points), 4)
                numbers = [*points, *angles, f"{face.score:.2f}", *spread, *size, *openings]
                rows.writerow([picture, shown, face.number, *numbers])
            if not faces:
                rows.writerow([picture, shown, None, *[None] * len(COLUMNS)])
            if paths[1:]:
                took, found = round(1000 * seconds, 2), [_describe(face) for face in faces]
                entries.append({"picture": picture, "seconds": shown, "milliseconds": took, "faces": found})

        yield add
        for partial in partials[1:]:
            partial.write_text(json.dumps(entries, indent=1), "utf-8", "surrogateescape")


def _rounded(numbers, digits):
    return [None if math.isnan(number) else round(number, digits) for number in numbers]


def _describe(face):
    """What the .json says of a Face."""
    return {
        "face": face.number,
        "box": face.box.round(2).tolist(),
        "points": face.points.round(2).tolist(),
        **dict(zip(Pose._fields, _rounded(face.pose, 2), strict=True)),
        "score": round(face.score, 2),
        "spread": face.spread.round(2).tolist(),
        **dict(zip(OPENINGS, _rounded(measure_openings(face.points), 4), strict=True)),
        "milliseconds": round(face.milliseconds, 2),
    }


def draw_faces(picture, faces, pose):
    """Draws the points of faces into a picture, in place, thicker on a larger face; and their axes, if pose is true."""
    for face in faces:
        side = np.linalg.norm(face.box[[1, 3]] - face.box[0], axis=-1).min()
        draw_landmarks(picture, face.points, side=side)
        if pose:
            draw_axes(picture, face.points, side)


def draw_picture(find, path, pose):
    """Draws the faces of a picture file that `find`, a function of a picture, returns.

    Returns: (bytes of the drawn file, list of Face, seconds that finding them took, (width, height)).
    Raises UserError: it is not a picture, or OpenCV cannot draw into one of this size.
    """
    picture, content = read_picture(path)
    try:
        began = time.perf_counter()
        faces = find(picture)
        seconds = time.perf_counter() - began
        if faces:
            draw_faces(picture, faces, pose)
            suffix = IN_COLOUR.get(path.suffix.lower(), path.suffix)
            suffix = suffix if cv2.haveImageWriter(f"a{suffix}") else ".jpg"  # .jfif
            written, content = cv2.imencode(suffix, picture)
            if not written:
                raise cv2.error
    except cv2.error:
        height, width = picture.shape[:2]
        raise UserError(f"OpenCV cannot draw faces into {width}x{height} pixels") from None
    return content, faces, seconds, picture.shape[1::-1]


def draw_pictures(find, targets, outputs, points, pose):
    """Draws pictures, a dict of Path to the Path of the drawing; reports those that are unreadable or without a face.

    Returns (list of the Paths written, a line that says what was done). Raises UserError, before anything is written,
    if none can be used.
    """
    drawn, count, times = [], 0, []
    with write_points(outputs, points) as add:
        for path, target in tqdm(targets.items(), unit="picture", disable=None):
            try:
                content, faces, seconds, size = draw_picture(find, path, pose)
            except UserError as error:
                tqdm.write(f"{path}: {error}; left out", file=sys.stderr)
                continue
            if not faces:
                tqdm.write(f"{path}: no face found; written as it is", file=sys.stderr)
            target.parent.mkdir(parents=True, exist_ok=True)
            with outputs.write(target) as partial:
                partial.write_bytes(content)
            add(str(target.relative_to(points[0].parent)), None, faces, seconds, size)
            drawn.append(target)
            times.append(seconds)
            count += len(faces)
        if not drawn:
            raise UserError(f"none of {len(targets)} pictures can be used: {', '.join(map(str, targets))}")
    rate = f"{1000 * np.median(times):.1f} ms a picture"
    return drawn, f"{len(drawn)} pictures in {points[0].parent}, {count} faces, {rate}"


def draw_video(find_faces, source, target, outputs, points, pose, shown):
    """Writes a video, from a Path or a camera (see Video), with the points of its faces; Ctrl-C, or q in the window
    where it is shown, ends it early.

    Returns (a line that says what was written, whether it was Ctrl-C that ended it). Raises UserError, before anything
    is written, if there is no frame or no video of its size can be written.
    """
    video, track = Video(source), FaceTracker(find_faces)
    count, with_face, began = 0, 0, time.perf_counter()
    with (
        write_points(outputs, points) as add,
        outputs.write(target) as partial,
        write_video(partial, video.rate) as write,
    ):
        for frame in tqdm(video, total=video.length, unit="frame", disable=None):
            start = time.perf_counter()
            faces = track(frame)
            seconds = time.perf_counter() - start
            draw_faces(frame, faces, pose)
            write(frame, video.seconds)
            add(count, video.seconds, faces, seconds, frame.shape[1::-1])
            count += 1
            with_face += bool(faces)
            if shown and show(frame, 1) == ord("q"):
                video.is_stopped = True
                break
        if not count:
            what = f"camera {re.sub(r'//[^/@]*@', '//', str(source))}" if video.is_camera else f"video {source}"
            raise UserError(f"OpenCV cannot read {what}")  # without the password of a URL
    if video.is_cut(count):
        print(f"{source} is cut short: only {count} of its {video.length} frames can be read", file=sys.stderr)
    rate = count / (time.perf_counter() - began)
    done = f"{count} frames in {target}, {with_face} with a face, {rate:.1f} frames a second"
    return done, video.is_interrupted


def show(picture, milliseconds=0):
    """Shows a picture in a window until a key is pressed, or for some milliseconds: the key's number, -1 for none."""
    try:
        cv2.imshow("landmarks: any key for the next, q ends a video", picture)
        return cv2.waitKey(milliseconds)
    except cv2.error:
        raise UserError(
            "--show needs a display and an OpenCV with windows:"
            " pip uninstall opencv-python-headless, then pip install opencv-python"
        ) from None


def parse_args():
    parser = script_parser(__doc__)
    parser.add_argument("--pb", type=Path, metavar="FILE", help=".pb, .tflite or .onnx (landmark.pb, else in models/)")
    parser.add_argument("--images", type=Path, nargs="+", action="extend", help="pictures, folders (images)")
    parser.add_argument("--output", type=Path, default=Path("images/out"), metavar="DIR", help="folder (images/out)")
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument("--detect", action="store_true", help="--images holds whole photos: find the faces first")
    whole.add_argument("--video", type=Path, nargs="+", action="extend", metavar="FILE", help="in place of --images")
    whole.add_argument("--camera", metavar="N", help="a camera in place of --images: 0 is the first; or a path, a URL")
    parser.add_argument("--detector", metavar="FILE", help=f"path of {YUNET}, in place of RetinaFace")
    parser.add_argument("--any_angle", action="store_true", help="search turned copies even where a face is upright")
    parser.add_argument("--score", type=number(float, 0, 1), help=f"minimum score of a face, 0 to 1 ({MIN_SCORE})")
    parser.add_argument("--pose", action="store_true", help="draw axes: to the face's left red, down green, ahead blue")
    parser.add_argument("--json", action="store_true", help="write the points as .json too")
    parser.add_argument("--show", action="store_true", help="show what is drawn in a window")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    args.videos = args.video or []  # Paths; or one camera, int or str
    if args.camera is not None:
        if re.fullmatch(r"-\d+", args.camera):
            parser.error(f"--camera {args.camera}: the first camera is 0")
        args.videos = [int(args.camera) if args.camera.isdecimal() else args.camera]
    if args.images and args.videos:
        parser.error("--images with --video or --camera: give one of them")
    args.images = args.images or [Path("images")]
    for name in "detector", "any_angle", "score":
        if getattr(args, name) not in (None, False) and not (args.detect or args.videos):
            parser.error(f"--{name} needs --detect, --video or --camera")
    args.score = MIN_SCORE if args.score is None else args.score
    args.targets = {} if args.videos else list_pictures(args.images, args.output)
    args.targets |= {source: args.output / f"{name_video(source)}.mp4" for source in args.videos}
    for path, target in args.targets.items():
        if isinstance(path, Path) and target.resolve() in (path.resolve(), path.parent.resolve() / path.name):
            parser.error(f"--output {args.output} would overwrite {path}")
    target, count = Counter(args.targets.values()).most_common(1)[0]
    if count > 1:
        parser.error(f"two of the files have the same name, {target.name}: give each folder an --output of its own")
    return args


def name_video(source):
    """The name of the drawn video of a Path, the number of a camera, or its path or URL."""
    if isinstance(source, Path):
        return source.stem
    return f"camera{source}" if isinstance(source, int) else re.sub(r"\W+", "_", source.rpartition("@")[2]).strip("_")


def list_pictures(images, output):
    """The pictures among files, patterns with * and ?, and folders with their subfolders (Paths): dict of each to the
    Path to draw it to, in the same subfolder of `output`. Other files, except text, are reported.

    Raises UserError if there is no such folder or file, or no picture in it.
    """
    files = {}
    for path in map(Path.expanduser, images):  # the shell leaves "~/crops/*.jpg" as it is
        found = [path] if path.is_file() else map(Path, sorted(glob.glob(str(path))))
        if path.is_dir():
            drawn = output.resolve() if output.resolve() != path.resolve() else None  # earlier drawings
            found = [file for file in Folder(path).files if drawn not in file.resolve().parents]
        found = {file: output / (file.relative_to(path) if path.is_dir() else file.name) for file in found}
        if not found:
            raise UserError(f"no pictures in {path}" if path.is_dir() else f"no folder or picture {path}")
        files |= found
    pictures = [file for file in files if cv2.haveImageReader(os.fsencode(file))]
    if not pictures:
        raise UserError(f"none of {len(files)} files in {', '.join(map(str, images))} is a picture that OpenCV reads")
    others = [str(file) for file in files if file not in {*pictures} and not is_text(file)]
    if others:
        more = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
        print(f"left out, since OpenCV cannot read them: {', '.join(others[:MAX_NAMES])}{more}", file=sys.stderr)
    return {file: files[file] for file in pictures}


def tables_of(args, target):
    """The Paths of the .csv, and of the .json with --json, beside a drawn video, or of all drawn pictures."""
    path = target.with_suffix(".csv") if args.videos else args.output / "points.csv"
    return [path, path.with_suffix(".json")] if args.json else [path]


def list_sources(args):
    """What each output is made of, for Outputs: dict of its Path to a str."""
    sources = {}
    images = ", ".join(sorted(str(path.resolve()) for path in args.images))
    for path, target in args.targets.items():
        sources[target] = str(path.resolve()) if isinstance(path, Path) else f"camera {name_video(path)}"
        sources |= dict.fromkeys(tables_of(args, target), sources[target] if args.videos else images)
    return sources


@command
def main():
    args = parse_args()
    outputs = Outputs(list_sources(args), args.overwrite)
    model = args.pb or default_model()
    print(f"finding points with {model}, on {describe_device()}")
    predict = loader_for(model, load_session)(model)
    check_model(predict, model)
    find = functools.partial(find_on_crop, predict)
    if args.detect or args.videos:
        find = FaceFinder(predict, load_detector(args.detector), args.any_angle, args.score)
    args.output.mkdir(parents=True, exist_ok=True)
    for source in args.video or ():  # before any work
        if not cv2.VideoCapture(os.fsencode(source)).grab():
            raise UserError(f"OpenCV cannot read video {source}")
    for source in args.videos:
        target = args.targets[source]
        tables = tables_of(args, target)
        done, is_interrupted = draw_video(find, source, target, outputs, tables, args.pose, args.show)
        print(f"{done}; the points are in {' and '.join(map(str, tables))}")
        if is_interrupted:
            break
    if not args.videos:
        tables = tables_of(args, args.output)
        drawn, done = draw_pictures(find, args.targets, outputs, tables, args.pose)
        print(f"{done}; the points are in {' and '.join(map(str, tables))}")
        for path in drawn if args.show else []:
            show(read_picture(path)[0])


if __name__ == "__main__":
    main()
