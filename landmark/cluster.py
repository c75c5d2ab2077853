"""Training on several machines, or several GPUs of one: what TF_CONFIG says, and what goes between the tasks.

The chief holds the variables (the ps tasks do, where there are any), tests, saves and prints. In each step a worker
reads the variables, and leaves the gradients of a batch of its own in an accumulator of its own on the chief. The
chief takes one from each accumulator, so that no worker can stand in for another, averages these with its own
gradients, does the step, and puts its number into a queue for each worker, which waits for that.

A worker that was killed and started again finds all it needs on the chief, which has waited; one whose chief is gone
waits for another in its place. The chief's graph has no op on a worker, so it does not fail with one.
"""

import concurrent.futures
import contextlib
import ctypes
import ipaddress
import json
import os
import socket
import struct
import time

import tensorflow.compat.v1 as tf

from landmark.annotations import CORES

PATIENCE = 600  # seconds that a task waits for another: one that starts reads its records first, and the chief tests
FAREWELL = 10  # seconds that the chief, when it ends, waits for the others to take notice
CHIEF = "/job:chief/task:0/device:CPU:0"
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
)  # what a lost chief is to others
SO_ATTACH_FILTER = 26  # of Linux


class Alone:
    """One machine: what train.py asks of a cluster, without one."""

    task, index, tasks = "chief", 0, 1  # index: 0 of the chief; tasks: that train

    def graph(self):
        """A tf.Graph in a context, in which ops and variables get their device."""
        return tf.Graph().as_default()

    def share(self, paths):
        """The record files that this task reads, of those that all the tasks read together.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        return paths

    def average(self, gradients):
        """What the optimizer applies: the mean, over the tasks, of a list of tensors."""
        return gradients

    def session(self):
        """A tf.Session in a context, at whose end the chief dismisses the other tasks."""
        return tf.Session()

    def start(self, session, step, run):
        """The variables are set and the others may begin. step: that are done; run: dict, what it was started with."""

    def run(self, session, fetches):
        """session.run of a step."""
        return session.run(fetches)


class Cluster(Alone):
    """A task of a cluster."""

    def __init__(self, spec, task, number, patience=PATIENCE):
        """Starts the task's server.

        Args:
            spec: tf.train.ClusterSpec with one chief, workers, perhaps ps.
            task: "chief", "worker" or "ps".
            number: int, of the task among its like.
            patience: seconds to wait for another task.
        """
        self.task, self.patience = task, patience
        self.tasks = 1 + (spec.num_tasks("worker") if "worker" in spec.jobs else 0)
        self.index = number + 1 if task == "worker" else 0
        self.name = task if task == "chief" else f"{task}{number}"
        self.others = [f"{job}{i}" for job in ("worker", "ps") if job in spec.jobs for i in spec.task_indices(job)]
        self.chief_address = spec.task_address("chief", 0)
        here = f"/job:{task}/task:{number}"
        holder = "/job:ps" if "ps" in spec.jobs else "/job:chief"
        self._device = tf.train.replica_device_setter(cluster=spec, ps_device=holder, worker_device=here)
        self._config = tf.ConfigProto(device_filters=["/job:ps", "/job:chief", here])
        # A thread beside those that compute a step, or a worker's read of the variables waits for the chief's step.
        threads = tf.ConfigProto(inter_op_parallelism_threads=1 + CORES)
        try:
            server = tf.distribute.Server(spec, job_name=task, task_index=number, config=threads)
        except tf.errors.OpError as error:
            raise ValueError(f"{here} cannot listen at {spec.task_address(task, number)}: {error.message}") from None
        self._target = server.target
        _listen_only_at(spec.task_address(task, number))

    def share(self, paths):
        if len(paths) % self.tasks:
            raise ValueError(
                f"{self.tasks} tasks cannot share {len(paths)} train*.tfrecords evenly: write them with python"
                f" prepare_tfrecords.py --shards {self.tasks}, or a multiple of it"
            )
        return paths[self.index :: self.tasks]

    # In the graph

    @contextlib.contextmanager
    def graph(self):
        with tf.Graph().as_default(), tf.device(self._device):
            yield

    def average(self, gradients):
        flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)
        with tf.device(CHIEF):
            accumulators = [
                tf.ConditionalAccumulator(tf.float32, flat.shape, f"gradients_of_{name}")
                for name in self.others[: self.tasks - 1]
            ]
            if self.task == "worker":
                self._at = tf.placeholder(tf.int64, [])
                self._give = accumulators[self.index - 1].apply_grad(flat, self._at)
                return gradients
            self._set_step = [accumulator.set_global_step for accumulator in accumulators]
            taken = [accumulator.take_grad(1) for accumulator in accumulators]
        mean = tf.add_n([flat, *taken]) / self.tasks
        parts = tf.split(mean, [gradient.shape.num_elements() for gradient in gradients])
        return [tf.reshape(part, gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]

    def _queues(self):
        """For each of the others, the queue in which the numbers of steps come; and that in which they say goodbye."""
        with tf.device(CHIEF):
            steps = {name: tf.FIFOQueue(-1, tf.int64, [[]], shared_name=f"steps_of_{name}") for name in self.others}
            return steps, tf.FIFOQueue(-1, tf.string, [[]], shared_name="goodbye")

    def _run_variable(self):
        """What the chief was started with; it has no value before that."""
        with tf.device(CHIEF):
            collections = [tf.GraphKeys.LOCAL_VARIABLES]  # no checkpoint holds it
            return tf.Variable("", trainable=False, collections=collections, name="run_of_the_chief")

    # The chief

    @contextlib.contextmanager
    def session(self):
        steps, goodbye = self._queues()
        with tf.device(CHIEF):
            step = tf.train.get_global_step().read_value()
            self._tell = [queue.enqueue(step) for queue in steps.values()]
            close, leaves = [queue.close() for queue in steps.values()], goodbye.dequeue()
        self._run_of_chief = self._run_variable()
        with self._session() as session:
            try:
                yield session
            finally:
                for last in self._tell, close:
                    with contextlib.suppress(*LOST):
                        session.run(last)
                with contextlib.suppress(*LOST):
                    for _ in self.others:
                        session.run(leaves, options=tf.RunOptions(timeout_in_ms=1000 * FAREWELL))

    def start(self, session, step, run):
        session.run([set_step(step) for set_step in self._set_step])
        session.run(self._run_of_chief.assign(json.dumps(run)))

    def run(self, session, fetches):
        session.run(self._tell)
        try:
            return self._wait_for(session, fetches)
        except tf.errors.DeadlineExceededError:
            what = f"one of {', '.join(self.others)} has given nothing for {self.patience} seconds"
        except LOST:
            what = "a ps is gone"
        raise ValueError(f"{what}: start it again, then this command, which goes on from the last checkpoint")

    @contextlib.contextmanager
    def _session(self):
        with concurrent.futures.ThreadPoolExecutor(1) as self._thread:
            with tf.Session(self._target, config=self._config) as session:
                yield session

    def _wait_for(self, session, fetches, feed=None, share=1):
        """session.run, for a share of the patience, in a thread: Ctrl-C would not come through one that waits."""
        options = tf.RunOptions(timeout_in_ms=int(1000 * share * self.patience))
        return self._thread.submit(session.run, fetches, feed, options).result()

    # The others

    def join(self, run=None):
        """Waits until the chief has begun.

        Args:
            run: dict, what this worker was started with; None for a ps.

        Returns:
            the number of steps that the chief has done.

        Raises:
            ValueError: there is no chief, or it was started with something else.
        """
        began = time.monotonic()
        while True:
            with contextlib.suppress(*LOST, tf.errors.FailedPreconditionError):
                with self.graph(), self._session() as session:
                    fetches = tf.train.create_global_step().read_value(), self._run_variable().read_value()
                    step, theirs = self._wait_for(session, fetches)
                    break
            if time.monotonic() - began > self.patience:
                raise ValueError(f"{self.name}: no chief at {self.chief_address} for {self.patience} seconds: start it")
            time.sleep(1)
        for name, value in json.loads(theirs).items() if run else ():
            if run.get(name) != value:
                raise ValueError(
                    f"{self.name} has {name} {run.get(name)}, not {value}: start it with the options of the chief"
                )
        return step

    def follow(self, steps, run=None):
        """Gives gradients, of a worker whose training is in the default graph, until the chief has done its steps; a ps
        waits until then.

        Args:
            steps: number of steps of the whole run.
            run: as of join.

        Raises:
            ValueError: the chief has stopped, or is gone for good.
        """
        queues, goodbye = self._queues()
        told, leave = queues[self.name].dequeue(), goodbye.enqueue(self.name)
        while True:
            step = self.join(run)
            print(f"{self.name}: the chief is at step {step}")
            with contextlib.suppress(*LOST), self._session() as session:
                try:
                    while step < steps:
                        if run:
                            self._wait_for(session, self._give, {self._at: step})
                        at = step
                        while step == at:  # the worker before it, that was killed, may have left the number here
                            step = self._wait_for(session, told, share=0.25)
                except tf.errors.OutOfRangeError:
                    self._wait_for(session, leave)
                    raise ValueError(f"{self.name}: the chief has stopped at step {step}") from None
                self._wait_for(session, leave)
                return
            # It is gone, or has much to test, or its answer went to the connection of a machine that went off.
            print(f"{self.name}: no word from the chief since step {step}; asking again")


def find_cluster():
    """The task that TF_CONFIG says this process is: a Cluster, whose server runs; without TF_CONFIG, Alone.

    Raises:
        ValueError: TF_CONFIG is none, or has other tasks than one chief, workers and ps.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        spec, task, number = resolver.cluster_spec(), resolver.task_type, resolver.task_id
        if not spec.jobs:
            return Alone()
        if spec.num_tasks("chief") != 1 or set(spec.jobs) - {"chief", "worker", "ps"}:
            raise ValueError(f"it has {', '.join(spec.jobs)}")
        spec.task_address(task, number)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG should hold a cluster of one chief, workers and perhaps ps, and the type and index of this task"
            f" (README.md has an example): {error}"
        ) from None
    return Cluster(spec, task, number)


def _listen_only_at(address):
    """TensorFlow's server listens at every address of the machine: has the kernel drop what comes to another.

    Args:
        address: "host:port"; where the host is a name, the server stays as it is.
    """
    host, _, port = address.rpartition(":")
    try:
        address = ipaddress.IPv4Address(host).packed
    except ValueError:
        return
    listening = set()
    for family in "tcp", "tcp6":
        for line in open(f"/proc/self/net/{family}").readlines()[1:]:
            fields = line.split()  # of /proc: local address and port at 1, state at 3, inode at 9
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == int(port):
                listening.add(f"socket:[{fields[9]}]")
    # The four bytes at 16 of the IP header say where a packet goes: are they the address, take all of it, else nothing.
    steps = (0x20, 0, 0, 0xFFF00010), (0x15, 0, 1, int.from_bytes(address)), (6, 0, 0, 0xFFFFFFFF), (6, 0, 0, 0)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed since
            if os.readlink(f"/proc/self/fd/{number}") in listening:
                with socket.socket(fileno=os.dup(int(number))) as server:
                    server.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
