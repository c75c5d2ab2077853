"""Turns the best checkpoint into landmark.pb, the one file that other programs load.

Usage:
    python freeze_graph.py                                             # models/ -> landmark.pb
    python freeze_graph.py --checkpoint models/model.ckpt-150000       # that one instead of the best
    python freeze_graph.py --tflite landmark.tflite --onnx landmark.onnx         # in these formats too
    python freeze_graph.py --saved_model landmark/1                    # as TensorFlow Serving takes it
    python freeze_graph.py --tflite_int8 landmark_int8.tflite          # in 8-bit integers, a third of the size

Each file is kept only if it gives the checkpoint's own points on real test crops; that of integers, fitted to training
crops, if the NME on the test crops rises by no more than 3% of itself.
"""

from landmark.ending import one_line, start_script

if __name__ == "__main__":
    start_script()  # before the imports, which take seconds

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path

import tensorflow.compat.v1 as tf

from landmark.checkpoints import find_checkpoint, prefix_of, read_run
from landmark.export import FORMATS, PB, check_folder, freeze, read_first, write_checked
from landmark.files import check_outputs
from landmark.find import OWN_PB
from landmark.records import find_records, summarize_records

COMPARED, CALIBRATED = 1000, 300  # test and training crops


@one_line
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints (models)")
    parser.add_argument(
        "--checkpoint", type=prefix_of, metavar="PREFIX", help="this one (the best in --models, else the last)"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="test records (data)")
    parser.add_argument("--output", type=Path, default=OWN_PB, metavar="FILE", help=f"({OWN_PB})")
    for name, form in FORMATS.items():
        parser.add_argument(f"--{name}", type=Path, metavar=form.kind, help=f"write the model as {name} too")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    if args.onnx and not all(map(importlib.util.find_spec, ["tf2onnx", "onnxruntime"])):
        sys.exit('--onnx needs two packages more: pip install "tf2onnx>=1.17,<2" "onnxruntime>=1.23,<2"')
    more = {name: path for name in FORMATS if (path := getattr(args, name))}
    if len({args.output, *more.values()}) < 1 + len(more):
        parser.error(f"--output, --{', --'.join(FORMATS)} must name different files")
    files = [path for name, path in more.items() if FORMATS[name].kind == "FILE"]
    check_outputs(dict.fromkeys([args.output, *files]), args.overwrite)
    if args.saved_model:
        check_folder(args.saved_model)

    checkpoint = args.checkpoint or find_checkpoint(args.models)
    if not checkpoint:
        raise ValueError(f"no checkpoint in {args.models}: run python train.py")
    labels, points = read_run(checkpoint).get("label"), summarize_records(args.data, []).points
    if labels not in (None, points):
        raise ValueError(
            f"{checkpoint} is of {labels} and the records in {args.data} are of {points}: give others with --data"
        )
    faces = read_first(find_records(args.data, "test"), COMPARED)
    calibration = read_first(find_records(args.data, "train"), CALIBRATED).crops if args.tflite_int8 else None
    frozen, expected = freeze(checkpoint, faces.crops)
    print(f"{checkpoint}:")
    expected = write_checked(args.output, PB, frozen, calibration, faces, expected)
    for name, path in more.items():
        write_checked(path, FORMATS[name], args.output, calibration, faces, expected)
    print(f"next: python test_pb.py{'' if args.output == OWN_PB else f' --pb {shlex.quote(str(args.output))}'}")


if __name__ == "__main__":
    main()
