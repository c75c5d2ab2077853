"""Draws the 68 points that landmark.pb finds on pictures of faces.

Usage:
    python test_pb.py                                    # images/ -> images/out/
    python test_pb.py --images ~/crops --output ~/drawn --show

Each picture is taken as a face crop: cut as prepare_tfrecords.crop_box would cut it. points.csv beside the drawn
pictures holds the points, x0 y0 ... x67 y67 in pixels of the picture.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from prepare_tfrecords import IMAGE_SIZE, LANDMARKS, draw_landmarks, read_picture, whole_file
from senet import INPUT_NAME, OUTPUT_NAME

OWN_PB = Path("landmark.pb")
SHIPPED_PB = Path("models/landmark.pb")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


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


def find_landmarks(session, picture):
    """Points on one picture.

    Args:
        session: tf.Session on a graph of load_graph.
        picture: uint8 [H, W, 3], BGR, a face crop.

    Returns:
        float64 [68, 2], x and y in pixels of the picture.
    """
    crop = cv2.resize(picture, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
    shares = predict(session, crop[None])[0].reshape(LANDMARKS, 2)
    return shares * np.array(picture.shape[1::-1], np.float64)


def draw_pictures(session, paths, output):
    """Writes each picture with its points into a folder under its own name, and points.csv; a file that is no
    picture is reported and left out.

    Args:
        session: tf.Session on a graph of load_graph.
        paths: Paths of the pictures, at least one.
        output: Path of a folder that exists.

    Returns:
        (list of the Paths written, list of seconds each took to predict).

    Raises:
        ValueError: not one of them is a picture; nothing is written then.
    """
    drawn, seconds = [], []
    with whole_file(output / "points.csv") as partial, partial.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", *(f"{axis}{i}" for i in range(LANDMARKS) for axis in "xy")])
        for path in paths:
            try:
                picture, _ = read_picture(path)
            except ValueError as error:
                print(f"{path}: {error}; left out", file=sys.stderr)
                continue
            began = time.perf_counter()
            points = find_landmarks(session, picture)
            seconds.append(time.perf_counter() - began)
            rows.writerow([path.name, *(f"{number:.2f}" for number in points.ravel())])
            draw_landmarks(picture, points)
            with whole_file(output / path.name) as partial_picture:
                partial_picture.write_bytes(cv2.imencode(path.suffix, picture)[1])
            drawn.append(output / path.name)
        if not drawn:
            raise ValueError(f"none of the {len(paths)} files in {paths[0].parent} is a picture that can be read")
    return drawn, seconds


def show_pictures(paths):
    """Opens a window for one picture after the other; any key goes on.

    Raises:
        ValueError: there is no display, or this OpenCV has no windows.
    """
    for path in paths:
        try:
            cv2.imshow("landmarks: any key for the next", cv2.imread(str(path)))
            cv2.waitKey()
        except cv2.error:
            raise ValueError(
                "--show needs a display and an OpenCV with windows:"
                " pip uninstall opencv-python-headless, then pip install opencv-python"
            ) from None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pb", type=Path, metavar="FILE", help=f"({OWN_PB}, else {SHIPPED_PB})")
    parser.add_argument("--images", type=Path, default=Path("images"), metavar="DIR", help="face crops (images)")
    parser.add_argument("--output", type=Path, default=Path("images/out"), metavar="DIR", help="(images/out)")
    parser.add_argument("--show", action="store_true", help="open each drawn picture in a window")
    args = parser.parse_args()
    if args.output.resolve() == args.images.resolve():
        parser.error(f"--output {args.output} would overwrite the pictures in --images")
    if not args.images.is_dir():
        sys.exit(f"no folder {args.images}")
    paths = sorted(path for path in args.images.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        sys.exit(f"no pictures in {args.images}: put face crops there ({' '.join(sorted(SUFFIXES))})")
    try:
        with tf.Session(graph=load_graph(args.pb or default_pb())) as session:
            predict(session, np.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8))  # the first run plans the graph
            args.output.mkdir(parents=True, exist_ok=True)
            drawn, seconds = draw_pictures(session, paths, args.output)
        print(f"{len(drawn)} pictures in {args.output}, {1000 * np.median(seconds):.1f} ms each for the points")
        print(f"their points in {args.output / 'points.csv'}")
        if args.show:
            show_pictures(drawn)
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write to {args.output}: {error.strerror}")


if __name__ == "__main__":
    main()
