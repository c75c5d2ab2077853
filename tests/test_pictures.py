"""Which files read_picture reads, and which it refuses."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import REPO

from landmark.cli import UserError
from landmark.pictures import read_picture

ASTRONAUT = REPO / "images" / "astronaut.jpg"
# Kinds of JPEG: whether it has colour, options of OpenCV.
KINDS = {
    "plain": (True, []),
    "grey": (False, []),
    "progressive": (True, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "progressive grey": (False, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "restart markers": (True, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
    "full colour": (True, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]),
}


def encode(make, kind="plain", height=17, width=25):
    colour, options = KINDS[kind]
    picture = make.photo(0, height, width) + np.random.default_rng(0).integers(0, 40, (height, width, 1), np.uint8)
    picture = picture if colour else picture[..., 0]
    return cv2.imencode(".jpg", picture, [*options, cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_cut_anywhere_is_refused_unless_it_lacks_its_last_two_bytes_alone(kind, tmp_path, make):
    data = encode(make, kind)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    path = tmp_path / "a.jpg"
    for length in range(1, len(data) + 1):
        path.write_bytes(data[:length])
        if length >= len(data) - 2:
            np.testing.assert_array_equal(read_picture(path)[0], whole)
            continue
        try:
            picture, _ = read_picture(path)
        except UserError as error:
            assert length < 3 or "cut short" in str(error)
        else:  # the last byte of the scan may be nothing but padding
            assert length == len(data) - 3
            np.testing.assert_array_equal(picture, whole)


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_a_real_photo_cut_anywhere_is_refused_unless_it_lacks_its_last_two_bytes_alone(kind, tmp_path):
    data, path = ASTRONAUT.read_bytes(), tmp_path / "a.jpg"
    if kind == "progressive":
        data = cv2.imencode(".jpg", cv2.imread(str(ASTRONAUT)), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scans = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    assert len(scans) == (1 if kind == "baseline" else 10)
    lengths = {*range(2, len(data), len(data) // 40), *range(len(data) - 300, len(data) - 2)}
    lengths |= {scan + near for scan in scans for near in (-1, 0, 1, 2, 4, 10, 14, 15)}  # around it, and in its header
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="cut short"):
            read_picture(path)
    for length in len(data) - 2, len(data) - 1, len(data):
        path.write_bytes(data[:length])
        picture, content = read_picture(path)
        np.testing.assert_array_equal(picture, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        assert content.endswith(b"\xff\xd9")


@pytest.mark.parametrize("kind", KINDS)
def test_a_trailer_behind_a_jpeg_does_not_matter(kind, tmp_path, make):
    data = encode(make, kind)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    path = tmp_path / "a.jpg"
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data  # in a segment of its own, as EXIF has it
    for more in b"\xff\xda", b"\xff\xd8\xff\xda\0\x0c", data[: len(data) // 2], b"\0" * 99:
        path.write_bytes(data + more)
        np.testing.assert_array_equal(read_picture(path)[0], whole)
        path.write_bytes(data[:2] + thumbnail + data[2:] + more)
        np.testing.assert_array_equal(read_picture(path)[0], whole)
        path.write_bytes(data[:2] + thumbnail + data[2 : len(data) // 2])  # which has the end of its thumbnail alone
        with pytest.raises(UserError, match="cut short"):
            read_picture(path)


def test_a_jpeg_of_marker_after_marker_takes_no_time(tmp_path, make):
    data = encode(make, "progressive")
    frame = data[data.index(b"\xff\xc2") :][:19]
    path = tmp_path / "a.jpg"
    for content in (
        b"\xff" * 3_000_000,
        frame * 200_000,
        b"\xff\xe1" * 2_000_000,
        b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 9,
    ):
        path.write_bytes(data[:2] + content)
        with pytest.raises(UserError, match="cut short"):
            read_picture(path)


def test_a_picture_that_claims_too_much_is_refused_before_it_is_decoded(tmp_path, make):
    jpeg, path = encode(make), tmp_path / "a.jpg"
    at = jpeg.index(b"\xff\xc0") + 5
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 180_001)), (b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    bmp = cv2.imencode(".bmp", make.photo(0, 4, 4))[1].tobytes()
    bmp = bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:]
    for content in jpeg[:at] + struct.pack(">HH", 60_000, 60_000) + jpeg[at + 4 :], png, bmp:
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a picture that OpenCV can read"):
            read_picture(path)


def test_pixels_stay_as_stored_or_stand_upright(tmp_path, make):
    data = encode(make)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # turn it by 90 degrees
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + data[2:])
    stored, upright = read_picture(path, stored=True)[0], read_picture(path)[0]
    assert stored.shape == (17, 25, 3)
    np.testing.assert_array_equal(upright, cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE))
