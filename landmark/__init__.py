"""68 points on faces: `from landmark import load_model` needs NumPy and OpenCV alone; the scripts share the rest."""

import os

# OpenCV refuses larger pictures by their header, before it decodes them: 268 megapixels, 0.8 GB; phones make 200. It
# reads this when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))

from landmark.inference import FaceTracker, load_model  # noqa: E402

__all__ = ["FaceTracker", "load_model"]
