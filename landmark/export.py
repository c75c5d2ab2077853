"""From a checkpoint to files that other programs load, each kept only if it answers as the checkpoint does."""

import errno
import math
import os
import warnings
from collections import namedtuple
from itertools import chain, islice
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.checkpoints import read_run, restore
from landmark.files import whole_file, whole_folder
from landmark.find import KIND_ATTRIBUTE, load_graph, predict
from landmark.formats import KINDS
from landmark.graphs import PLAIN_OPS
from landmark.points import LANDMARKS, nme, to_photo
from landmark.records import read_records
from senet import INPUT_NAME, OUTPUT_NAME, SENet, crops_placeholder

INPUT, OUTPUT = INPUT_NAME.partition(":")[0], OUTPUT_NAME.partition(":")[0]
BATCH = 32
NME_RISE = 0.03  # of the NME by the box, of what is kept
# It wants to move to the package ai_edge_litert.
warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")


# crops: uint8 [N, 128, 128, 3], BGR; labels: float32 [N, 136], shares of the crop, NaN for a point without one; boxes:
# [N, 4] of the crops in pixels of the photo.
Labelled = namedtuple("Labelled", "crops labels boxes")


def read_first(paths, count):
    """The first faces of record files, which prepare_tfrecords.py mixed: Labelled, count of them or fewer.

    Raises:
        ValueError: a file is missing, or there is no whole record in them; the message names it.
    """
    faces = chain.from_iterable(read_records(path, []) for path in paths)  # the whole ones do
    faces = list(islice(faces, count))
    if not faces:
        raise ValueError(f"no record in {', '.join(map(str, paths))}: write it again with python prepare_tfrecords.py")
    return Labelled(*(np.array([getattr(face, name) for face in faces]) for name in ("crop", "label", "box")))


def run_batches(run, crops):
    """The outputs of a function of crops, float32 [N, 136]; of a batch of one first, then of larger ones: a model with
    a fixed batch is of no use."""
    return np.concatenate([run(batch) for batch in np.split(crops, range(1, len(crops), BATCH))])


def freeze(checkpoint, crops):
    """Freezes a checkpoint.

    Args:
        checkpoint: path of a checkpoint, of the network that checkpoints.read_run says.
        crops: uint8 or float32 [N, 128, 128, 3].

    Returns:
        (bytes of a serialized GraphDef of PLAIN_OPS, the checkpoint's outputs on the crops: float32 [N, 136]).

    Raises:
        ValueError: the checkpoint is missing, damaged or of another graph.
    """
    run = read_run(checkpoint)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        placeholder = crops_placeholder()
        outputs, _ = SENet(placeholder, network=run["network"])
        restore(session, checkpoint)
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [OUTPUT])
        expected = run_batches(lambda batch: session.run(outputs, {placeholder: batch}), crops)
    plain = fold_batch_norms(frozen)
    if (kind := run.get("label", KINDS[0])) != KINDS[0]:  # a graph of the first kind stays as it ever was
        node = next(node for node in plain.node if node.name == INPUT)
        node.attr[KIND_ATTRIBUTE].s = kind.encode()
    return plain.SerializeToString(deterministic=True), expected


def fold_batch_norms(frozen):
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


def to_saved_model(pb, path, _):
    """Writes the folder of a SavedModel of a frozen graph, signature serving_default from `crops` to `points`.

    Raises:
        OSError: the disk is full.
    """
    graph = load_graph(pb)
    source, target = map(graph.get_tensor_by_name, [INPUT_NAME, OUTPUT_NAME])
    try:
        with tf.Session(graph=graph) as session:
            tf.saved_model.simple_save(session, str(path), {"crops": source}, {"points": target})
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    (path / "variables").rmdir()  # there are none


