import cv2
import numpy as np
import tensorflow.compat.v1 as tf

graph_def = tf.GraphDef()
with open("models/landmark.pb", "rb") as file:
    graph_def.ParseFromString(file.read())
with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name="")

crop = cv2.imread("images/astronaut.jpg")  # BGR, cut around the face
height, width = crop.shape[:2]
with tf.Session(graph=graph) as session:
    batch = cv2.resize(crop, (128, 128))[np.newaxis]  # uint8 0..255, not normalised
    points = session.run("fully_connected_9/Relu:0", {"Placeholder:0": batch})
print(points.reshape(68, 2) * [width, height])  # x, y in pixels of the crop
