import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("models/landmark.onnx")

crop = cv2.imread("images/astronaut.jpg")  # BGR, cut around the face
height, width = crop.shape[:2]
batch = cv2.resize(crop, (128, 128))[np.newaxis].astype(np.float32)  # 0..255, not normalised
(points,) = session.run(["fully_connected_9/Relu:0"], {"Placeholder:0": batch})
print(points.reshape(68, 2) * [width, height])  # x, y in pixels of the crop
