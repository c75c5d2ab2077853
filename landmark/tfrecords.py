"""What a TFRecord file holds where some of it is damaged: TensorFlow's own readers end there."""

import contextlib
import itertools
import mmap
import os
import re

import tensorflow.compat.v1 as tf
from tensorflow.python.lib.io.tf_record import tf_record_random_reader

HEAD = re.compile(rb"(?s)(?=.[^\0]..\0{4})")  # of a record of 256 bytes to 4 GB: its length, little-endian
MOST_HEADS = 10_000  # that are looked at after a damaged one


def read_raw(path):
    """The records of a file as they lie in it, past damaged ones.

    Args:
        path: str or Path of a file that is not empty.

    Yields:
        (byte where it begins, its bytes, or None for a damaged one); what lies before the next good length counts as
        one record.
    """
    reader = tf_record_random_reader(os.fsencode(path))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = 0
        while at < len(content):
            end, record = _end_of_record(content, at), None
            if end:
                with contextlib.suppress(tf.errors.DataLossError):
                    record, _ = reader.read(at)
            yield at, record
            at = _next_head(content, at + 1) if record is None else end


def _next_head(content, at):
    """Where the next record begins that has a good length, or the end of the file."""
    heads = (found.start() for found in itertools.islice(HEAD.finditer(content, at), MOST_HEADS))
    return next((head for head in heads if _end_of_record(content, head)), len(content))


def _end_of_record(content, at):
    """Where the record ends that begins at a byte of a record file, or None if none does: it is its length, 8 bytes,
    their CRC, 4, the record, and its CRC, 4."""
    length = int.from_bytes(content[at : at + 8], "little")
    crc = 2**32 - 1  # CRC-32C
    for byte in content[at : at + 8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ crc % 2 * 0x82F63B78
    crc ^= 2**32 - 1
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    if at + 16 + length <= len(content) and int.from_bytes(content[at + 8 : at + 12], "little") == masked:
        return at + 16 + length
    return None
