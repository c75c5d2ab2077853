"""Measures landmark.pb on faces with known landmarks.

Usage:
    python evaluate.py --records data/test.tfrecords                 # the held-out tenth
    python evaluate.py --data ~/300W_LP                              # a folder of annotated photos
    python evaluate.py --pb a.pb --pb b.pb --data ~/AFLW2000 --output out
    python evaluate.py --data ~/300W_LP --detect                     # on whole photos too, as test_pb.py --detect

--output DIR writes results.json, ced.png (cumulative error curves) and worst.png (the 25 worst faces of the first
--pb by the box, true points green, predicted ones red; results.json names them). Wrong labels are among these.
"""

from landmark.startup import CORES, describe_device  # first: TensorFlow reads its settings as it is imported

import functools
import io
import json
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure

from landmark import evaluation
from landmark.annotations import find_annotations, read_faces
from landmark.cli import command, script_parser
from landmark.detectors import load_detector
from landmark.graphs import landmark_type_of, load_graph
from landmark.inference import FaceFinder, default_model
from landmark.measures import BOX_LIMIT, LIMIT, auc, measure_faces, nme
from landmark.outputs import Outputs
from landmark.points import GREEN, RED, contact_sheet, to_crop
from landmark.records import read_records
from landmark.runtimes import run_session

OUTPUTS = "ced.png", "results.json", "worst.png"


def print_table(results):
    """Prints a line for each group, from a dict of its name to its measures."""
    columns = ["faces", "nme_mean", "nme_median", "nme_box", "nme_inner", "failure_rate", "auc"]
    width = max(12, *map(len, results))
    print(" " * width + "".join(f"{column:>14}" for column in columns))
    for name, measures in results.items():
        cells = [f"{measures[column]:.2%}" if column in measures else "" for column in columns[1:]]
        print(f"{name:{width}}{measures['faces']:>14}" + "".join(f"{cell:>14}" for cell in cells))


def draw_curves(curves):
    """The cumulative error curves as a PNG file's bytes.

    curves: dict of a name to its faces' NME.
    """
    figure = Figure(figsize=(13, 5), layout="constrained")
    scales = ("inter_ocular", LIMIT, "inter-ocular distance"), ("box", BOX_LIMIT, "the box")
    for axes, (scale, limit, title) in zip(figure.subplots(1, 2), scales, strict=True):
        for name, nmes in curves.items():
            errors = getattr(nmes, scale)
            errors = errors[np.isfinite(errors)]
            shares = np.arange(1, len(errors) + 1) / len(errors)
            label = f"{name}: AUC {auc(errors, limit):.3f}, failed {np.mean(errors > limit):.1%}"
            axes.step([0, *np.sort(100 * errors)], [0, *shares], where="post", label=label)
        axes.set(xlim=(0, 100 * limit), ylim=(0, 1), xlabel=f"NME, % of {title}", ylabel="share of faces")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(file := io.BytesIO(), format="png", dpi=120)
    return file.getvalue()


def draw_worst(truth, worst):
    """The faces with the largest errors, worst first, as a PNG file's bytes; worst: see Prediction."""
    _, numbers, crops, predicted = map(np.array, zip(*worst, strict=True))
    boxes = truth.boxes[numbers]
    drawn = [(to_crop(truth.points[numbers], boxes), GREEN), (to_crop(predicted, boxes), RED)]
    return cv2.imencode(".png", contact_sheet(crops, drawn))[1].tobytes()


def measure_detected(find_faces, prediction, truth, annotations, landmark_type):
    """Finds the faces in their whole photos and prints how many: dict of "detected" and "true crops" to measures."""
    detected, seconds = evaluation.detect_points(find_faces, truth, annotations, landmark_type)
    found = np.isfinite(detected[:, 0, 0])
    print(f"{found.mean():.1%} of the faces found, {1000 * np.median(seconds):.1f} ms a photo")
    if not found.any():
        return {}
    errors = nme(detected[found], truth.points[found], truth.boxes[found])
    return {"detected": measure_faces(errors), "true crops": evaluation.measure_some(prediction.errors, found)}


def parse_args():
    parser = script_parser(__doc__)
    parser.add_argument("--pb", action="append", metavar="FILE", help="repeatable (landmark.pb, else that in models/)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", action="append", type=Path, metavar="DIR", help="annotated photos, repeatable")
    source.add_argument("--records", type=Path, nargs="+", metavar="FILE", help="record files")
    parser.add_argument("--points", choices=["2d", "3d"], help="which jaw --data has (2d)")
    parser.add_argument("--detect", action="store_true", help="find the faces in their whole photos too; with --data")
    parser.add_argument("--detector", metavar="FILE", help="see test_pb.py")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write results.json and the pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    if args.detector and not args.detect:
        parser.error("--detector needs --detect")
    if args.detect and not args.data:
        parser.error("--detect needs the whole photos: --data")
    if args.points and not args.data:
        parser.error("--points needs --data: records have one type of points")
    args.points = args.points or "2d"
    return args


@command
def main():
    args = parse_args()
    outputs = Outputs(dict.fromkeys(args.output / name for name in OUTPUTS) if args.output else {}, args.overwrite)
    graphs = {path: load_graph(path) for path in args.pb or [str(default_model())]}
    print(f"evaluating {', '.join(graphs)}, on {describe_device()}")
    models = {path: functools.partial(run_session, tf.Session(graph=graph)) for path, graph in graphs.items()}
    detector = load_detector(args.detector) if args.detect else None
    annotations = find_annotations(args.data) if args.data else None
    faces = read_faces(annotations, f"pts_{args.points}", ahead=CORES) if args.data else read_records(args.records)
    began = time.monotonic()
    types = {path: landmark_type_of(graph) for path, graph in graphs.items()}
    truth, predictions = evaluation.predict_faces(models, faces, types, annotations and len(annotations))
    crops = len(models) * len(truth.names) * (1 + evaluation.JITTERS)
    print(f"{evaluation.PROTOCOL}\n{crops} crops, {crops / (time.monotonic() - began):.0f} a second")
    annotations = annotations and [annotations[i] for i in truth.numbers]
    results = {}
    for path, prediction in predictions.items():
        print(f"\n{path}:")
        results[path] = groups = evaluation.measure_groups(prediction, truth)
        if args.detect:
            find_faces = FaceFinder(models[path], detector)
            groups |= measure_detected(find_faces, prediction, truth, annotations, f"pts_{args.points}")
        print_table(groups)
        for name, off in evaluation.measure_poses(prediction.points, truth, annotations).items() if annotations else ():
            print(f"{name:12}pose off by {off[0]:.1f} degrees in yaw, {off[1]:.1f} in pitch, {off[2]:.1f} in roll")
            groups[name]["pose_off"] = off
        for name, measures in evaluation.compare_openings(prediction.points, truth.points).items():
            print(f"{name:12}{', '.join(f'{key} {number:.4g}' for key, number in measures.items())}")
            groups[name] = measures
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        curves = draw_curves({path: prediction.errors for path, prediction in predictions.items()})
        worst = predictions[next(iter(models))].worst
        names = {str(truth.names[number]): float(error) for error, number, *_ in worst}
        table = json.dumps({"protocol": evaluation.PROTOCOL, "results": results, "worst": names}, indent=2).encode()
        for name, content in zip(OUTPUTS, (curves, table, draw_worst(truth, worst)), strict=True):
            with outputs.write(args.output / name) as partial:
                partial.write_bytes(content)
        print(f"\n{', '.join(OUTPUTS)} written to {args.output}")


if __name__ == "__main__":
    main()
