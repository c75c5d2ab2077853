"""Measures landmark.pb on faces with known landmarks.

Usage:
    python evaluate.py --records data/test.tfrecords                 # the held-out tenth
    python evaluate.py --data ~/300W_LP                              # a folder in the 300W_LP layout
    python evaluate.py --pb a.pb --pb b.pb --data ~/AFLW --output out
    python evaluate.py --records data/test.tfrecords --detect        # on whole photos too, as test_pb.py --detect

--output DIR writes results.json, ced.png (cumulative error curves) and worst.png (the 25 worst faces of the first
--pb, true points green, predicted ones red).
"""

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure
from tqdm import tqdm

from prepare_tfrecords import (
    GREEN,
    IMAGE_SIZE,
    LANDMARKS,
    PARTS,
    PREVIEW_CROPS,
    contact_sheet,
    crop_face,
    face_name,
    find_faces,
    photo_path,
    read_faces,
    to_crop,
    to_photo,
    whole_file,
)
from test_pb import (
    OWN_PB,
    SHIPPED_PB,
    default_pb,
    detect_faces,
    load_detector,
    load_graph,
    match_box,
    predict,
)
from train import RED, nme, read_features

BATCH = 32
LIMIT, BOX_LIMIT = 0.08, 0.10  # NME from which a face counts as failed (SPEC 7)
SHAKES, SHAKE = 5, 0.05  # draws a face; standard deviation of each side of the box, in sides of the crop
YAWS = [(0, 30), (30, 60), (60, 90)]
PROTOCOL = (
    "Protocol: crops of SPEC 2 from the true points; errors in pixels of the photo over |p36 - p45| (inter-ocular) or"
    f" sqrt(w h) of the points' box; failure above, AUC up to {LIMIT:.0%} inter-ocular and {BOX_LIMIT:.0%} box; shaken:"
    f" each side of the crop moved by a normal draw of {SHAKE:.0%} of its length, {SHAKES} draws a face, seed 0."
)
# The mean head of data/make_sample.py in millimetres, x right, y down, z away from the camera: nose tip, chin, outer
# eye corners, mouth corners.
POSE_LANDMARKS = [30, 8, 36, 45, 48, 54]
POSE_MODEL = np.array(
    [[0, 0, 0], [0, 85, 25.5], [-45, -32.5, 46.5], [45, -32.5, 46.5], [-25.5, 35.5, 26.5], [25.5, 35.5, 26.5]]
)

# names: list of <SET>/<stem>; crops: uint8 [N, 128, 128, 3]; points: float64 [N, 68, 2] in pixels of the photo;
# boxes: int64 [N, 4] x_min y_min x_max y_max; photos: list of bytes, empty where there is none; yaws: float64 [N],
# degrees, 0..90.
Faces = namedtuple("Faces", "names crops points boxes photos yaws")


# Faces


def read_folder(folder):
    """Faces of a 300W_LP folder; one that cannot be used is reported and left out.

    Raises:
        ValueError: none can be used.
    """
    landmarks = find_faces([folder])
    rows = []
    with contextlib.closing(read_faces(landmarks, len(os.sched_getaffinity(0)))) as faces:
        for path, face in zip(landmarks, tqdm(faces, "read", len(landmarks), unit="face", disable=None), strict=True):
            if isinstance(face, str):
                print(f"{face}; left out", file=sys.stderr)
            else:
                rows.append((face_name(path), *face, photo_path(path).with_suffix(".mat")))
    return _gather(rows, folder)


