"""Measures landmark.pb on faces with known landmarks.

Usage:
    python evaluate.py --records data/test.tfrecords                 # the held-out tenth
    python evaluate.py --data ~/300W_LP                              # a folder of annotated photos
    python evaluate.py --pb a.pb --pb b.pb --data ~/AFLW2000 --output out
    python evaluate.py --data ~/300W_LP --detect                     # on whole photos too, as test_pb.py --detect

--output DIR writes results.json, ced.png (cumulative error curves) and worst.png (the 25 worst faces of the first
--pb, true points green, predicted ones red).
"""

import argparse
import contextlib
import heapq
import io
import json
import sys
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure
from tqdm import tqdm

from landmark.annotations import CORES, find_annotations, read_faces
from landmark.files import one_line, read_picture, whole_file
from landmark.find import (
    OWN_PB,
    SHIPPED_PB,
    default_pb,
    detect_faces,
    load_detector,
    load_graph,
    match_box,
    predict,
)
from landmark.formats import read_points
from landmark.points import (
    BOX_LIMIT,
    GREEN,
    IMAGE_SIZE,
    LANDMARKS,
    LIMIT,
    NME,
    PARTS,
    RED,
    auc,
    contact_sheet,
    crop_box,
    crop_face,
    measure_faces,
    nme,
    to_crop,
    to_photo,
)
from landmark.pose import YAWS, estimate_yaw
from landmark.records import read_records

BATCH = 32
WORST = 25
SHAKES, SHAKE = 5, 0.05  # draws a face; standard deviation of each side of the box, in sides of the crop
PROTOCOL = (
    "Protocol: crops of landmark/README.md 2 from the true points; errors in pixels of the photo over |p36 - p45|"
    f" (inter-ocular) or sqrt(w h) of the points' box; failure above, AUC up to {LIMIT:.0%} inter-ocular and"
    f" {BOX_LIMIT:.0%} box; shaken: each side of the crop moved by a normal draw of {SHAKE:.0%} of its length, {SHAKES}"
    " draws a face, seed 0."
)
# names: list of <SET>/<stem>; points: float64 [N, 68, 2] in pixels of the photo; boxes: int64 [N, 4], x_min y_min x_max
# y_max; yaws: float64 [N], degrees, 0 or more; read: function that yields their LabelledFaces once more, so that no
# picture stays in memory; annotations: list of Annotation, None for records.
Faces = namedtuple("Faces", "names points boxes yaws read annotations")

# What one network does. errors: NME; distances: float64 [N, 68] over |p36 - p45|; shaken: NME of N * SHAKES crops;
# worst: list of (error, number, crop uint8 [128, 128, 3], points float64 [68, 2] in pixels of the photo), worst first.
Prediction = namedtuple("Prediction", "errors distances shaken worst")


# Faces


def find_folders(folders, kind):
    """The Faces of folders of annotated photos; one that cannot be used is reported and left out.

    Args:
        folders: Paths.
        kind: of the points, as of annotations.read_face.

    Raises:
        ValueError: none can be used.
    """
    annotations = find_annotations(folders)

    def read():
        with contextlib.closing(read_faces(annotations, kind, ahead=CORES)) as faces:
            yield from faces

    return _gather(read, ", ".join(map(str, folders)), annotations)


def find_records(paths):
    """The Faces of record files.

    Raises:
        ValueError: a file is missing, damaged or empty.
    """

    def read():
        for path in paths:
            yield from read_records(path)

    return _gather(read, ", ".join(map(str, paths)))


def _gather(read, source, annotations=None):
    rows, usable = [], []
    for i, face in enumerate(tqdm(read(), "read", unit="face", disable=None)):
        if isinstance(face, str):
            print(f"{face}; left out", file=sys.stderr)
        else:
            rows.append((face.name, face.label, face.box, face.yaw))
            usable.append(i)
    if not rows:
        raise ValueError(f"no face in {source}")
    names, labels, boxes, yaws = zip(*rows, strict=True)
    boxes = np.array(boxes, np.int64)
    points = to_photo(np.array(labels, np.float64).reshape(-1, LANDMARKS, 2), boxes)
    yaws = [abs(estimate_yaw(points[i])) if np.isnan(yaw) else yaw for i, yaw in enumerate(yaws)]

    def read_usable():
        return (face for face in read() if not isinstance(face, str))

    return Faces(names, points, boxes, np.array(yaws), read_usable, annotations and [annotations[i] for i in usable])


