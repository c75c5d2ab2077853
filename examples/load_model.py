import cv2

from landmark import load_model

find_faces = load_model()  # models/landmark.pb; or a path: models/landmark_free.pb in products that you sell
picture = cv2.imread("examples/photos/astronaut.jpg")  # BGR
for face in find_faces(picture):
    print(f"face {face.number}, score {face.score:.2f}, yaw {face.pose.yaw:.0f} degrees")
    print(face.points)  # 68 rows of x, y in pixels of the picture
