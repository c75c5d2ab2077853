"""A frozen graph from anywhere, read without harm: a graph is a program, and some of TensorFlow's ops write files."""

import math
from pathlib import Path

import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError

from landmark.cli import UserError
from landmark.points import IMAGE_SIZE, LANDMARK_TYPES, LANDMARKS
from landmark.runtimes import INPUT_NAME, OUTPUT_NAME

# What TensorFlow 1.4, OpenCV and the converters all read; the last three are of heat maps alone.
PLAIN_OPS = set(
    "Placeholder Const Conv2D BiasAdd Relu AvgPool Mean MatMul Sigmoid Reshape Mul Add Identity"
    " Softmax Transpose ResizeNearestNeighbor".split()
)
# And what graphs frozen elsewhere hold: batch norms that are not folded, other names of the same.
KNOWN_OPS = PLAIN_OPS | set("AddV2 FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Sub Rsqrt MaxPool Squeeze".split())
MAX_BYTES = 2**26  # of the file; the original's is 4 MB
MAX_NUMBERS = 2**23  # in a tensor, for one crop
ONE_CROP = [1, IMAGE_SIZE, IMAGE_SIZE, 3]
TYPE_ATTRIBUTE = "_points"  # of the input: the landmark type; readers pass over attributes that begin with _


def load_graph(path):
    """Loads a frozen graph that does nothing but calculate.

    path: of landmark.pb.
    Returns: tf.Graph that holds INPUT_NAME and OUTPUT_NAME.
    Raises UserError: the file is missing or no graph, lacks the two names, was frozen in training mode, or holds an op
        not in KNOWN_OPS, a control input, a function or a tensor of over MAX_NUMBERS; the message names file and op.
    """
    advice = "write one with python freeze_graph.py"
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has over {MAX_BYTES >> 20} MiB, too many for a landmark.pb: {advice}")
        definition = tf.GraphDef.FromString(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; python freeze_graph.py writes one") from None
    except DecodeError:
        raise UserError(f"{path} is not a frozen graph: {advice}") from None
    for node in definition.node:  # a training graph loads everywhere, and its points are off by a quarter
        is_norm = node.op.startswith("FusedBatchNorm")
        if node.op == "RandomUniform" or is_norm and ("is_training" not in node.attr or node.attr["is_training"].b):
            raise UserError(f"{path} is a frozen training graph ({node.name[:99]!r}): {advice}")
    harms = (f"{node.name[:99]!r} {harm}" for node in definition.node if (harm := _harm(node)))
    if harm := "it holds functions" if definition.library.ByteSize() else next(harms, None):
        raise UserError(f"{path} is refused, as it may do more than find points: {harm}; {advice}")

    one = tf.GraphDef.FromString(definition.SerializeToString())
    for node in one.node:
        if node.op == "Placeholder":
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(ONE_CROP).as_proto())
    try:
        graph = _import(one)
    except (ValueError, tf.errors.OpError):  # TensorFlow's own
        raise UserError(f"{path} is not a frozen graph: {advice}") from None
    # The first result of each op: only batch norm makes others, and uses them only in training.
    results = {op.outputs[0].name: op.outputs[0] for op in graph.get_operations() if op.outputs}
    for result in results.values():
        if not 0 < (result.shape.num_elements() or 0) <= MAX_NUMBERS:  # of none, some ops divide by zero
            what = f"{result.op.name[:99]!r} makes a {result.op.type} of {result.shape}"
            raise UserError(f"{path} is refused: {what}; {advice}")
    for name, shape in (INPUT_NAME, ONE_CROP), (OUTPUT_NAME, [1, 2 * LANDMARKS]):
        tensor = results.get(name)
        if tensor is None or tensor.dtype != tf.float32 or tensor.shape != shape:
            raise UserError(f"{path} has no {name} of float32 {shape}: it is the graph of another network")
    return _import(definition)


def landmark_type_of(graph):
    """The landmark type (one of points.LANDMARK_TYPES) that a graph was trained on, as freeze_graph.py notes it."""
    try:
        return graph.get_tensor_by_name(INPUT_NAME).op.get_attr(TYPE_ATTRIBUTE).decode()
    except ValueError:  # no such attribute: frozen before there was a choice
        return LANDMARK_TYPES[0]


def _import(definition):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    return graph


def _harm(node):
    """What a node may do beside calculating, or None."""
    if node.op not in KNOWN_OPS:
        return f"is the op {node.op[:99]!r}"
    if any(source.startswith("^") for source in node.input):
        return f"({node.op}) has a control input"
    if node.op not in ("Const", "Identity") and "T" in node.attr and node.attr["T"].type != tf.float32.as_datatype_enum:
        return f"({node.op}) calculates sizes, while it is loaded"
    for attribute in node.attr.values():
        values = attribute.list
        if attribute.HasField("func") or values.func:
            return f"({node.op}) calls a function"
        tensors = attribute.tensor, *values.tensor
        for shape in (attribute.shape, *values.shape, *(tensor.tensor_shape for tensor in tensors)):
            if math.prod(max(side.size, 1) for side in shape.dim) > MAX_NUMBERS:
                return f"({node.op}) makes a tensor of over {MAX_NUMBERS:,} numbers"
    return None