def shake_box(face, shakes):
    """A face cut by boxes that are a little off.

    Args:
        face: LabelledFace.
        shakes: float [K, 4], how far each side of its box is moved, in its sides.

    Returns:
        (crops uint8 [K, 128, 128, 3], boxes int64 [K, 4] in pixels of the photo).
    """
    box = np.array(face.box)
    sides = np.tile(box[2:] - box[:2], 2)
    shaken = cuts = np.round(box + shakes * sides).astype(np.int64)
    if face.photo:
        picture = cv2.imdecode(np.frombuffer(face.photo, np.uint8), cv2.IMREAD_COLOR)
    else:  # the crop is all there is
        picture = face.crop
        cuts = np.round((shaken - np.tile(box[:2], 2)) / sides * IMAGE_SIZE).astype(np.int64)
    return np.array([crop_face(picture, cut) for cut in cuts.tolist()]), shaken


# Measures


def predict_points(session, crops, boxes):
    """Predicted points, float64 [N, 68, 2] in pixels of the photo."""
    return to_photo(predict(session, crops).reshape(-1, LANDMARKS, 2), boxes)


def predict_faces(session, faces):
    """Predicts every face once with its true crop and SHAKES times with a shaken one.

    Args:
        session: tf.Session on a graph of find.load_graph.
        faces: Faces.

    Returns:
        Prediction.
    """
    count = len(faces.names)
    shakes = np.random.default_rng(0).normal(0, SHAKE, [SHAKES, count, 4])
    errors, distances, shaken, worst, batch = [], [], [], [], []
    for i, face in enumerate(tqdm(faces.read(), "predict", count, unit="face", disable=None)):
        true = faces.points[i : i + 1]
        crops, boxes = shake_box(face, shakes[:, i])
        true, box = np.repeat(true, SHAKES, axis=0), np.repeat(faces.boxes[i : i + 1], SHAKES, axis=0)
        shaken.append(nme(predict_points(session, crops, boxes), true, box))
        batch.append(face.crop)
        if len(batch) < BATCH and i < count - 1:
            continue
        now = slice(i + 1 - len(batch), i + 1)
        true = faces.points[now]
        points = predict_points(session, np.array(batch), faces.boxes[now])
        errors.append(nme(points, true, faces.boxes[now]))
        eyes = np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)
        distances.append(np.linalg.norm(points - true, axis=-1) / eyes[:, None])
        worst += zip(errors[-1].inter_ocular, range(now.start, now.stop), batch, points, strict=True)
        worst, batch = heapq.nlargest(WORST, worst, key=lambda row: row[0]), []
    errors, shaken = (NME(*map(np.concatenate, zip(*parts, strict=True))) for parts in (errors, shaken))
    return Prediction(errors, np.concatenate(distances), shaken, worst)


def measure_some(errors, chosen):
    """The measures over some of the faces of an NME; chosen: bool [N]."""
    return measure_faces(NME(errors.inter_ocular[chosen], errors.box[chosen]))


def measure_groups(prediction, faces):
    """The measures of one network by set, yaw, part of the face and under a shaken box.

    Args:
        prediction: Prediction.
        faces: Faces.

    Returns:
        dict of a group's name to its measures.
    """
    groups = {"all": np.ones(len(faces.names), bool)}
    sets = np.array([name.partition("/")[0] for name in faces.names])
    groups |= {name: sets == name for name in sorted(set(sets))}
    groups |= {f"yaw {low}-{high}": (low <= faces.yaws) & (faces.yaws < high) for low, high in YAWS}
    results = {name: measure_some(prediction.errors, chosen) for name, chosen in groups.items() if chosen.any()}
    for part, lines in PARTS.items():
        indices = sorted({index for line in lines for index in line})
        results[part] = {"faces": len(faces.names), "nme_mean": float(np.nanmean(prediction.distances[:, indices]))}
    return results | {"shaken": measure_faces(prediction.shaken)}


def detect_points(session, detector, faces):
    """The faces found in their whole photos.

    Args:
        session: tf.Session on a graph of find.load_graph.
        detector: of find.load_detector.
        faces: Faces of folders.

    Returns:
        (points float64 [N, 68, 2] in pixels of what faces.points are in, NaN where no face overlaps the true crop;
        seconds of each photo, float [N]).
    """
    points, seconds = np.full(faces.points.shape, np.nan), []
    for i, annotation in enumerate(tqdm(faces.annotations, "detect", unit="photo", disable=None)):
        picture, _ = read_picture(annotation.photo)
        began = time.perf_counter()
        found = detect_faces(session, detector, picture)
        seconds.append(time.perf_counter() - began)
        box = crop_box(next(iter(read_points(annotation).values())))
        best = match_box(box, [face.box for face in found])
        if best is not None:
            points[i] = to_photo(to_crop(found[best].points, box), faces.boxes[i])
    return points, np.array(seconds)


