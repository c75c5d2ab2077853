"""Turns the best checkpoint into landmark.pb, the one file that other programs load.

Usage:
    python freeze_graph.py                                             # models/ -> landmark.pb
    python freeze_graph.py --checkpoint models/model.ckpt-150000       # that one instead of the best
    python freeze_graph.py --tflite landmark.tflite --onnx landmark.onnx         # in these formats too

Each file is kept only if it gives the checkpoint's own points on real test crops.
"""

import argparse
import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from prepare_tfrecords import whole_file
from senet import INPUT_NAME, OUTPUT_NAME, SENet, crops_placeholder
from test_pb import load_graph, predict
from train import BEST, find_records, read_batches, restore

INPUT, OUTPUT = INPUT_NAME.partition(":")[0], OUTPUT_NAME.partition(":")[0]
# What TensorFlow 1.0, OpenCV and the converters all read.
PLAIN_OPS = set("Placeholder Const Conv2D BiasAdd Relu AvgPool Mean MatMul Sigmoid Reshape Mul Add Identity".split())
COMPARED_CROPS = 200
BATCH = 32
TOLERANCE, EXPORT_TOLERANCE = 1e-5, 1e-4


def find_checkpoint(models):
    """The best checkpoint of a folder, else the last (of a run that never measured), else None."""
    return tf.train.latest_checkpoint(models, BEST) or tf.train.latest_checkpoint(models)


def read_crops(paths, count):
    """The first crops of record files: float32 [count or fewer, 128, 128, 3], BGR, 0..255."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(tf.data.make_one_shot_iterator(read_batches(paths, count)).get_next()[0])


def freeze(checkpoint, crops):
    """Freezes a checkpoint.

    Args:
        checkpoint: path of a checkpoint of senet.py's network, or of the TF-Slim original.
        crops: float32 [N, 128, 128, 3].

    Returns:
        (bytes of a serialized GraphDef of PLAIN_OPS, the checkpoint's outputs on the crops: float32 [N, 136]).

    Raises:
        ValueError: the checkpoint is missing, damaged or of another graph.
    """
    with tf.Graph().as_default() as graph, tf.Session() as session:
        placeholder = crops_placeholder()
        outputs = SENet(placeholder)
        restore(tf.train.Saver(), session, checkpoint)
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [OUTPUT])
        return plain(frozen).SerializeToString(deterministic=True), session.run(outputs, {placeholder: crops})


def plain(frozen):
    """Writes an inference graph in PLAIN_OPS: each batch norm becomes part of its convolution.

    Args:
        frozen: tf.GraphDef of SENet without variables.

    Returns:
        tf.GraphDef that answers the same.

    Raises:
        ValueError: it is a training graph, or holds other ops that are not plain; the message names them.
    """
    definition = tf.graph_util.remove_training_nodes(frozen)  # the Identity between each variable and its reader
    nodes = {node.name: node for node in definition.node}

    def value(name):
        return tf.make_ndarray(nodes[name].attr["value"].tensor).astype(np.float64)

    def assign(name, value):
        nodes[name].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))

    for node in definition.node:
        if node.op == "AddV2":
            node.op = "Add"
        elif node.op == "FusedBatchNormV3" and not node.attr["is_training"].b:
            conv, gamma, beta, mean, variance = node.input
            weights = nodes[conv].input[1]
            scale = value(gamma) / np.sqrt(value(variance) + node.attr["epsilon"].f)
            assign(weights, value(weights) * scale)
            assign(beta, value(beta) - value(mean) * scale)
            attributes = {"T": node.attr["T"]}
            node.CopyFrom(tf.NodeDef(name=node.name, op="BiasAdd", input=[conv, beta], attr=attributes))

    definition = tf.graph_util.extract_sub_graph(definition, [OUTPUT])
    if foreign := {node.op for node in definition.node} - PLAIN_OPS:
        raise ValueError(f"not an inference graph of senet.py: it holds {', '.join(sorted(foreign))}")
    definition.versions.CopyFrom(frozen.versions)
    with tf.Graph().as_default() as graph:
        # Old readers refuse attributes they do not know, unless they are left out for being the default.
        return tf.train.export_meta_graph(graph_def=definition, graph=graph, strip_default_attrs=True).graph_def


def open_pb(path, threads=0):
    """Loads a frozen graph.

    Args:
        path: of the file.
        threads: int, or 0 for TensorFlow's choice; the first session of a process chooses for all of them.

    Returns:
        function of crops (uint8 or float32 [N, 128, 128, 3]) that returns float32 [N, 136].
    """
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = tf.Session(graph=load_graph(path), config=config)
    return lambda crops: predict(session, crops)


def to_tflite(pb):
    """The bytes of a TFLite model of a frozen graph, its batch dimension open."""
    return tf.lite.TFLiteConverter.from_frozen_graph(str(pb), [INPUT], [OUTPUT]).convert()


def open_tflite(path, threads=None):
    """Loads a TFLite model.

    Args:
        path: of the file.
        threads: int, or None for TFLite's choice.

    Returns:
        function of crops (uint8 or float32 [N, 128, 128, 3]) that returns float32 [N, 136].
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants to move to the package ai_edge_litert
        interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(crops):
        interpreter.resize_tensor_input(source["index"], crops.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], crops.astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def to_onnx(pb):
    """The bytes of an ONNX model of a frozen graph, its batch dimension open and its names the graph's."""
    import tf2onnx

    definition = tf.GraphDef.FromString(Path(pb).read_bytes())
    model, _ = tf2onnx.convert.from_graph_def(definition, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME])
    return model.SerializeToString()


