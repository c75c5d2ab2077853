"""Reading pictures, and writing files: whole or not at all, and never in place of one that is not ours."""

import contextlib
import fcntl
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np

from landmark.ending import held

LEDGER, PARTIAL = ".written-by-landmark", ".partial-"

# Of JPEG: the marker of a segment; that which ends a scan, among whose pixels are restart markers, and zeros after FF
# that are none; the frame headers, which say how many components there are; the end; what else could go on in a scan.
MARKER, SCAN_MARKER = re.compile(rb"\xff([^\x00\xff])"), re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
END = b"\xff\xd9"
ANYTHING = [b"\0" * 64, b"\xff\0" * 64, *np.random.default_rng(0).integers(0, 255, (3, 64), np.uint8)]
ANYTHING = [bytes(bits) for bits in ANYTHING]

_checked = {}  # Path of a file of check_outputs -> (what it is made of, stamp of what it may replace)


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


# Writing


def check_outputs(sources, overwrite=False):
    """Makes sure, before any work, that whole_file will replace nothing but what an earlier run wrote as it is now.

    LEDGER, in the same folder, says what that is. What killed runs left of these files is removed.

    Args:
        sources: dict of the Path of each file that will be written to the name (str) of what it is made of, where it
            may only replace what was made of the same, else None.
        overwrite: whether to replace whatever is there.

    Raises:
        ValueError: something else is there, or another run is writing it; the message names it.
    """
    folders = {path.parent for path in sources}
    written = {folder: _read_ledger(folder) for folder in folders}
    partials = {folder: _find_partials(folder) for folder in folders}
    for path, source in sources.items():
        if not _remove_left(partials[path.parent].get(_partial_end(path), ())):
            raise ValueError(f"{path} is being written by another run: wait for its end, or name another output")
        stamp = _stamp(path)
        made_of = written[path.parent].get((path.name, stamp), False)
        if stamp and made_of != source and not overwrite:
            why = f"made of {made_of}" if made_of else "not written by this command, or changed since"
            raise ValueError(f"{path} is in the way, {why}: name another output, or replace it with --overwrite")
        _checked[path] = source, stamp


@contextlib.contextmanager
def whole_file(path):
    """A path beside `path` to write to, renamed to `path` when the block ends well and deleted when it does not.

    Raises:
        ValueError: check_outputs was asked about `path`, and what is there has changed since.
        OSError: it cannot be written; the error names `path`.
    """
    path = Path(path)
    with _partial(path) as partial:
        partial.touch()
        with _locked(partial):
            yield partial
            with held():
                if path in _checked:
                    source, before = _checked[path]
                    if _stamp(path) != before:
                        raise ValueError(f"{path} was written by another meanwhile, and is kept: run this again")
                    _checked[path] = source, _stamp(partial)
                    with open(path.with_name(LEDGER), "a") as ledger:
                        ledger.write(json.dumps([path.name, *_checked[path]]) + "\n")
                partial.replace(path)


@contextlib.contextmanager
def whole_folder(path):
    """A folder beside `path` to fill, renamed to `path`, which is new or an empty folder, when the block ends well and
    deleted when it does not; what killed runs left of it is removed.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    path = Path(path).resolve()
    _remove_left(_find_partials(path.parent).get(_partial_end(path), ()))
    with _partial(path) as partial:
        partial.mkdir()
        with _locked(partial):
            yield partial
            with held():
                partial.replace(path)


# What is written lies beside its name under another, with the number of the process in it, and is locked as long as
# that lives. The file LEDGER of a folder has a line for each file: its name, what it is made of, its stamp.


@contextlib.contextmanager
def _partial(path):
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{_partial_end(path)}")
    try:
        try:
            yield partial
        finally:
            _remove(partial)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _partial_end(path):
    return os.fsdecode(os.fsencode(path.name)[-200:])  # of the 255 bytes that a name may have


def _find_partials(folder):
    """The partial files and folders in a folder: dict of the end of their name to their Paths."""
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(PARTIAL):
                found.setdefault(entry.name.split("-", 2)[-1], []).append(Path(entry.path))
    return found


def _remove_left(partials):
    """Removes partial files whose process is gone; whether that were all."""
    for partial in partials:
        try:
            with _locked(partial):
                _remove(partial)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return False
    return True


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _stamp(path):
    """What tells a file from others of its name, and from itself before a change: [size, time], or None."""
    with contextlib.suppress(FileNotFoundError):
        state = os.lstat(path)
        return state.st_size, state.st_mtime_ns


def _read_ledger(folder):
    """What was written into a folder: dict of (name, stamp) to what it was made of."""
    written = {}
    with contextlib.suppress(FileNotFoundError), open(folder / LEDGER) as lines:
        for line in lines:
            with contextlib.suppress(ValueError):  # cut
                name, source, stamp = json.loads(line)
                written[name, tuple(stamp)] = source
    return written