# Output


def print_table(results):
    """Prints measures, a line a group."""
    columns = ["faces", "nme_mean", "nme_median", "nme_box", "failure_rate", "auc"]
    print(f"{'':12}" + "".join(f"{column:>14}" for column in columns))
    for name, measures in results.items():
        cells = [f"{measures[column]:.2%}" if column in measures else "" for column in columns[1:]]
        print(f"{name:12}{measures['faces']:>14}" + "".join(f"{cell:>14}" for cell in cells))


def draw_curves(curves):
    """The cumulative error curves as a PNG file's bytes.

    Args:
        curves: dict of a name to its faces' inter-ocular NME, float [N].
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, errors in curves.items():
        shares = np.arange(1, len(errors) + 1) / len(errors)
        label = f"{name}: AUC {auc(errors, LIMIT):.3f}, failed {np.mean(errors > LIMIT):.1%}"
        axes.step([0, *np.sort(100 * errors)], [0, *shares], where="post", label=label)
    axes.set(xlim=(0, 100 * LIMIT), ylim=(0, 1), xlabel="NME, % of inter-ocular distance", ylabel="share of faces")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file := io.BytesIO(), format="png", dpi=120)
    return file.getvalue()


def draw_worst(faces, worst):
    """The faces with the largest errors, worst first, as a PNG file's bytes; worst: as of Prediction."""
    _, numbers, crops, predicted = zip(*worst, strict=True)
    numbers = list(numbers)
    drawn = [
        (to_crop(points, faces.boxes[numbers]), colour)
        for points, colour in ((faces.points[numbers], GREEN), (np.array(predicted), RED))
    ]
    return cv2.imencode(".png", contact_sheet(np.array(crops), drawn))[1].tobytes()


def evaluate(path, detector, faces):
    """Measures one frozen graph and prints its table.

    Args:
        path: of the frozen graph.
        detector: of find.load_detector, or None: the faces are not looked for in their whole photos.
        faces: Faces.

    Returns:
        (dict of a group's name to its measures, Prediction).
    """
    with tf.Session(graph=load_graph(path)) as session:
        began = time.monotonic()
        prediction = predict_faces(session, faces)
        results, crops = measure_groups(prediction, faces), len(faces.names) * (1 + SHAKES)
        print(f"\n{path}: {crops} crops, {crops / (time.monotonic() - began):.0f} a second")
        if detector:
            detected, seconds = detect_points(session, detector, faces)
            found = np.isfinite(detected[:, 0, 0])
            print(f"{found.mean():.1%} of the faces found, {1000 * np.median(seconds):.1f} ms a photo")
            results["detected"] = measure_faces(nme(detected[found], faces.points[found], faces.boxes[found]))
            results["true crops"] = measure_some(prediction.errors, found)
    print_table(results)
    return results, prediction


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pb", action="append", metavar="FILE", help=f"may be given several times ({OWN_PB}, else {SHIPPED_PB})"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data",
        action="append",
        type=Path,
        metavar="DIR",
        help="a folder of annotated photos; may be given several times",
    )
    source.add_argument("--records", type=Path, nargs="+", metavar="FILE", help="record files")
    parser.add_argument("--points", choices=["2d", "3d"], default="2d", help="of --data, as prepare_tfrecords.py (2d)")
    parser.add_argument("--detect", action="store_true", help="find the faces in their whole photos too; with --data")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="as of test_pb.py")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write results.json and the pictures")
    args = parser.parse_args()
    if args.detector and not args.detect:
        parser.error("--detector needs --detect")
    if args.detect and not args.data:
        parser.error("--detect needs the whole photos: --data")
    return args


@one_line
def main():
    args = parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    detector = load_detector(args.detector) if args.detect else None
    faces = find_folders(args.data, f"pts_{args.points}") if args.data else find_records(args.records)
    print(PROTOCOL)
    files, results, curves = {}, {}, {}
    for path in args.pb or [str(default_pb())]:
        results[path], prediction = evaluate(path, detector, faces)
        curves[path] = prediction.errors.inter_ocular
        files.setdefault("worst.png", draw_worst(faces, prediction.worst))
    if args.output:
        files["results.json"] = json.dumps({"protocol": PROTOCOL, "results": results}, indent=2).encode()
        files["ced.png"] = draw_curves(curves)
        args.output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with whole_file(args.output / name) as partial:
                partial.write_bytes(content)
        print(f"\n{', '.join(sorted(files))} written to {args.output}")


if __name__ == "__main__":
    main()
