"""Matrices in MATLAB's files of version 5, without scipy, whose reader crashes on some that are damaged.

The format: MathWorks, "MAT-File Format", version 5.
"""

import itertools
import struct
import zlib

import numpy as np

from landmark.cli import UserError

MATRIX, COMPRESSED = 14, 15
# Types of stored numbers, and the classes of matrices that hold numbers (not text, structures, sparse matrices).
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = range(6, 16)
COMPLEX = 0x800
HEAD, MOST = 2**12, 2**26  # bytes read of a variable: enough for its name; at most


def read_mat(path, names):
    """Matrices of numbers from a file.

    path: Path.
    names: of the variables that are wanted.
    Returns: dict of a name to float64 [...], in the variable's shape, of the variables that exist.
    Raises UserError: it is not a MAT file or is damaged, or a variable is not a plain matrix. Raises OSError: it cannot
        be read.
    """
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if not order:
        raise UserError("not a readable MAT file (of version 5)")
    found = {}
    try:
        for kind, element in _elements(data[128:], order):
            head = zlib.decompressobj().decompress(element, HEAD)[8:] if kind == COMPRESSED else element
            (flags, _), shape, name = (_numbers(part, order) for part in itertools.islice(_elements(head, order), 3))
            name = name.tobytes().decode("latin-1")
            if name not in names or name in found:
                continue
            if flags % 256 not in CLASSES or flags & COMPLEX:
                raise UserError(f"{name} is not a plain matrix of numbers")
            body = zlib.decompressobj().decompress(element, MOST)[8:] if kind == COMPRESSED else element
            *_, numbers = itertools.islice(_elements(body, order), 4)
            found[name] = _numbers(numbers, order).astype(np.float64).reshape(shape, order="F")
    except (struct.error, zlib.error, KeyError, TypeError, ValueError):  # truncated, or of the wrong type
        raise UserError("not a readable MAT file: damaged") from None
    return found


def mat_bytes(arrays):
    """A MATLAB 5 file of named float32 matrices, as bytes.

    scipy's savemat puts the date into the header, so the same seed would not give the same file.
    """
    out = [b"MATLAB 5.0 MAT-file".ljust(124), struct.pack("<H2s", 0x0100, b"IM")]
    for name, a in arrays.items():
        a = np.asarray(a, np.float32)
        parts = [(6, struct.pack("<II", 7, 0)), (5, struct.pack("<ii", *a.shape)), (1, name.encode()),
                 (7, a.tobytes("F"))]  # fmt: skip
        body = b"".join(struct.pack("<II", kind, len(d)) + d + bytes(-len(d) % 8) for kind, d in parts)
        out.append(struct.pack("<II", MATRIX, len(body)) + body)
    return b"".join(out)


def _elements(data, order):
    """The elements in some bytes: yields (type, its bytes)."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        begin, end = at + 8, at + 8 + size
        if kind >> 16:  # a small one: its size, type and up to four bytes, in eight
            kind, size = kind % 2**16, kind >> 16
            begin, end = at + 4, at + 4 + size
            at += 8
        else:
            at = end + (-size % 8 if kind != COMPRESSED else 0)
        if end > len(data):
            raise struct.error
        yield kind, data[begin:end]


def _numbers(element, order):
    kind, data = element
    return np.frombuffer(data, np.dtype(TYPES[kind]).newbyteorder(order))