def read_records(paths):
    """Faces of record files.

    Raises:
        ValueError: a file is missing, damaged or empty.
    """
    rows = []
    for path in paths:
        for feature in read_features(path):
            image, name, photo = (b"".join(feature[key].bytes_list.value) for key in ("image", "name", "photo"))
            crop = np.frombuffer(image, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
            box = feature["box"].int64_list.value[:] or [0, 0, IMAGE_SIZE, IMAGE_SIZE]
            rows.append((name.decode() or f"{path}", crop, feature["label"].float_list.value[:], box, photo, None))
    return _gather(rows, ", ".join(map(str, paths)))


def _gather(rows, source):
    if not rows:
        raise ValueError(f"no face in {source}")
    names, crops, labels, boxes, photos, poses = zip(*rows, strict=True)
    boxes = np.array(boxes, np.int64)
    points = to_photo(np.array(labels, np.float64).reshape(-1, LANDMARKS, 2), boxes)
    yaws = [read_yaw(pose, points[i]) for i, pose in enumerate(poses)]
    return Faces(names, np.array(crops), points, boxes, photos, np.abs(yaws))


def read_yaw(pose_file, points):
    """The yaw of a face in degrees, positive or negative: from `Pose_Para` of its MAT file, else from its points.

    Args:
        pose_file: Path, or None.
        points: float64 [68, 2] in pixels of the photo.
    """
    if pose_file and pose_file.exists():
        return float(np.rad2deg(scipy.io.loadmat(pose_file)["Pose_Para"][0, 1]))
    # A camera far away: 300W_LP's own fits are weak perspective.
    size = np.ptp(points, axis=0).max()
    centre = points.mean(0)
    camera = np.array([[10 * size, 0, centre[0]], [0, 10 * size, centre[1]], [0, 0, 1]])
    _, rotation, _ = cv2.solvePnP(POSE_MODEL, points[POSE_LANDMARKS], camera, None, flags=cv2.SOLVEPNP_SQPNP)
    rotation = cv2.Rodrigues(rotation)[0]
    return float(np.rad2deg(np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))))


def shake_boxes(faces):
    """Every face cut by SHAKES boxes that are a little off.

    Args:
        faces: Faces.

    Yields:
        a face at a time: (crops uint8 [SHAKES, 128, 128, 3], boxes int64 [SHAKES, 4] in pixels of the photo).
    """
    shakes = np.random.default_rng(0).normal(0, SHAKE, [SHAKES, len(faces.names), 4])
    for i, (crop, box, photo) in enumerate(zip(faces.crops, faces.boxes, faces.photos, strict=True)):
        sides = np.tile(box[2:] - box[:2], 2)
        shaken = cuts = np.round(box + shakes[:, i] * sides).astype(np.int64)
        if photo:
            picture = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
        else:  # the crop is all there is
            picture = crop
            cuts = np.round((shaken - np.tile(box[:2], 2)) / sides * IMAGE_SIZE).astype(np.int64)
        yield np.array([crop_face(picture, cut) for cut in cuts.tolist()]), shaken


# Measures


def predict_points(session, crops, boxes):
    """Predicted points, float64 [N, 68, 2] in pixels of the photo."""
    batches = [predict(session, crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)]
    return to_photo(np.concatenate(batches).reshape(-1, LANDMARKS, 2), boxes)


def auc(errors, limit):
    """Area under the cumulative error curve from 0 to limit, as a share of limit: 1 when every error is 0.

    Args:
        errors: float [N], NME of each face.
        limit: the largest error counted.
    """
    return float(np.clip(1 - errors / limit, 0, None).mean())


def measure_faces(predicted, true):
    """The measures of SPEC 7 over some faces.

    Args:
        predicted, true: float [N, 68, 2] in pixels of the photo.

    Returns:
        dict of faces, nme_mean, nme_median, failure_rate, auc (inter-ocular), nme_box, failure_rate_box, auc_box.
    """
    inter_ocular, box = nme(predicted, true)
    return {
        "faces": len(true),
        "nme_mean": float(inter_ocular.mean()),
        "nme_median": float(np.median(inter_ocular)),
        "failure_rate": float((inter_ocular > LIMIT).mean()),
        "auc": auc(inter_ocular, LIMIT),
        "nme_box": float(box.mean()),
        "failure_rate_box": float((box > BOX_LIMIT).mean()),
        "auc_box": auc(box, BOX_LIMIT),
    }


def evaluate(session, faces):
    """Measures one network on faces.

    Args:
        session: tf.Session on a graph of test_pb.load_graph.
        faces: Faces.

    Returns:
        (dict of a group's name to its measures, the predicted points float64 [N, 68, 2]).
    """
    predicted = predict_points(session, faces.crops, faces.boxes)
    groups = {"all": np.ones(len(faces.names), bool)}
    sets = np.array([name.partition("/")[0] for name in faces.names])
    groups |= {name: sets == name for name in sorted(set(sets))}
    groups |= {f"yaw {low}-{high}": (low <= faces.yaws) & (faces.yaws < high) for low, high in YAWS}
    results = {
        name: measure_faces(predicted[chosen], faces.points[chosen]) for name, chosen in groups.items() if chosen.any()
    }
    distances = np.linalg.norm(predicted - faces.points, axis=-1)
    distances /= np.linalg.norm(faces.points[:, 36] - faces.points[:, 45], axis=-1)[:, None]
    for part, lines in PARTS.items():
        indices = sorted({index for line in lines for index in line})
        results[part] = {"faces": len(faces.names), "nme_mean": float(distances[:, indices].mean())}
    shaken = np.concatenate([predict_points(session, *cut) for cut in shake_boxes(faces)])
    results["shaken"] = measure_faces(shaken, np.repeat(faces.points, SHAKES, axis=0))
    return results, predicted


