import cv2

net = cv2.dnn.readNetFromTensorflow("models/landmark.pb")

crop = cv2.imread("images/astronaut.jpg")  # BGR, cut around the face
height, width = crop.shape[:2]
net.setInput(cv2.dnn.blobFromImage(crop, size=(128, 128)))  # no mean, no scale, no channel swap
points = net.forward()
print(points.reshape(68, 2) * [width, height])  # x, y in pixels of the crop
