"""Writes constants.js: the numbers that the page shares with the Python code.

Usage:
    python examples/web/constants.py      # after a change of any of them; tests/test_web.py compares
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))
from test_pb import COLUMNS  # isort: skip
from landmark import detectors, inference, points, pose, runtimes  # isort: skip

TARGET = Path(__file__).with_name("constants.js")
# A line of constants.js each.
NAMES = {
    points: ["IMAGE_SIZE OVERLAP OPENINGS"],
    runtimes: ["INPUT_NAME OUTPUT_NAME"],
    detectors: [
        "RETINAFACE_SIDE MEAN_COLOUR STRIDES CENTRE_VARIANCE SIDE_VARIANCE MIN_CONFIDENCE MAX_OVERLAP RETINAFACE_CROP"
    ],
    inference: [
        "MIN_SCORE NUDGE SCORE_MIDPOINT STEEPNESS SURE QUARTERS UPRIGHT REFINEMENTS SMALLEST SEARCH",
        "MIN_CUTOFF BETA SPEED_ALPHA",
    ],
    pose: ["CAMERA AXES_LENGTH", "POSE_LANDMARKS", "POSE_MODEL", "AXES"],
}


def constants():
    """The text of constants.js."""
    lines = ["// Written by constants.py from the Python code: do not edit."]
    for module, groups in NAMES.items():
        lines += [_export({name: getattr(module, name) for name in names.split()}) for names in groups]
    lines.append(_export({"LINES": [[*line] for part in points.PARTS.values() for line in part]}))
    return "\n".join([*lines, _export({"COLUMNS": ["picture", "seconds", "face", *COLUMNS]}), ""])


def _export(values):
    texts = [
        f"{name} = {json.dumps(np.round(value, 9).tolist() if isinstance(value, np.ndarray) else value)}"
        for name, value in values.items()
    ]
    return f"export const {', '.join(texts)};"


if __name__ == "__main__":
    TARGET.write_text(constants())
    print(f"{TARGET} written")
