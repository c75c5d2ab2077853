"""Videos: their frames with their times, and videos written that last as long."""

import contextlib
import errno
import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np

from landmark.cli import UserError

MP4V = cv2.VideoWriter.fourcc(*"mp4v")
MAX_SIDE = 8_190  # pixels a side: MPEG-4 has 13 bits for it
MAX_RATE = 10_000  # frames a second; some containers have their clock's rate for their frames'
CAMERA_RATE = 30  # where it is not known
RATE_FRAMES = 100  # frames whose times tell the rate
MAX_GAP = 600  # seconds; times further apart are a fault of the file


class Video:
    """A video or camera: iterating reads its frames, uint8 [H, W, 3], BGR, until its end or Ctrl-C.

    source: Path of a video; or a camera, by number, path or URL. One that cannot be read has no frames.

    rate: float, frames a second.
    length: number of frames, None where it is not known.
    is_interrupted: whether Ctrl-C ended it; is_stopped: whether Ctrl-C or the caller did.
    seconds: float, the time of the last frame read, counted from the first: by the file's timestamps; of a camera, by
        the clock.
    """

    def __init__(self, source):
        self.is_camera = not isinstance(source, Path)
        source = source if isinstance(source, int) else os.fsencode(source)
        try:
            self.capture = cv2.VideoCapture(source)
        except cv2.error:  # a camera number that does not fit a C int
            self.capture = cv2.VideoCapture()
        times = [] if self.is_camera else _read_times(source)
        self.has_times = self.is_camera or len(set(times)) > 1
        self.rate = _find_rate(self.capture.get(cv2.CAP_PROP_FPS), times)
        self.length = max(int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
        self.seconds, self.is_stopped, self.is_interrupted = 0.0, False, False

    def is_cut(self, count):
        """Whether fewer frames came than the file says, by more than containers are off; count: of those that came."""
        return not self.is_stopped and not self.is_camera and count < 0.98 * (self.length or 0) - 1

    def _stop(self, *_):
        self.is_stopped = self.is_interrupted = True

    def __iter__(self):
        last, before = None, signal.signal(signal.SIGINT, self._stop)  # not in the midst of a frame
        try:
            while not self.is_stopped and (frame := self.capture.read()[1]) is not None:
                now = time.monotonic() if self.is_camera else self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if last is not None:
                    has_step = self.has_times and 0 <= now - last <= MAX_GAP
                    self.seconds += now - last if has_step else 1 / self.rate
                last = now
                yield frame
        finally:
            signal.signal(signal.SIGINT, before)


def _read_times(source):
    """When the first frames of a video are shown: list of seconds."""
    capture, times = cv2.VideoCapture(source), []
    while len(times) < RATE_FRAMES and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return times


def _find_rate(said, times):
    """Frames a second: what the file says, if its times agree; else what most of them say."""
    said = said if 0 < said <= MAX_RATE else 0
    gaps = np.diff(times)
    if gaps.any() and not 0.9 < said * gaps.mean() < 1.1:
        said = 1 / np.median(gaps[gaps > 0])
    # MPEG-4 keeps the rate as a fraction below 65,536.
    return round(said, 2 if said < 600 else 0) or CAMERA_RATE


@contextlib.contextmanager
def write_video(path, rate):
    """Writes an mp4 with a constant rate; repeats or leaves out frames so that each is shown at its time.

    path: Path of the file.
    rate: float, frames a second.
    Yields: add(frame, seconds): frame uint8 [H, W, 3], BGR, all of one size, odd sides padded by their last row or
        column; seconds: when it is shown, increasing.
    Raises UserError: no video of this size can be written.
    Raises OSError: it could not be written whole.
    """
    writer = last = None
    first = count = 0

    def add(frame, seconds):
        nonlocal writer, last, first, count
        height, width = frame.shape[:2]
        frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if not writer:
            if max(height, width) <= MAX_SIDE:
                writer = cv2.VideoWriter(os.fsencode(path), MP4V, rate, frame.shape[1::-1])
            if not writer or not writer.isOpened():
                raise UserError(f"OpenCV cannot write an mp4 of {width}x{height} pixels at {rate:g} frames a second")
            last, first = frame, seconds
        place = round((seconds - first) * rate)
        while count <= place:
            writer.write(frame if count == place else last)
            count += 1
        last = frame

    try:
        yield add
    finally:
        if writer:
            writer.release()
    if cv2.VideoCapture(os.fsencode(path)).get(cv2.CAP_PROP_FRAME_COUNT) != count:  # the writer itself says nothing
        reason = errno.EIO if shutil.disk_usage(path.parent).free > 2**20 else errno.ENOSPC
        raise OSError(reason, os.strerror(reason), str(path))
