import sys

import cv2
import numpy as np

from landmark import FaceTracker, load_model

video = cv2.VideoCapture(sys.argv[1] if len(sys.argv) > 1 else 0)  # a file, or the camera
if not video.isOpened():
    sys.exit("cannot open the video")
track, ratios, blinks, is_shut = FaceTracker(load_model()), [], 0, False
while (frame := video.read()[1]) is not None:
    for face in track(frame)[:1]:
        ratios.append(np.mean(face.eye_open))  # of both eyes: near 0.3 when open, 0 when shut
        was_shut, usual = is_shut, np.median(ratios[-900:])  # of the last half minute
        is_shut = ratios[-1] < (0.75 if was_shut else 0.6) * usual
        if is_shut and not was_shut:
            blinks += 1
            print(f"blink {blinks}")
