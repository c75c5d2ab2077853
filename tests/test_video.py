"""A video that is written anew lasts as long, whatever its rate, size and times."""

import struct

import cv2
import numpy as np
import pytest
from conftest import names_in

from landmark.cli import UserError
from landmark.video import Video, write_video


def write_source(path, rate):
    """Writes a video of 20 frames in which a bar of 8 pixels moves by its width; returns its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (160, 48))
    for i in range(20):
        frame = np.zeros((48, 160, 3), np.uint8)
        frame[:, 8 * i : 8 * i + 8] = 255
        writer.write(frame)
    writer.release()
    return path


def copy(source, target):
    """Writes a video anew; returns the times of its frames."""
    video, times = Video(source), []
    with write_video(target, video.rate) as add:
        for frame in video:
            add(frame, video.seconds)
            times.append(video.seconds)
    return np.array(times)


def read(path):
    """(frames a second, list of the numbers in the source that the frames have)."""
    capture, numbers = cv2.VideoCapture(str(path)), []
    while (frame := capture.read()[1]) is not None:
        numbers.append(int(frame.reshape(48, 20, 8, 3).mean((0, 2, 3)).argmax()))
    return capture.get(cv2.CAP_PROP_FPS), numbers


@pytest.mark.parametrize("rate, suffix", [(0.5, "mp4"), (29.97, "avi"), (25, "mkv"), (600, "avi"), (1500, "mp4")])
def test_a_video_keeps_its_rate_and_every_frame(rate, suffix, tmp_path):
    source = write_source(tmp_path / f"source.{suffix}", rate)
    times = copy(source, tmp_path / "copy.mp4")
    np.testing.assert_allclose(times, np.arange(20) / rate, atol=0.6e-3)  # mkv has milliseconds
    said, numbers = read(tmp_path / "copy.mp4")
    assert said == pytest.approx(rate, rel=1e-3) and numbers == list(range(20))


def make_uneven(path, fast, slow):
    """Changes how long the frames of an mp4 are shown: by one factor in its first half, by another in its second."""
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") + 8
    entries, count, delta = struct.unpack(">III", data[at : at + 12])
    assert entries == 1 and data.index(b"moov") > data.index(b"mdat")
    data[at : at + 12] = struct.pack(">IIIII", 2, count // 2, int(fast * delta), count // 2, int(slow * delta))
    for name in b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts":
        at = data.index(name) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + 8)
    path.write_bytes(data)


def test_frames_that_come_unevenly_are_shown_at_their_times(tmp_path):
    source = write_source(tmp_path / "source.mp4", 10)
    make_uneven(source, 0.5, 1.5)
    times = copy(source, tmp_path / "copy.mp4")
    np.testing.assert_allclose(times, [*np.arange(10) * 0.05, *(0.5 + np.arange(10) * 0.15)], atol=1e-6)
    rate, numbers = read(tmp_path / "copy.mp4")
    assert len(numbers) / rate == pytest.approx(2, abs=0.11)
    assert np.abs(times[numbers] - np.arange(len(numbers)) / rate).max() < 0.51 / rate + 0.05


def test_odd_sizes_lose_no_row_and_no_column(tmp_path):
    frame = np.zeros((47, 63, 3), np.uint8)
    frame[-1], frame[:, -1] = 255, 255
    with write_video(tmp_path / "odd.mp4", 25) as add:
        add(frame, 0)
    written = cv2.VideoCapture(str(tmp_path / "odd.mp4")).read()[1]
    assert written.shape == (48, 64, 3)
    assert written[-2:].mean() > 200 and written[:, -2:].mean() > 200 and written[:-6, :-6].mean() < 40


def test_a_size_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="8200x16"), write_video(tmp_path / "wide.mp4", 25) as add:
        add(np.zeros((16, 8200, 3), np.uint8), 0)
    assert not names_in(tmp_path)


def test_a_wrong_time_in_a_file_does_not_fill_the_disk(tmp_path):
    source = write_source(tmp_path / "source.mp4", 10)
    make_uneven(source, 1, 10_000)  # frames of a thousand seconds
    times = copy(source, tmp_path / "copy.mp4")
    np.testing.assert_allclose(times, np.arange(len(times)) / 10, atol=1e-6)
    assert len(times) > 10


def test_a_video_that_cannot_be_read_has_no_frames(tmp_path):
    empty = Video(tmp_path / "missing.mp4")
    assert not list(empty) and empty.rate == 30 and empty.length is None
