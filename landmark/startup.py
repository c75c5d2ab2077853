"""How the scripts start TensorFlow: they import this before anything that imports TensorFlow."""

import logging
import os
import signal

import cv2

from landmark.cli import CORES, silenced

SETTINGS = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # no log of its own: errors reach Python as exceptions
    "TF_ENABLE_ONEDNN_OPTS": "1",  # off by default without AVX-512, where it makes training faster too
    "TF_USE_LEGACY_KERAS": "1",  # no script uses Keras: its import would take a quarter of the start-up time
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # take GPU memory as it is needed, not all of it
}
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main() runs, Ctrl-C ends the script without a traceback
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # no deprecation warnings about TensorFlow 1
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a script says itself which file is wrong

with silenced():  # as it is imported, TensorFlow logs before it reads any setting
    import tensorflow.compat.v1 as tf


def describe_device():
    """The device that TensorFlow computes on, for a script's first line: "2 CPU cores", or the names of the GPUs."""
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    names = [gpu.get("device_name", "a GPU") for gpu in details]
    return ", ".join(names) or f"{CORES} CPU core{'s' * (CORES > 1)}"
