"""Measures landmark.pb on faces with known landmarks.

Usage:
    python evaluate.py --records data/test.tfrecords                 # the held-out tenth
    python evaluate.py --data ~/300W_LP                              # a folder of annotated photos
    python evaluate.py --pb a.pb --pb b.pb --data ~/AFLW2000 --output out
    python evaluate.py --data ~/300W_LP --detect                     # on whole photos too, as test_pb.py --detect

--output DIR writes results.json, ced.png (cumulative error curves) and worst.png (the 25 worst faces of the first
--pb by the box, true points green, predicted ones red).
"""

from landmark.ending import one_line, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse
import io
import json
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure

from landmark.detectors import load_detector
from landmark.evaluation import (
    PROTOCOL,
    SHAKES,
    correlate_spread,
    detect_points,
    find_folders,
    find_records,
    measure_groups,
    measure_poses,
    measure_some,
    predict_faces,
)
from landmark.files import check_outputs, whole_file
from landmark.find import OWN_PB, default_pb, kind_of, load_graph
from landmark.points import BOX_LIMIT, GREEN, LIMIT, RED, auc, contact_sheet, measure_faces, nme, to_crop

OUTPUTS = "ced.png", "results.json", "worst.png"


def print_table(results):
    """Prints measures, a line a group."""
    columns = ["faces", "nme_mean", "nme_median", "nme_box", "nme_inner", "failure_rate", "auc"]
    print(f"{'':12}" + "".join(f"{column:>14}" for column in columns))
    for name, measures in results.items():
        cells = [f"{measures[column]:.2%}" if column in measures else "" for column in columns[1:]]
        print(f"{name:12}{measures['faces']:>14}" + "".join(f"{cell:>14}" for cell in cells))


def draw_curves(curves):
    """The cumulative error curves as a PNG file's bytes.

    Args:
        curves: dict of a name to its faces' NME.
    """
    figure = Figure(figsize=(13, 5), layout="constrained")
    scales = ("inter_ocular", LIMIT, "inter-ocular distance"), ("box", BOX_LIMIT, "the box")
    for axes, (scale, limit, title) in zip(figure.subplots(1, 2), scales, strict=True):
        for name, errors in curves.items():
            errors = getattr(errors, scale)
            errors = errors[np.isfinite(errors)]
            shares = np.arange(1, len(errors) + 1) / len(errors)
            label = f"{name}: AUC {auc(errors, limit):.3f}, failed {np.mean(errors > limit):.1%}"
            axes.step([0, *np.sort(100 * errors)], [0, *shares], where="post", label=label)
        axes.set(xlim=(0, 100 * limit), ylim=(0, 1), xlabel=f"NME, % of {title}", ylabel="share of faces")
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


def evaluate(path, graph, detector, faces):
    """Measures one frozen graph and prints its table.

    Args:
        path: of the frozen graph.
        graph: of find.load_graph.
        detector: of detectors.load_detector, or None: the faces are not looked for in their whole photos.
        faces: Faces.

    Returns:
        (dict of a group's name to its measures, Prediction).
    """
    with tf.Session(graph=graph) as session:
        began = time.monotonic()
        prediction = predict_faces(session, faces)
        results, crops = measure_groups(prediction, faces), len(faces.names) * (1 + SHAKES)
        print(f"\n{path}: {crops} crops, {crops / (time.monotonic() - began):.0f} a second")
        if detector:
            detected, spreads, seconds = detect_points(session, detector, faces)
            found = np.isfinite(detected[:, 0, 0])
            print(f"{found.mean():.1%} of the faces found, {1000 * np.median(seconds):.1f} ms a photo")
            if found.any():
                some = faces._replace(points=faces.points[found], boxes=faces.boxes[found])
                over_faces, over_points = correlate_spread(detected[found], spreads[found], some)
                print(
                    f"rank correlation of spread and error: {over_faces:.2f} over faces, {over_points:.2f} over points"
                )
                results["detected"] = measure_faces(nme(detected[found], faces.points[found], faces.boxes[found]))
                results["true crops"] = measure_some(prediction.errors, found)
    print_table(results)
    if faces.annotations:
        for name, off in measure_poses(prediction.points, faces).items():
            print(f"{name:12}pose off by {off[0]:.1f} degrees in yaw, {off[1]:.1f} in pitch, {off[2]:.1f} in roll")
            results[name]["pose_off"] = off
    return results, prediction


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pb", action="append", metavar="FILE", help=f"may be given several times ({OWN_PB}, else that in models/)"
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
    parser.add_argument("--skip_damaged", action="store_true", help="leave out damaged records, rather than stop")
    parser.add_argument("--points", choices=["2d", "3d"], default="2d", help="of --data, as prepare_tfrecords.py (2d)")
    parser.add_argument("--detect", action="store_true", help="find the faces in their whole photos too; with --data")
    parser.add_argument("--detector", metavar="NAME", help="as of test_pb.py")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write results.json and the pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
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
    if args.output:
        check_outputs(dict.fromkeys(args.output / name for name in OUTPUTS), args.overwrite)
    graphs = {path: load_graph(path) for path in args.pb or [str(default_pb())]}
    detector = load_detector(args.detector) if args.detect else None
    faces = (
        find_folders(args.data, f"pts_{args.points}") if args.data else find_records(args.records, args.skip_damaged)
    )
    for path, graph in graphs.items():
        if (kind := kind_of(graph)) != faces.kind:
            raise ValueError(
                f"{path} was trained on {kind} and these faces have {faces.kind}: --points, here and of"
                " prepare_tfrecords.py, chooses them"
            )
    print(PROTOCOL)
    results, curves, worst = {}, {}, None
    for path, graph in graphs.items():
        results[path], prediction = evaluate(path, graph, detector, faces)
        curves[path] = prediction.errors
        worst = worst or draw_worst(faces, prediction.worst)
    if args.output:
        table = json.dumps({"protocol": PROTOCOL, "results": results}, indent=2).encode()
        args.output.mkdir(parents=True, exist_ok=True)
        for name, content in zip(OUTPUTS, (draw_curves(curves), table, worst), strict=True):
            with whole_file(args.output / name) as partial:
                partial.write_bytes(content)
        print(f"\n{', '.join(OUTPUTS)} written to {args.output}")


if __name__ == "__main__":
    main()
