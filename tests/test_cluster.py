"""Training by several tasks: over real gRPC servers on 127.0.0.1."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ENVIRONMENT, REPO, call

from landmark.cluster import Cluster
from landmark.recipe import DEFAULT
from landmark.training import add_training
from senet import WIDENING, Mode, _conv, _fully_connected

STEPS, BATCH = 20, 2


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture
def addresses():
    return [f"127.0.0.1:{port}" for port in free_ports(2)]


@pytest.fixture
def spec(addresses):
    return tf.train.ClusterSpec({"chief": addresses[:1], "worker": addresses[1:]})


@pytest.fixture
def task(tmp_path):
    """task(type, spec, *arguments): a process of train.py as that task of a cluster; what it prints is in .output."""
    started = []

    def task(kind, spec, *arguments):
        config = json.dumps({"cluster": spec.as_dict(), "task": {"type": kind, "index": 0}})
        output = tmp_path / f"output{len(started)}"
        with open(output, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "train.py", *map(str, arguments)],
                cwd=REPO,
                env=ENVIRONMENT | {"TF_CONFIG": config},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.output = output
        started.append(process)
        return process

    yield task
    for process in started:
        process.kill()
        process.wait()


# Correct

PLAIN = DEFAULT._replace(keep_prob=1, learning_rate=1e-3, warmup_steps=1)


@pytest.fixture(scope="module")
def batches():
    """For each step and task: crops and labels, always the same."""
    rng = np.random.default_rng(5)
    crops = rng.integers(0, 256, [STEPS, 2, BATCH, 128, 128, 3]).astype(np.float32)
    return crops, rng.uniform(0.1, 0.9, [STEPS, 2, BATCH, 136]).astype(np.float32)


def small(crops, is_training, keep_prob, weight_decay, batch_norm_decay):
    """A network of each kind of layer: senet.py's take longer to build than to train for these steps."""
    mode = Mode(is_training, keep_prob, weight_decay, batch_norm_decay, WIDENING)
    net = _conv(mode, _conv(mode, crops, 3, 8, stride=4), 1, 64)
    return _fully_connected(tf.reduce_mean(net, axis=[1, 2]), 136), {}


def add_small(batches, task, average):
    """The training of a task on its batches, in their order."""
    tf.set_random_seed(1)
    crops, labels = (part[:, task] for part in batches)
    crops, labels = tf.data.make_one_shot_iterator(
        tf.data.Dataset.from_tensor_slices((crops, labels)).repeat()
    ).get_next()
    return add_training(crops, labels, PLAIN, STEPS, small, average)


def values():
    return {variable.op.name: variable for variable in tf.global_variables()}


def test_two_tasks_do_the_steps_of_one_process_that_averages_both_gradients(spec, batches):
    with tf.Graph().as_default(), tf.Session() as session:
        crops, labels = (tf.placeholder(tf.float32, part.shape[2:]) for part in batches)
        gradients, means = [], []

        def average(those):
            gradients.extend(those)
            means.extend(tf.placeholder(tf.float32, gradient.shape) for gradient in those)
            return means

        tf.set_random_seed(1)
        training = add_training(crops, labels, PLAIN, STEPS, small, average)
        session.run(tf.global_variables_initializer())
        before = session.run(values())
        for step in range(STEPS):
            halves = [{crops: batches[0][step, task], labels: batches[1][step, task]} for task in range(2)]
            both = [session.run(gradients, half) for half in halves]
            mean = [(one + other) / 2 for one, other in zip(*both, strict=True)]
            session.run(training.step, halves[0] | dict(zip(means, mean, strict=True)))
        expected = session.run(values())

    chief, worker = Cluster(spec, "chief", 0), Cluster(spec, "worker", 0)

    def work():
        with worker.graph():
            add_small(batches, 1, worker.average)
            worker.follow(STEPS, {"seed": 1})

    with ThreadPoolExecutor() as threads, chief.graph():
        done = threads.submit(work)
        training = add_small(batches, 0, chief.average)
        with chief.session() as session:
            session.run(tf.global_variables_initializer())
            session.run([variable.assign(before[name]) for name, variable in values().items()])
            chief.start(session, 0, {"seed": 1})
            for _ in range(STEPS):
                chief.run(session, training.step)
            found = session.run(values())
            chief.patience = 1
            with pytest.raises(ValueError, match="worker0 has given nothing for 1 seconds"):
                chief.run(session, training.step)
            done.result()
    assert found["global_step"] == STEPS
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = np.linalg.norm(found[name] - value)
        assert error <= 1e-4 * np.linalg.norm(value), name
        assert not np.array_equal(value, before[name]), name


