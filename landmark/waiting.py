"""How a task of a cluster waits for the others, and finds out which of them is lost.

Each task keeps a count of the all-reduces it has reached, in a variable on its own TensorFlow server. A task that has
waited for some seconds reads the counts of the others: one that does not answer has died, was stopped or cannot be
reached; one that stays behind hangs.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import tensorflow.compat.v1 as tf

from landmark.cli import UserError

START_SECONDS = 600  # within which all tasks start; the first also has this long to test and save
STEP_SECONDS = 40  # within which any other task does its part of a step
ASK_SECONDS, ANSWER_SECONDS = 8, 10  # how long a task waits before it asks the others, and for their answers
BROKEN = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError
BROKEN_ASKS = 3  # how often the others are asked who is lost when an all-reduce breaks off


def task_session(addresses, index, graph=None, **options):
    """A tf.Session on the server of task `index`, an int, which uses no other server.

    addresses: list of "host:port", one for each task.
    graph: tf.Graph, or None for the default one.
    options: fields of tf.ConfigProto.
    """
    config = tf.ConfigProto(device_filters=[f"/job:worker/task:{index}"], **options)
    return tf.Session(f"grpc://{addresses[index]}", graph, config)


def count_all_reduce():
    """An op that tells the others that this task has reached its next all-reduce."""
    return tf.raw_ops.AssignAddVariableOp(resource=_counter(), value=np.int64(1))


def _counter():
    with tf.device("/CPU:0"):
        return tf.raw_ops.VarHandleOp(dtype=tf.int64, shape=[], shared_name="all_reduces")


class Waiting:
    """What a task knows of the others.

    names: list of str, of the tasks in order, as messages name them.
    addresses: list of "host:port" of their servers, of which this task's own is running.
    index: int, of this task.
    """

    def __init__(self, names, addresses, index):
        self._names, self._addresses, self._index, self._all_started = names, addresses, index, False
        self._runner, self._askers = ThreadPoolExecutor(1), ThreadPoolExecutor(len(names))
        with tf.Graph().as_default() as self._graph, task_session(addresses, index) as session:
            session.run(tf.raw_ops.AssignVariableOp(resource=_counter(), value=np.int64(0)))
            self._count = tf.raw_ops.ReadVariableOp(resource=_counter(), dtype=tf.int64)

    def run(self, session, fetches, seconds=START_SECONDS):
        """session.run, in a thread because Ctrl-C does not interrupt one that waits.

        session: tf.Session of this task.
        fetches: of session.run, an all-reduce among them.
        seconds: that any task but the first may stay behind.
        Raises UserError: a task is lost; the message names it.
        """
        running, began, broken = self._runner.submit(session.run, fetches), time.monotonic(), 0
        try:
            while True:
                wait([running], ASK_SECONDS)
                if running.done() and not isinstance(running.exception(), BROKEN):
                    self._all_started = True
                    return running.result()
                broken += running.done()
                lost = self._find_lost(time.monotonic() - began, seconds, broken)
                if broken == BROKEN_ASKS and not lost:
                    lost = [f"the connection to another task ({type(running.exception()).__name__})"]
                if lost:
                    raise UserError(
                        f"{self._names[self._index]}: lost {' and '.join(lost)}; start all tasks again with the same"
                        " commands: they go on from the last checkpoint"
                    )
                if broken:
                    time.sleep(ASK_SECONDS)
        except KeyboardInterrupt:
            wait([running], ASK_SECONDS)  # a step that can end is better saved whole
            raise

    def _find_lost(self, waited, seconds, broken):
        """A line on each task that is lost, after some seconds that this task has `waited`; `seconds` as in run();
        broken: whether an all-reduce has broken off, so that some task is lost."""
        counts, lost = [*self._askers.map(self._ask, range(len(self._names)))], []
        furthest = max(count or 0 for count in counts)
        for index, count in enumerate(counts):
            if count is None and (broken or self._all_started or waited > START_SECONDS):
                what = "does not answer"
            elif count is not None and furthest - count > 2:  # a task that runs is 1 behind, 2 if it answered sooner
                what = "was started again"
            elif count is not None and furthest > count and waited > (seconds if index else START_SECONDS):
                what = f"has kept the others waiting for {waited:.0f} seconds"
            else:
                continue
            lost.append(f"{self._names[index]} ({self._addresses[index]}), which {what}")
        return lost

    def _ask(self, index):
        """The count of a task, or None if it does not answer."""
        options = {"operation_timeout_in_ms": 1000 * ANSWER_SECONDS}
        session = task_session(self._addresses, index, self._graph, **options)
        try:
            return session.run(self._count)
        except tf.errors.OpError:
            return None
        finally:
            with contextlib.suppress(tf.errors.OpError):  # a with block closes it in a thread, which prints its error
                session.close()
