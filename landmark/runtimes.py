"""The runtimes that can run a model, imported only when one is asked for.

Each loader takes the path of a model and a number of threads (0: the runtime's choice), and returns a function that
takes crops, uint8 or float32 [N, 128, 128, 3], BGR, 0..255, and returns points, float32 [N, 136]: x0 y0 x1 y1 ... x67
y67 as shares of the crop's width and height.
"""

import functools
import threading
import warnings
from pathlib import Path

import cv2
import numpy as np

from landmark.cli import UserError
from landmark.points import IMAGE_SIZE, LANDMARKS

INPUT_NAME = "Placeholder:0"  # of landmark.pb, in every program that loads it
OUTPUT_NAME = "fully_connected_9/Relu:0"


def one_at_a_time(run):
    """A function of a network that keeps its input, as OpenCV's and TFLite's do, for threads that share it."""
    lock = threading.Lock()

    def locked(*args):
        with lock:
            return run(*args)

    return locked


def load_opencv(path, threads=0):
    """Loads landmark.pb with OpenCV's dnn; the number of threads applies to all of OpenCV in this process.

    Raises UserError: the file is missing, or OpenCV cannot read it.
    """
    if threads:
        cv2.setNumThreads(threads)
    try:
        net = cv2.dnn.readNetFromTensorflow(np.frombuffer(_read(path), np.uint8))
    except cv2.error:
        raise UserError(f"{path} is not a frozen graph: write one with python freeze_graph.py") from None

    @one_at_a_time
    def run(crops):
        net.setInput(cv2.dnn.blobFromImages(list(crops)))
        return net.forward()

    return run


def load_session(path, threads=0):
    """Loads landmark.pb in a TensorFlow session; the first session of a process fixes the threads of all of them.

    Raises UserError: see graphs.load_graph; or the graph turns out to be damaged when it is run.
    """
    import tensorflow.compat.v1 as tf

    from landmark.graphs import load_graph

    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    return functools.partial(run_session, tf.Session(graph=load_graph(path), config=config))


def run_session(session, crops):
    """Points on crops, by a tf.Session on a graph of graphs.load_graph.

    Raises UserError: the graph cannot be run.
    """
    import tensorflow.compat.v1 as tf

    try:
        return session.run(OUTPUT_NAME, {INPUT_NAME: crops})
    except tf.errors.OpError as error:
        raise UserError(f"the graph is damaged ({type(error).__name__}): python freeze_graph.py writes one") from None


def load_saved_model(path, threads=0):
    """Loads the folder of a SavedModel as TensorFlow Serving does, by its signature."""
    import tensorflow.compat.v1 as tf

    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    session = tf.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        model = tf.saved_model.loader.load(session, [tf.saved_model.tag_constants.SERVING], str(path))
    signature = model.signature_def[tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
    return lambda crops: session.run(signature.outputs["points"].name, {signature.inputs["crops"].name: crops})


def load_tflite(path, threads=0):
    """Loads a TFLite model, with the package ai_edge_litert if it is installed, else with TensorFlow.

    Raises UserError: neither is installed, or the file is not a TFLite model.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tensorflow.compat.v1.lite import Interpreter
        except ImportError:
            raise UserError(f'{path} needs a package: pip install "ai-edge-litert>=2,<3"') from None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        try:
            interpreter = Interpreter(model_content=_read(path), num_threads=threads or None)
        except ValueError:
            raise UserError(f"{path} is not a TFLite model") from None
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    @one_at_a_time
    def run(crops):
        interpreter.resize_tensor_input(source["index"], crops.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], crops.astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def load_onnx(path, threads=0):
    """Loads an ONNX model with ONNX Runtime.

    Raises UserError: ONNX Runtime is not installed, or the file is not an ONNX model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f'{path} needs a package: pip install "onnxruntime>=1.23,<2"') from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = _read(path)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # its errors share no other class
        raise UserError(f"{path} is not an ONNX model") from None
    return lambda crops: session.run([OUTPUT_NAME], {INPUT_NAME: crops.astype(np.float32)})[0]


def check_model(predict, path):
    """Runs one black crop, which also warms up the runtime. UserError: the model, from `path`, fails or is another."""
    try:
        shape = predict(np.zeros([1, IMAGE_SIZE, IMAGE_SIZE, 3], np.uint8)).shape
    except UserError:
        raise
    except Exception as error:  # each runtime has its own
        raise UserError(f"{path} cannot be run: {str(error).strip().partition(chr(10))[0]}") from None
    if shape != (1, 2 * LANDMARKS):
        raise UserError(f"{path} is the model of another network: it returns {list(shape)}, not [1, {2 * LANDMARKS}]")


def loader_for(path, pb=load_opencv):
    """The loader of a model by its suffix: .tflite, .onnx, or else `pb`, that of a frozen graph."""
    return {".tflite": load_tflite, ".onnx": load_onnx}.get(Path(path).suffix, pb)


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
