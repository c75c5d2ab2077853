import cv2
import numpy as np
import tensorflow as tf

interpreter = tf.lite.Interpreter("models/landmark.tflite")  # or that of the package ai_edge_litert
(source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.allocate_tensors()  # for many faces: resize_tensor_input(source["index"], [32, 128, 128, 3]) before it

crop = cv2.imread("images/astronaut.jpg")  # BGR, cut around the face
height, width = crop.shape[:2]
batch = cv2.resize(crop, (128, 128))[np.newaxis].astype(np.float32)  # 0..255, not normalised
interpreter.set_tensor(source["index"], batch)
interpreter.invoke()
points = interpreter.get_tensor(target["index"])
print(points.reshape(68, 2) * [width, height])  # x, y in pixels of the crop
