import cv2
import numpy as np
import tensorflow as tf

with open("models/landmark.pb", "rb") as file:
    graph_def = tf.compat.v1.GraphDef.FromString(file.read())
graph = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
find_points = graph.prune("Placeholder:0", "fully_connected_9/Relu:0")

crop = cv2.imread("images/astronaut.jpg")  # BGR, cut around the face
height, width = crop.shape[:2]
batch = cv2.resize(crop, (128, 128))[np.newaxis].astype(np.float32)  # 0..255, not normalised
points = find_points(tf.constant(batch)).numpy()
print(points.reshape(68, 2) * [width, height])  # x, y in pixels of the crop
