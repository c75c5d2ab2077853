"""Turns the best checkpoint into landmark.pb, the one file that other programs load.

Usage:
    python freeze_graph.py                                             # models/ -> landmark.pb
    python freeze_graph.py --checkpoint models/landmark.ckpt           # this checkpoint, not the best in models/
    python freeze_graph.py --tflite landmark.tflite --onnx landmark.onnx         # in these formats too
    python freeze_graph.py --saved_model serving/landmark/1            # for TensorFlow Serving
    python freeze_graph.py --tflite_int8 landmark_int8.tflite          # in 8-bit integers, a third of the size

Each file is kept only if it gives the checkpoint's own points on test crops: those of the records in --data, or, if
there are none, the crops in images/. 8-bit integers need training records to measure their ranges on, and may raise the
NME on the test records by up to 3% (relative).
"""

from landmark.startup import describe_device  # first: TensorFlow reads its settings as it is imported

import importlib.util
import shlex
from pathlib import Path

from landmark.checkpoints import BEST, LAST, find_whole, prefix_of, read_run
from landmark.cli import UserError, command, script_parser
from landmark.export import FORMATS, PB, freeze, read_crops, read_first, write_checked
from landmark.inference import OWN_MODEL
from landmark.outputs import Outputs, is_free
from landmark.records import find_record_files, read_manifest

IMAGES = Path(__file__).with_name("images")
COMPARED, CALIBRATED = 1000, 300  # test and training crops


def read_test_crops(data, checkpoint, calibrate):
    """(TestCrops to check a model on; training crops uint8 [N, 128, 128, 3] to calibrate integers on, or None)."""
    if not [*data.glob("*.tfrecords")]:
        if calibrate:
            raise UserError(f"--tflite_int8 measures its ranges on training records, and there are none in {data}")
        print(f"no records in {data}: checking on the crops in {IMAGES}")
        return read_crops(IMAGES), None
    landmark_type, of_records = read_run(checkpoint).get("landmark_type"), read_manifest(data).landmark_type
    if landmark_type not in (None, of_records):
        raise UserError(
            f"{checkpoint} was trained on {landmark_type} and the records in {data} are {of_records}: give others with"
            " --data"
        )
    faces = read_first(find_record_files(data, "test"), COMPARED)
    return faces, read_first(find_record_files(data, "train"), CALIBRATED).crops if calibrate else None


def parse_args():
    parser = script_parser(__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints (models)")
    parser.add_argument("--checkpoint", type=prefix_of, metavar="PREFIX", help="what to freeze (the best in --models)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="records to check on (data)")
    parser.add_argument("--output", type=Path, default=OWN_MODEL, metavar="FILE", help=f"file to write ({OWN_MODEL})")
    for name, form in FORMATS.items():
        parser.add_argument(f"--{name}", type=Path, metavar=form.kind, help=f"write the model as {name} too")
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    args = parser.parse_args()
    if args.onnx and not all(map(importlib.util.find_spec, ["tf2onnx", "onnxruntime"])):
        raise UserError('--onnx needs two packages more: pip install "tf2onnx>=1.17,<2" "onnxruntime>=1.23,<2"')
    args.others = {name: path for name in FORMATS if (path := getattr(args, name))}
    if len({args.output, *args.others.values()}) < 1 + len(args.others):
        parser.error(f"--output, --{', --'.join(FORMATS)} must name different files")
    return args


@command
def main():
    args = parse_args()
    files = [path for name, path in args.others.items() if FORMATS[name].kind == "FILE"]
    outputs = Outputs(dict.fromkeys([args.output, *files]), args.overwrite)
    if args.saved_model and not is_free(args.saved_model):
        raise UserError(f"{args.saved_model} is in the way: name a new folder for this version of the model")
    checkpoint = args.checkpoint or find_whole(args.models, BEST) or find_whole(args.models, LAST)
    if not checkpoint:
        raise UserError(f"no checkpoint in {args.models}: run python train.py")
    print(f"freezing {checkpoint}, on {describe_device()}")
    faces, calibration = read_test_crops(args.data, checkpoint, args.tflite_int8)
    frozen, expected = freeze(checkpoint, faces.crops)
    expected = write_checked(args.output, PB, frozen, calibration, faces, expected, outputs.write)
    for name, path in args.others.items():
        write_checked(path, FORMATS[name], args.output, calibration, faces, expected, outputs.write)
    print(f"next: python test_pb.py{'' if args.output == OWN_MODEL else f' --pb {shlex.quote(str(args.output))}'}")


if __name__ == "__main__":
    main()