def open_onnx(path, threads=0):
    """Loads an ONNX model.

    Args:
        path: of the file.
        threads: int, or 0 for ONNX Runtime's choice.

    Returns:
        function of crops (uint8 or float32 [N, 128, 128, 3]) that returns float32 [N, 136].
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda crops: session.run([OUTPUT_NAME], {INPUT_NAME: crops.astype(np.float32)})[0]


def keep(output, content, open_file, crops, expected, tolerance):
    """Writes a file if it answers as expected, and prints how far off it is.

    Args:
        output: Path of the file.
        content: bytes.
        open_file: function of a Path that returns a function from crops to outputs.
        crops: float32 [N, 128, 128, 3].
        expected: float32 [N, 136].
        tolerance: largest difference that is kept.

    Returns:
        its outputs, float32 [N, 136].

    Raises:
        ValueError: the difference is larger, or the file cannot be written; an older one is still there then.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as path:
            path.write_bytes(content)
            run = open_file(path)
            # A batch of one first, then larger ones: a file with a fixed batch is of no use.
            outputs = np.concatenate([run(batch) for batch in np.split(crops, range(1, len(crops), BATCH))])
            # Points lie in 0..1; a network of few steps may answer more, with float32's error in proportion.
            difference = (np.abs(outputs - expected) / np.maximum(expected, 1)).max()
            print(f"{output}: largest difference on {len(crops)} test crops {difference:.1e}")
            if not difference <= tolerance:
                raise ValueError(f"more than {tolerance:.0e}: {output} was not written")
    except OSError as error:
        raise ValueError(f"cannot write {output}: {error.strerror}") from None
    print(f"{output} written, {output.stat().st_size / 1e6:.2f} MB")
    return outputs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints (models)")
    parser.add_argument("--checkpoint", metavar="PREFIX", help="this one (the best in --models, else the last)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="test records (data)")
    parser.add_argument("--output", type=Path, default=Path("landmark.pb"), metavar="FILE", help="(landmark.pb)")
    parser.add_argument("--tflite", type=Path, metavar="FILE", help="write a TFLite model too")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="write an ONNX model too")
    args = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    if args.onnx and not all(map(importlib.util.find_spec, ["tf2onnx", "onnxruntime"])):
        sys.exit('--onnx needs two packages more: pip install "tf2onnx>=1.17,<2" "onnxruntime>=1.23,<2"')
    if len({args.output, args.tflite, args.onnx} - {None}) < 1 + bool(args.tflite) + bool(args.onnx):
        parser.error("--output, --tflite and --onnx must name different files")

    checkpoint = args.checkpoint or find_checkpoint(args.models)
    if not checkpoint:
        sys.exit(f"no checkpoint in {args.models}: run python train.py")
    try:
        crops = read_crops(find_records(args.data, "test")[0], COMPARED_CROPS)
        frozen, expected = freeze(checkpoint, crops)
        print(f"{checkpoint}:")
        expected = keep(args.output, frozen, open_pb, crops, expected, TOLERANCE)
        if args.tflite:
            keep(args.tflite, to_tflite(args.output), open_tflite, crops, expected, EXPORT_TOLERANCE)
        if args.onnx:
            keep(args.onnx, to_onnx(args.output), open_onnx, crops, expected, EXPORT_TOLERANCE)
    except ValueError as error:
        sys.exit(str(error))
    print(f"next: python test_pb.py{'' if args.output == Path('landmark.pb') else f' --pb {args.output}'}")


if __name__ == "__main__":
    main()
