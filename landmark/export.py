"""From a checkpoint to files that other programs load, each kept only if it answers as the checkpoint does."""

import errno
import math
import os
import re
from collections import namedtuple
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.checkpoints import read_run, restore
from landmark.cli import UserError, silenced
from landmark.graphs import PLAIN_OPS, TYPE_ATTRIBUTE, load_graph
from landmark.measures import nme
from landmark.outputs import whole_folder
from landmark.pictures import read_picture
from landmark.points import LANDMARK_TYPES, LANDMARKS, crop_face, to_photo
from landmark.records import read_records
from landmark.runtimes import INPUT_NAME, OUTPUT_NAME, load_onnx, load_saved_model, load_session, load_tflite
from senet import SENet, crops_placeholder

INPUT, OUTPUT = INPUT_NAME.partition(":")[0], OUTPUT_NAME.partition(":")[0]
BATCH = 32
MAX_NME_RISE = 0.03  # of the NME (box) of a file that is kept, relative to the checkpoint's

# Crops to check a file on. crops: uint8 [N, 128, 128, 3], BGR; labels: float32 [N, 136], shares of the crop, NaN for a
# point without one, or None where they are unknown; boxes: [N, 4] of the crops in pixels of the photo, or None.
TestCrops = namedtuple("TestCrops", "crops labels boxes")


def read_first(paths, count):
    """The first faces of record files, which prepare_tfrecords.py mixed: TestCrops, `count` of them or fewer."""
    faces = list(islice(read_records(paths), count))
    return TestCrops(*(np.array([getattr(face, name) for face in faces]) for name in ("crop", "label", "box")))


def read_crops(folder):
    """The JPEG files of a folder as crops without labels: TestCrops; UserError if there are none, or one is damaged."""
    pictures = []
    for path in sorted(Path(folder).glob("*.jpg")):
        try:
            pictures.append(read_picture(path)[0])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    if not pictures:
        raise UserError(f"no face crops (*.jpg) in {folder} to check the model on")
    crops = [crop_face(picture, (0, 0, *picture.shape[1::-1])) for picture in pictures]
    return TestCrops(np.array(crops), None, None)


def run_batches(run, crops):
    """The outputs of a function of crops, float32 [N, 136], called with one crop, then with batches: a model must take
    any number."""
    return np.concatenate([run(batch) for batch in np.split(crops, range(1, len(crops), BATCH))])


def freeze(checkpoint, crops):
    """Freezes a checkpoint (its prefix) of the network that checkpoints.read_run names.

    Returns: (bytes of a serialized GraphDef of PLAIN_OPS, the checkpoint's outputs on the crops: float32 [N, 136]).
    Raises UserError: the checkpoint is missing, damaged or of another graph.
    """
    run = read_run(checkpoint)
    with tf.Graph().as_default() as graph, tf.Session() as session:
        placeholder = crops_placeholder()
        outputs, _ = SENet(placeholder, network=run["network"])
        restore(tf.train.Saver(), session, checkpoint)
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [OUTPUT])
        expected = run_batches(lambda batch: session.run(outputs, {placeholder: batch}), crops)
    plain = fold_batch_norms(frozen)
    landmark_type = run.get("landmark_type", LANDMARK_TYPES[0])
    if landmark_type != LANDMARK_TYPES[0]:  # graphs of the first type have no attribute, as before there was a choice
        node = next(node for node in plain.node if node.name == INPUT)
        node.attr[TYPE_ATTRIBUTE].s = landmark_type.encode()
    return plain.SerializeToString(deterministic=True), expected


def fold_batch_norms(frozen):
    """Rewrites an inference graph of SENet, tf.GraphDef, in PLAIN_OPS: each batch norm joins its convolution.

    Raises UserError if it is a training graph, or holds other ops that are not plain.
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
        raise UserError(f"not an inference graph of senet.py: it holds {', '.join(sorted(foreign))}")
    definition.versions.CopyFrom(frozen.versions)
    with tf.Graph().as_default() as graph:
        # Old readers refuse attributes they do not know, unless they are left out for being the default.
        return tf.train.export_meta_graph(graph_def=definition, graph=graph, strip_default_attrs=True).graph_def


def to_saved_model(pb, path, _):
    """Writes the folder of a SavedModel of a frozen graph: signature serving_default, from `crops` to `points`."""
    graph = load_graph(pb)
    source, target = map(graph.get_tensor_by_name, [INPUT_NAME, OUTPUT_NAME])
    try:
        with tf.Session(graph=graph) as session:
            tf.saved_model.simple_save(session, str(path), {"crops": source}, {"points": target})
    except tf.errors.ResourceExhaustedError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    (path / "variables").rmdir()  # there are none


def to_tflite(pb, path, _):
    """Writes a TFLite model of a frozen graph, its batch dimension open."""
    path.write_bytes(_tflite_converter(pb).convert())


def to_tflite_int8(pb, path, crops):
    """Writes a TFLite model whose weights and activations are 8-bit integers, in ranges measured on some crops.

    Input and output are float, and so are the last steps to the points: rounding a position, or a heat map's share, to
    one of 256 values would add more error than the network has.
    """
    plain = tf.lite.Interpreter(model_content=_tflite_converter(pb).convert())
    names = [tensor["name"] for tensor in plain.get_tensor_details()]
    last_steps = [name for name in names if OUTPUT.partition("/")[0] + "/" in name]
    converter = _tflite_converter(pb)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([crop[np.newaxis].astype(np.float32)] for crop in crops)
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["SOFTMAX"], denylisted_nodes=last_steps)
    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
    path.write_bytes(debugger.get_nondebug_quantized_model())


def _tflite_converter(pb):
    return tf.lite.TFLiteConverter.from_frozen_graph(str(pb), [INPUT], [OUTPUT])


def to_onnx(pb, path, _):
    """Writes an ONNX model of a frozen graph, its batch dimension open and its names the graph's."""
    import tf2onnx

    definition = tf.GraphDef.FromString(Path(pb).read_bytes())
    model, _ = tf2onnx.convert.from_graph_def(definition, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME])
    path.write_bytes(_number_names(model).SerializeToString())


