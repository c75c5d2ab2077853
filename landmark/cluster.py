"""Training by several tasks, one process for each machine or GPU, as the variable TF_CONFIG says.

Each task takes the gradients of its own batches, and an all-reduce gives everyone their mean. All tasks run the same
train(); the first (the chief, else worker 0) also tests, saves and prints.

Each task keeps a count of the all-reduces it has reached, in a variable on its own TensorFlow server. A task that has
waited for some seconds reads the counts of the others: one that does not answer has died, was stopped or cannot be
reached; one that stays behind hangs.
"""

import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import collective_ops

from landmark.cli import UserError

RUN, WEIGHTS, GRADIENTS, END = range(4)  # the instance keys of the all-reduces
RUN_BYTES = 65536  # for the description of a run: an all-reduce needs the same size everywhere
START_SECONDS = 600  # within which all tasks start; the first also has this long to test and save
STEP_SECONDS = 40  # within which any other task does its part of a step
ASK_SECONDS, ANSWER_SECONDS = 8, 10  # how long a task waits before it asks the others, and for their answers
BROKEN = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError
BROKEN_ASKS = 3  # how often the others are asked who is lost when an all-reduce breaks off


class Cluster:
    """Task `index` of those with these names and addresses, "host:port". Without addresses it is alone: train() is then
    as if there were no cluster. All methods raise UserError for what the user can fix, such as a task that is lost."""

    def __init__(self, names=("alone",), addresses=(), index=0):
        self.names, self.name, self.tasks, self.index, self.is_first = names, names[index], len(names), index, not index
        self._addresses, self._all_started = addresses, False
        if self.tasks == 1:
            return
        config = tf.ConfigProto()
        config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        try:
            tf.distribute.Server({"worker": addresses}, "worker", index, config=config)
        except tf.errors.OpError as error:
            raise UserError(f"{self.name} cannot listen at {addresses[index]}: {error.message}") from None
        self._runner, self._askers = ThreadPoolExecutor(1), ThreadPoolExecutor(self.tasks)
        with tf.Graph().as_default() as self._graph, self._session_of(index) as session:
            session.run(tf.raw_ops.AssignVariableOp(resource=_counter(), value=np.int64(0)))
            self._count = tf.raw_ops.ReadVariableOp(resource=_counter(), dtype=tf.int64)

    def share(self, paths):
        """The record files that this task reads, of all there are: list."""
        if len(paths) % self.tasks:
            raise UserError(
                f"{self.tasks} tasks cannot share {len(paths)} train*.tfrecords evenly: write them with python"
                f" prepare_tfrecords.py --shards {self.tasks}, or a multiple of it"
            )
        return paths[self.index :: self.tasks]

    def agree(self, run, start):
        """Checks that all tasks were started with the same `run`, a dict; returns the first task's `start`, as JSON."""
        if self.tasks == 1:
            return start
        with tf.Graph().as_default(), self._session_of(self.index) as session:
            text = np.frombuffer(json.dumps([run, start]).encode().ljust(RUN_BYTES), np.uint8)
            text = self._wait_for(session, self._broadcast([tf.constant(text)], RUN))[0]
        first_run, start = json.loads(text.tobytes())
        for name, value in json.loads(json.dumps(run)).items():
            if value != first_run.get(name):
                raise UserError(
                    f"{self.name} has {name} {value}, but {self.names[0]} has {first_run.get(name)}: start all tasks"
                    " with the same options and records"
                )
        return start

    def average(self, gradients):
        """The mean of each gradient over the tasks: a list of tensors like the one given."""
        return self._all_reduce(gradients, GRADIENTS, tf.float32, "Div") if self.tasks > 1 else gradients

    @contextlib.contextmanager
    def session(self):
        """A context with a tf.Session, at whose end the tasks wait for each other."""
        if self.tasks == 1:
            with tf.Session() as session:
                yield session
            return
        with self._session_of(self.index) as session:
            end = self._all_reduce([tf.zeros([1])], END)
            yield session
            self._wait_for(session, end)
            with contextlib.suppress(UserError):  # all are done: once all know that, each may leave
                self._wait_for(session, end)

    def start(self, session):
        """Gives the variables of every task the values that they have in the first."""
        if self.tasks > 1:
            variables = tf.global_variables()
            values = self._broadcast(variables, WEIGHTS)
            self._wait_for(session, [to.assign(value).op for to, value in zip(variables, values, strict=True)])

    def run(self, session, fetches):
        """session.run(fetches), of a step."""
        return self._wait_for(session, fetches, STEP_SECONDS) if self.tasks > 1 else session.run(fetches)

    def _broadcast(self, tensors, key):
        return self._all_reduce([each if self.is_first else tf.zeros_like(each) for each in tensors], key)

    def _all_reduce(self, tensors, key, dtype=tf.float64, final_op="Id"):
        """The sum of each tensor over the tasks, in one all-reduce; float64 holds float32, steps and bytes exactly."""
        flat = tf.concat([tf.reshape(tf.cast(each, dtype), [-1]) for each in tensors], 0)
        with tf.device("/CPU:0"), tf.control_dependencies([flat]):
            counted = tf.raw_ops.AssignAddVariableOp(resource=_counter(), value=np.int64(1))  # tells the others
        with tf.device("/CPU:0"), tf.control_dependencies([counted]):
            flat = collective_ops.all_reduce(flat, self.tasks, 1, key, final_op=final_op)
        parts = tf.split(flat, [each.shape.num_elements() for each in tensors])
        return [tf.cast(tf.reshape(part, each.shape), each.dtype) for part, each in zip(parts, tensors, strict=True)]

    def _session_of(self, index, graph=None, **options):
        """A tf.Session, with fields of tf.ConfigProto as options, on the server of a task, which uses no other one."""
        config = tf.ConfigProto(device_filters=[f"/job:worker/task:{index}"], **options)
        return tf.Session(f"grpc://{self._addresses[index]}", graph, config)

    def _wait_for(self, session, fetches, seconds=START_SECONDS):
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
                        f"{self.name}: lost {' and '.join(lost)}; start all tasks again with the same commands: they go"
                        " on from the last checkpoint"
                    )
                if broken:
                    time.sleep(ASK_SECONDS)
        except KeyboardInterrupt:
            wait([running], ASK_SECONDS)  # a step that can end is better saved whole
            raise

    def _find_lost(self, waited, seconds, broken):
        """A line on each task that is lost, after some seconds that this task has `waited`; `seconds` as in _wait_for;
        broken: whether an all-reduce has broken off, so that some task is lost."""
        counts, lost = [*self._askers.map(self._ask, range(self.tasks))], []
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
            lost.append(f"{self.names[index]} ({self._addresses[index]}), which {what}")
        return lost

    def _ask(self, index):
        """The count of a task, or None if it does not answer."""
        session = self._session_of(index, self._graph, operation_timeout_in_ms=1000 * ANSWER_SECONDS)
        try:
            return session.run(self._count)
        except tf.errors.OpError:
            return None
        finally:
            with contextlib.suppress(tf.errors.OpError):  # a with block closes it in a thread, which prints its error
                session.close()


def _counter():
    with tf.device("/CPU:0"):
        return tf.raw_ops.VarHandleOp(dtype=tf.int64, shape=[], shared_name="all_reduces")


def find_cluster():
    """The Cluster that TF_CONFIG says this process is a task of; alone where it is not set, or names one task only."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        jobs = {job: addresses for job, addresses in config.get("cluster", {}).items() if addresses}
        tasks = [(job, number) for job in sorted(jobs) for number in range(len(jobs[job]))]  # chief, master, worker
        if len(jobs.keys() & {"chief", "master"}) > 1 or jobs.keys() - {"chief", "master", "worker"}:
            raise UserError(f"TF_CONFIG names {', '.join(jobs)}: give it one chief (or master) and workers only")
        index = tasks.index((config["task"]["type"], int(config["task"]["index"]))) if tasks else 0
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"TF_CONFIG is wrong (bench/README.md has an example): {error}") from None
    if len(tasks) < 2:
        return Cluster()
    return Cluster([f"{job} {number}" for job, number in tasks], [jobs[job][number] for job, number in tasks], index)
