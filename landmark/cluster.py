"""Training by several tasks, one process for each machine or GPU, as the variable TF_CONFIG says.

Each task takes the gradients of its own batches, and an all-reduce gives everyone their mean. All tasks run the same
train(); the first (the chief, else worker 0) also tests, saves and prints.
"""

import contextlib
import json
import os

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import collective_ops

from landmark.cli import UserError
from landmark.waiting import STEP_SECONDS, Waiting, count_all_reduce, task_session

RUN, WEIGHTS, GRADIENTS, END = range(4)  # the instance keys of the all-reduces
RUN_BYTES = 65536  # for the description of a run: an all-reduce needs the same size everywhere


class Cluster:
    """Task `index` of those with these names and addresses, "host:port". Without addresses it is alone: train() is then
    as if there were no cluster. All methods raise UserError for what the user can fix, such as a task that is lost."""

    def __init__(self, names=("alone",), addresses=(), index=0):
        self.names, self.name, self.tasks, self.index, self.is_first = names, names[index], len(names), index, not index
        self._addresses, self.target = addresses, ""
        if self.tasks == 1:
            return
        config = tf.ConfigProto()
        config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        try:
            self.target = tf.distribute.Server({"worker": addresses}, "worker", index, config=config).target
        except tf.errors.OpError as error:
            raise UserError(f"{self.name} cannot listen at {addresses[index]}: {error.message}") from None
        self._waiting = Waiting(names, addresses, index)

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
        with tf.Graph().as_default(), task_session(self._addresses, self.index) as session:
            text = np.frombuffer(json.dumps([run, start]).encode().ljust(RUN_BYTES), np.uint8)
            text = self._waiting.run(session, self._broadcast([tf.constant(text)], RUN))[0]
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
        with task_session(self._addresses, self.index) as session:
            end = self._all_reduce([tf.zeros([1])], END)
            yield session
            self._waiting.run(session, end)
            with contextlib.suppress(UserError):  # all are done: once all know that, each may leave
                self._waiting.run(session, end)

    def start(self, session):
        """Gives the variables of every task the values that they have in the first."""
        if self.tasks > 1:
            variables = tf.global_variables()
            values = self._broadcast(variables, WEIGHTS)
            self._waiting.run(session, [to.assign(value).op for to, value in zip(variables, values, strict=True)])

    def run(self, session, fetches):
        """session.run(fetches), of a step."""
        return self._waiting.run(session, fetches, STEP_SECONDS) if self.tasks > 1 else session.run(fetches)

    def _broadcast(self, tensors, key):
        return self._all_reduce([each if self.is_first else tf.zeros_like(each) for each in tensors], key)

    def _all_reduce(self, tensors, key, dtype=tf.float64, final_op="Id"):
        """The sum of each tensor over the tasks, in one all-reduce; float64 holds float32, steps and bytes exactly."""
        flat = tf.concat([tf.reshape(tf.cast(each, dtype), [-1]) for each in tensors], 0)
        with tf.device("/CPU:0"), tf.control_dependencies([flat]), tf.control_dependencies([count_all_reduce()]):
            flat = collective_ops.all_reduce(flat, self.tasks, 1, key, final_op=final_op)
        parts = tf.split(flat, [each.shape.num_elements() for each in tensors])
        return [tf.cast(tf.reshape(part, each.shape), each.dtype) for part, each in zip(parts, tensors, strict=True)]


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
