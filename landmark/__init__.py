"""What the scripts share."""

import os

# A picture is refused by the size that it claims, before any of it is decoded: 268 megapixels, 0.8 GB, and phones make
# 200. OpenCV looks when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