def test_each_worker_gives_to_each_step_and_the_end_of_the_chief_ends_all(task):
    *trainers, ps = [f"127.0.0.1:{port}" for port in free_ports(4)]
    spec = tf.train.ClusterSpec({"chief": trainers[:1], "worker": trainers[1:], "ps": [ps]})
    chief = Cluster(spec, "chief", 0)
    port = int(trainers[0].rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(TimeoutError):  # no other address of the machine
        socket.create_connection(("127.0.0.2", port), timeout=1)

    ps = task("ps", spec, "--steps", 100)

    def work(number):
        cluster = Cluster(spec, "worker", number)
        with cluster.graph():
            tf.train.create_global_step()
            cluster.average([tf.constant([10.0**cluster.index]), tf.ones([2, 3])])
            cluster.follow(100, {"steps": 100})

    with ThreadPoolExecutor() as threads, chief.graph():
        workers = [threads.submit(work, number) for number in range(2)]
        step = tf.train.create_global_step()
        assert "ps" in step.device
        first, second = chief.average([tf.constant([1.0]), tf.ones([2, 3])])
        with tf.control_dependencies([first, second]):
            count = tf.assign_add(step, 1)
        with pytest.raises(KeyboardInterrupt), chief.session() as session:
            session.run(tf.global_variables_initializer())
            chief.start(session, 0, {"steps": 100})
            for done in range(1, 8):
                mean, ones, number = chief.run(session, [first, second, count])
                assert number == done and mean[0] == pytest.approx(111 / 3) and np.allclose(ones, np.ones([2, 3]))
            raise KeyboardInterrupt
        for worker in workers:
            with pytest.raises(ValueError, match="the chief has stopped at step 7"):
                worker.result()
        assert ps.wait(60) == 1 and "ps0: the chief has stopped at step 7" in ps.output.read_text()


# Faults


def wait_for(process, text, count=1):
    """Waits until a process has printed a text that often."""
    deadline = time.monotonic() + 300
    while process.output.read_text().count(text) < count:
        assert process.poll() is None and time.monotonic() < deadline, process.output.read_text()
        time.sleep(0.05)


def test_killed_tasks_come_back_and_go_on_from_what_one_machine_trained(task, spec, records, begun, tmp_path):
    for side in "train", "test":
        for i in range(2):
            with tf.io.TFRecordWriter(str(tmp_path / f"{side}-0000{i}-of-00002.tfrecords")) as writer:
                for record in [*tf.io.tf_record_iterator(str(records / f"{side}.tfrecords"))][i::2]:
                    writer.write(record)
    common = ["--data", tmp_path, "--models", begun, "--network", "narrow", "--batch_size", 2, "--steps"]
    chief, worker = task("chief", spec, *common, 31), task("worker", spec, *common, 31)
    wait_for(worker, "worker0: the chief is at step 2\n")
    chief.kill()
    wait_for(worker, "asking again")
    chief = task("chief", spec, *common, 31)
    wait_for(worker, "the chief is at step", 2)
    worker.kill()
    worker = task("worker", spec, *common, 31)
    assert chief.wait(300) == 0 == worker.wait(300), chief.output.read_text() + worker.output.read_text()
    assert "Traceback" not in chief.output.read_text() + worker.output.read_text()
    assert re.search("step 31 .*best checkpoint", chief.output.read_text(), re.DOTALL)
    shapes = [tf.train.load_checkpoint(f"{begun}/model.ckpt-{step}").get_variable_to_shape_map() for step in (2, 31)]
    assert shapes[0] == shapes[1]  # so one machine can go on
    call("freeze_graph", "--data", tmp_path, "--models", begun, "--output", tmp_path / "landmark.pb")


@pytest.mark.parametrize(
    "config",
    [
        "no JSON",
        {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"chief": ["127.0.0.1:1"], "evaluator": ["127.0.0.1:2"]}, "task": {"type": "chief", "index": 0}},
        {"cluster": {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}, "task": {"type": "worker", "index": 1}},
        {"cluster": {"chief": ["127.0.0.1:1"]}},
    ],
)
def test_a_tf_config_that_is_none_is_one_line(config, monkeypatch, says):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    assert "TF_CONFIG" in says("train")
