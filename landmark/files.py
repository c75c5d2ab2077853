"""Reading pictures, writing whole files, and the one way a script ends where it cannot go on."""

import contextlib
import functools
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np

# Of JPEG: the marker of a segment; that which ends a scan, among whose pixels are restart markers, and zeros after FF
# that are none; the frame headers, which say how many components there are; the end; what else could go on in a scan.
MARKER, SCAN_MARKER = re.compile(rb"\xff([^\x00\xff])"), re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
END = b"\xff\xd9"
ANYTHING = [b"\0" * 64, b"\xff\0" * 64, *np.random.default_rng(0).integers(0, 255, (3, 64), np.uint8)]
ANYTHING = [bytes(bits) for bits in ANYTHING]


def read_picture(path, stored=False):
    """Reads a picture file.

    Args:
        path: of the file.
        stored: whether its pixels stay as they are stored; else it stands upright, as its EXIF orientation says.

    Returns:
        (picture uint8 [H, W, 3], BGR, whatever the file's depth and number of channels; the bytes of the file, with its
        end where a JPEG lacks that alone).

    Raises:
        ValueError: the file is missing, empty, cut short or no picture; the message says which.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ValueError("empty file")
    if data.startswith(b"\xff\xd8") and not (has_end := _has_end(data)):  # OpenCV makes grey of what is missing
        if has_end is False or not _lacks_its_end_alone(data):
            raise ValueError("JPEG is cut short")
        data += END
    picture = decode_picture(data, stored)
    if picture is None:
        raise ValueError("not a picture that OpenCV can read")
    return picture, data


def decode_picture(data, stored=True):
    """The picture in the bytes of a file, uint8 [H, W, 3], BGR; stored: as of read_picture. None if there is none."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if stored else cv2.IMREAD_COLOR
    with contextlib.suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _has_end(data):
    """What the markers of the first picture in a JPEG file say of its end.

    Returns:
        True: it is there. None: the file ends in the last scan that the picture needs. False: it ends before.
    """
    needed, at, in_scan = None, 2, False
    for _ in range(10_000):  # markers: real files have dozens
        found = (SCAN_MARKER if in_scan else MARKER).search(data, at)
        if not found:
            return None if in_scan and not needed else False
        code, at = found[1][0], found.end()
        if code == END[1]:
            return True
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2])]
        at += 2 + len(segment)
        try:
            if code in FRAMES:  # each component needs its 64 coefficients to the last bit
                needed = {(component, i) for component in segment[6:18:3] for i in range(64)}
            elif in_scan := code == 0xDA:
                count = min(segment[0], 4)
                first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
                if not bits % 16:
                    needed -= {(component, i) for component in segment[1::2][:count] for i in range(first, last + 1)}
        except (IndexError, ValueError, TypeError):  # the segment is cut, or comes before the frame
            return False
    return False


def _lacks_its_end_alone(data):
    """Whether a JPEG that ends in its last scan has all of it: then it is the same picture whatever comes next."""
    data = data.rstrip(END[:1])
    last = [b"\xd7", *RESTART.findall(data)][-1][0]
    restart = bytes([END[0], 0xD0 + (last + 1) % 8])
    with open(os.devnull, "w") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)  # libjpeg remarks on such files
        try:
            pictures = [decode_picture(data + bits + restart + bits + END) for bits in ANYTHING]
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return all(picture is not None and np.array_equal(picture, pictures[0]) for picture in pictures)


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