def detect_points(session, detector, faces):
    """The faces found in their whole photos.

    Args:
        session: tf.Session on a graph of test_pb.load_graph.
        detector: of test_pb.load_detector.
        faces: Faces, each with its photo.

    Returns:
        (points float64 [N, 68, 2] in pixels of the photo, NaN where no face overlaps the true crop; seconds of each
        photo, float [N]).

    Raises:
        ValueError: a face has no photo.
    """
    if not all(faces.photos):
        raise ValueError("--detect needs the photos, and these records hold none: python prepare_tfrecords.py")
    points, seconds = np.full(faces.points.shape, np.nan), []
    for i, photo in enumerate(tqdm(faces.photos, "detect", unit="photo", disable=None)):
        picture = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
        began = time.perf_counter()
        found = detect_faces(session, detector, picture)
        seconds.append(time.perf_counter() - began)
        best = match_box(faces.boxes[i], [face.box for face in found])
        if best is not None:
            points[i] = found[best].points
    return points, np.array(seconds)


# Output


def print_table(results):
    """Prints the measures of evaluate, a line a group."""
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


def draw_worst(faces, predicted, errors):
    """The faces with the largest errors, worst first, as a PNG file's bytes."""
    worst = np.argsort(-errors)[:PREVIEW_CROPS]
    points = [
        (to_crop(points[worst], faces.boxes[worst]), colour)
        for points, colour in ((faces.points, GREEN), (predicted, RED))
    ]
    return cv2.imencode(".png", contact_sheet(faces.crops[worst], points))[1].tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pb", action="append", metavar="FILE", help=f"may be given several times ({OWN_PB}, else {SHIPPED_PB})"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="a folder in the 300W_LP layout")
    source.add_argument("--records", type=Path, nargs="+", metavar="FILE", help="record files")
    parser.add_argument("--detect", action="store_true", help="find the faces in their whole photos too")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="as of test_pb.py")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write results.json and the pictures")
    args = parser.parse_args()
    if args.detector and not args.detect:
        parser.error("--detector needs --detect")
    tf.logging.set_verbosity(tf.logging.ERROR)
    try:
        detector = load_detector(args.detector) if args.detect else None
        faces = read_folder(args.data) if args.data else read_records(args.records)
        print(PROTOCOL)
        files, results, curves = {}, {}, {}
        for path in args.pb or [str(default_pb())]:
            began = time.monotonic()
            with tf.Session(graph=load_graph(path)) as session:
                results[path], predicted = evaluate(session, faces)
                crops = len(faces.names) * (1 + SHAKES)
                print(f"\n{path}: {crops} crops, {crops / (time.monotonic() - began):.0f} a second")
                if detector:
                    detected, seconds = detect_points(session, detector, faces)
                    found = np.isfinite(detected[:, 0, 0])
                    print(f"{found.mean():.1%} of the faces found, {1000 * np.median(seconds):.1f} ms a photo")
                    results[path]["detected"] = measure_faces(detected[found], faces.points[found])
                    results[path]["true crops"] = measure_faces(predicted[found], faces.points[found])
            print_table(results[path])
            curves[path] = nme(predicted, faces.points)[0]
            files.setdefault("worst.png", draw_worst(faces, predicted, curves[path]))
        if args.output:
            files["results.json"] = json.dumps({"protocol": PROTOCOL, "results": results}, indent=2).encode()
            files["ced.png"] = draw_curves(curves)
            args.output.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                with whole_file(args.output / name) as partial:
                    partial.write_bytes(content)
            print(f"\n{', '.join(sorted(files))} written to {args.output}")
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write to {args.output}: {error.strerror}")


if __name__ == "__main__":
    main()
