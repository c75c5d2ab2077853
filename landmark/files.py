"""Reading pictures, writing whole files, and the one way a script ends where it cannot go on."""

import contextlib
import functools
import sys
from pathlib import Path

import cv2
import numpy as np


def read_picture(path):
    """Reads a picture file.

    Returns:
        (picture uint8 [H, W, 3], BGR, whatever the file's depth and number of channels; the bytes of the file).

    Raises:
        ValueError: the file is missing, empty, cut short or no picture; the message says which.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ValueError("empty file")
    # OpenCV decodes a JPEG that is cut short to grey; inside a scan neither marker can occur.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise ValueError("JPEG is cut short")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        raise ValueError("not a picture that OpenCV can read")
    return picture, data


@contextlib.contextmanager
def whole_file(path):
    """A path beside `path` to write to, renamed to `path` when the block ends well and deleted when it does not."""
    partial = Path(path).with_name(f".partial-{Path(path).name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def one_line(main):
    """Decorates a script's main(): what the user can mend ends it with one line and exit code 1.

    That is a ValueError, whose message says what to do; an OSError, which names the file; and Ctrl-C.
    """

    @functools.wraps(main)
    def run():
        try:
            main()
        except ValueError as error:
            sys.exit(str(error))
        except OSError as error:
            sys.exit(f"cannot write {error.filename}: {error.strerror}")
        except KeyboardInterrupt:
            sys.exit("interrupted; no file is half-written")

    return run
