"""Reading picture files: whole ones only, in the pixels as stored or upright."""

import io
import mimetypes
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from landmark.cli import UserError

# JPEG markers: of the file's start and end, of a restart, of a progressive frame, of a scan.
START, END, PROGRESSIVE, SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xc2", b"\xff\xda"
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
# What might follow in a scan: zeros, ones, noise.
FILLERS = [b"\0" * 64, b"\xff\0" * 64, *map(bytes, np.random.default_rng(0).integers(0, 255, (3, 64), np.uint8))]
Image.MAX_IMAGE_PIXELS = 2**28  # as OpenCV's: see landmark/__init__.py


def read_picture(path, stored=False):
    """Reads a picture file.

    path: str or Path of the file.
    stored: whether to keep the pixels as they are stored; otherwise the picture is turned upright, as its EXIF
        orientation says.
    Returns: (picture uint8 [H, W, 3], BGR, whatever the file's depth and number of channels; the bytes of the file,
        with the end marker added where a JPEG lacks nothing else).
    Raises UserError: the file is missing, empty, cut short or no picture; the message says which.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise UserError("empty file")
    if data.startswith(START) and not data.endswith(END) and _load(data) is None:  # OpenCV makes missing rows grey
        if not _lacks_only_its_end(data):
            raise UserError("JPEG is cut short")
        data += END
    picture = decode_picture(data, stored)
    if picture is None:
        raise UserError("not a picture that OpenCV can read")
    return picture, data


def is_text(path):
    """Whether a file (str or Path) is text by its name, and so is no picture that someone might miss."""
    return (mimetypes.guess_type(path)[0] or "").startswith("text/")


def decode_picture(data, stored=True):
    """The picture in a file's bytes, uint8 [H, W, 3], BGR, or None; `stored` as in read_picture."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if stored else cv2.IMREAD_COLOR
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _load(data):
    """The pixels that Pillow decodes from a file's bytes, an array, or None if the file is cut short or damaged."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _lacks_only_its_end(data):
    """Whether a JPEG lacks its end marker alone: it has all scans, and bits added to the last one change nothing."""
    try:
        if not _has_all_scans(data):
            return False
    except IndexError:
        return False
    data = data.rstrip(END[:1])
    last = [b"\xd7", *RESTART.findall(data)][-1][0]
    restart = bytes([END[0], 0xD0 + (last + 1) % 8])
    pictures = [_load(data + filler + restart + filler + END) for filler in FILLERS]
    return all(picture is not None and np.array_equal(picture, pictures[0]) for picture in pictures)


def _has_all_scans(data):
    """Whether the scans of a progressive JPEG hold all 64 coefficients of each component to the last bit (ITU-T T.81,
    B.2.3); True for other JPEGs, which have one scan."""
    frame = data[data.rfind(PROGRESSIVE) :] if PROGRESSIVE in data else b""
    missing = {(component, i) for component in frame[10 : 10 + 3 * (frame or bytes(10))[9] : 3] for i in range(64)}
    for scan in frame.split(SCAN)[1:]:
        count = scan[2]
        first, last, bits = scan[3 + 2 * count], scan[4 + 2 * count], scan[5 + 2 * count] % 16
        if not bits:  # to the last bit
            missing -= {(component, i) for component in scan[3 : 3 + 2 * count : 2] for i in range(first, last + 1)}
    return not missing