def _number_names(model):
    """An ONNX model whose generated names, NAME__123, are numbered in order: tf2onnx numbers them anew each time."""
    names = {}

    def number(name):
        return names.setdefault(name, re.sub(r"__\d+", "", name) + f"__{len(names)}") if "__" in name else name

    for node in model.graph.node:
        for tensors in node.input, node.output:
            tensors[:] = map(number, tensors)
        node.name = number(node.name)
    for constant in model.graph.initializer:
        constant.name = number(constant.name)
    model.graph.initializer.sort(key=lambda constant: constant.name)
    for tensor in *model.graph.input, *model.graph.output:
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"  # of crops: this name is numbered too
    del model.graph.value_info[:]
    return model


def write_checked(output, form, source, calibration, faces, expected, write):
    """Writes a model to a Path if it answers as expected, and prints how far off it is.

    form: Format; source and calibration are for its convert().
    faces: TestCrops to test it on.
    expected: float32 [N, 136], the checkpoint's outputs on these.
    write: whole_file or Outputs.write.
    Returns: its outputs, float32 [N, 136].
    Raises UserError: they are off by more than the format's tolerance, or their NME is larger than the checkpoint's by
        more than MAX_NME_RISE; an older model is still there then.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with (whole_folder if form.kind == "DIR" else write)(output) as path:
        try:
            with silenced():  # the converters report their progress
                form.convert(source, path, calibration)
                outputs = run_batches(form.load(path), faces.crops)
        except RuntimeError as error:  # TFLite cannot quantise some networks of few training steps
            raise UserError(f"{output} was not written, it does not run: {' '.join(str(error).split())}") from None
        size = sum(file.stat().st_size for file in [path, *path.glob("*")] if file.is_file())
        # Points lie in 0..1; a network of few training steps may answer more, with float32's error in proportion.
        difference = (np.abs(outputs - expected) / np.maximum(expected, 1)).max()
        rise = _mean_nme(outputs, faces) / _mean_nme(expected, faces) - 1 if faces.labels is not None else 0
        nme_change = f", relative change of the NME {rise:+z.2%}" if faces.labels is not None else ""
        print(f"{output}: largest difference on {len(outputs)} crops {difference:.1e}{nme_change}")
        if not difference <= form.tolerance:
            raise UserError(f"{output} was not written: it is off by more than {form.tolerance:.0e}")
        if not rise <= MAX_NME_RISE:
            raise UserError(
                f"the NME rises by {rise:.1%} of its value, more than {MAX_NME_RISE:.0%}: {output} was not written"
            )
    print(f"{output} written, {size / 1e6:.2f} MB")
    return outputs


def _mean_nme(outputs, faces):
    predicted, true = (to_photo(points.reshape(-1, LANDMARKS, 2), faces.boxes) for points in (outputs, faces.labels))
    return nme(predicted, true, faces.boxes).box.mean()


# What a model is written as. kind: FILE or DIR; convert: function of the Path of landmark.pb (for PB its bytes), the
# Path to write to and, for integers, training crops to measure ranges on; load: a loader of runtimes.py; tolerance: of
# the outputs.
Format = namedtuple("Format", "kind convert load tolerance")
PB = Format("FILE", lambda frozen, path, _: path.write_bytes(frozen), load_session, 1e-5)
FORMATS = {
    "saved_model": Format("DIR", to_saved_model, load_saved_model, 1e-5),
    "tflite": Format("FILE", to_tflite, load_tflite, 1e-4),
    "tflite_int8": Format("FILE", to_tflite_int8, load_tflite, math.inf),  # judged by its NME
    "onnx": Format("FILE", to_onnx, load_onnx, 1e-4),
}
