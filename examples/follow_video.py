import cv2

from landmark import FaceTracker, load_model

track = FaceTracker(load_model())
face = cv2.imread("images/astronaut.jpg")
for frame in [face, face[:, 8:], face[:, 16:]]:  # or those of cv2.VideoCapture("clip.mp4"), one after the other
    for found in track(frame):
        print(found.number, found.points[30])  # the face's number stays the same; the tip of its nose