def open_saved_model(path, threads=0):
    """Loads a SavedModel as TensorFlow Serving does, by its signature: as of open_pb, path that of its folder."""
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = tf.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        model = tf.saved_model.loader.load(session, [tf.saved_model.tag_constants.SERVING], str(path))
    signature = model.signature_def[tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
    return lambda crops: session.run(signature.outputs["points"].name, {signature.inputs["crops"].name: crops})


def check_folder(path):
    """Sees that a SavedModel can be written to a folder.

    Raises:
        ValueError: there is something already.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} is in the way: name a new folder, as each version of a model has")


def to_tflite(pb, path, _):
    """Writes a TFLite model of a frozen graph, its batch dimension open."""
    path.write_bytes(_tflite_converter(pb).convert())


def to_tflite_int8(pb, path, crops):
    """Writes a TFLite model whose weights and activations are 8-bit integers, in ranges seen on some crops.

    Input and output are float, and so are the last steps to the points: a position in 256 steps of the crop, or a share
    of a heat map in as many, is off by more than the network is.

    Args:
        pb: Path of a frozen graph.
        path: Path of what is written.
        crops: uint8 [N, 128, 128, 3].
    """
    plain = tf.lite.Interpreter(model_content=_tflite_converter(pb).convert())
    names = [tensor["name"] for tensor in plain.get_tensor_details()]
    converter = _tflite_converter(pb)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([crop[np.newaxis].astype(np.float32)] for crop in crops)
    options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=["SOFTMAX"], denylisted_nodes=[name for name in names if OUTPUT.partition("/")[0] + "/" in name]
    )
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
    )
    path.write_bytes(debugger.get_nondebug_quantized_model())


def _tflite_converter(pb):
    return tf.lite.TFLiteConverter.from_frozen_graph(str(pb), [INPUT], [OUTPUT])


def open_tflite(path, threads=None):
    """Loads a TFLite model.

    Args:
        path: of the file.
        threads: int, or None for TFLite's choice.

    Returns:
        function of crops (uint8 or float32 [N, 128, 128, 3]) that returns float32 [N, 136].
    """
    interpreter = tf.lite.Interpreter(model_path=str(path), num_threads=threads)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(crops):
        interpreter.resize_tensor_input(source["index"], crops.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], crops.astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def to_onnx(pb, path, _):
    """Writes an ONNX model of a frozen graph, its batch dimension open and its names the graph's."""
    import tf2onnx

    definition = tf.GraphDef.FromString(Path(pb).read_bytes())
    model, _ = tf2onnx.convert.from_graph_def(definition, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME])
    path.write_bytes(model.SerializeToString())


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


def write_checked(output, form, source, calibration, faces, expected):
    """Writes a model if it answers as expected, and prints how far off it is.

    Args:
        output: Path of the file or folder.
        form: Format.
        source, calibration: of form.convert.
        faces: Labelled, to test it on.
        expected: float32 [N, 136], the checkpoint's outputs on these.

    Returns:
        its outputs, float32 [N, 136].

    Raises:
        ValueError: they are off by more than the format's tolerance, or their NME is larger than the checkpoint's by
            more than NME_RISE of it; an older model is still there then.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with (whole_folder if form.kind == "DIR" else whole_file)(output) as path:
        form.convert(source, path, calibration)
        try:
            outputs = run_batches(form.open(path), faces.crops)
        except RuntimeError as error:  # of TFLite, which has no integers for what a network of few steps makes of them
            raise ValueError(f"{output} was not written, it does not run: {' '.join(str(error).split())}") from None
        size = sum(file.stat().st_size for file in [path, *path.glob("*")] if file.is_file())
        # Points lie in 0..1; a network of few steps may answer more, with float32's error in proportion.
        difference = (np.abs(outputs - expected) / np.maximum(expected, 1)).max()
        rise = _mean_nme(outputs, faces) / _mean_nme(expected, faces) - 1
        print(f"{output}: largest difference on {len(outputs)} test crops {difference:.1e}, NME {rise:+.2%} of itself")
        if not difference <= form.tolerance:
            raise ValueError(f"more than {form.tolerance:.0e}: {output} was not written")
        if not rise <= NME_RISE:
            raise ValueError(
                f"the NME rises by {rise:.1%} of itself, more than {NME_RISE:.0%}: {output} was not written"
            )
    print(f"{output} written, {size / 1e6:.2f} MB")
    return outputs


def _mean_nme(outputs, faces):
    predicted, true = (to_photo(points.reshape(-1, LANDMARKS, 2), faces.boxes) for points in (outputs, faces.labels))
    return nme(predicted, true, faces.boxes).box.mean()


# What a model is written as. kind: FILE or DIR; convert: function of the Path of landmark.pb (for PB its bytes), the
# Path of what is to be written, and, for integers, training crops to fit their ranges to; open: function of its Path
# and a number of threads that returns a function of crops; tolerance: of the outputs.
Format = namedtuple("Format", "kind convert open tolerance")
PB = Format("FILE", lambda frozen, path, _: path.write_bytes(frozen), open_pb, 1e-5)
FORMATS = {
    "saved_model": Format("DIR", to_saved_model, open_saved_model, 1e-5),
    "tflite": Format("FILE", to_tflite, open_tflite, 1e-4),
    "tflite_int8": Format("FILE", to_tflite_int8, open_tflite, math.inf),  # its NME tells
    "onnx": Format("FILE", to_onnx, open_onnx, 1e-4),
}
