"""Training by several tasks: over real gRPC servers on 127.0.0.1."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ENVIRONMENT, REPO

from landmark import cluster
from landmark.cli import UserError, command
from landmark.cluster import Cluster, find_cluster
from landmark.recipe import DEFAULT
from senet import Mode, _conv, _fully_connected
from train import add_training

STEPS, BATCH = 20, 2
LIMIT = 100  # seconds for anything to happen, on a machine with much else to do


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def tf_config(jobs, job, index=0):
    return json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})


def on_all(tasks, work):
    """[work(Cluster) of each task], in threads of this process that stand for the tasks."""
    addresses = free_addresses(tasks)
    names = [f"worker {index}" for index in range(tasks)]
    with ThreadPoolExecutor(tasks) as threads:
        return [*threads.map(lambda index: work(Cluster(names, addresses, index)), range(tasks))]


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
    mode = Mode(is_training, keep_prob, weight_decay, batch_norm_decay)
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


def test_two_tasks_do_the_steps_of_one_process_that_averages_both_gradients(batches):
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

    def train(task):
        with tf.Graph().as_default():
            training = add_small(batches, task.index, task.average)
            with task.session() as session:
                session.run(tf.global_variables_initializer())
                if task.is_first:
                    session.run([variable.assign(before[name]) for name, variable in values().items()])
                else:
                    session.run([variable.assign(variable - 1) for variable in values().values()])
                task.start(session)
                alike = session.run(values())
                for _ in range(STEPS):
                    task.run(session, training.step)
                return alike, session.run(values()), [variable.op.name for variable in tf.trainable_variables()]

    (first, found, trained), (second, other, _) = on_all(2, train)
    assert found["global_step"] == STEPS
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(first[name], before[name]) and np.array_equal(second[name], before[name]), name
        assert np.linalg.norm(found[name] - value) <= 1e-4 * np.linalg.norm(value), name
        assert not np.array_equal(value, before[name]), name
    for name in trained:
        assert np.array_equal(found[name], other[name]), name


def test_alone_nothing_changes():
    alone, gradients = Cluster(), [tf.ones([2])]
    with tf.Graph().as_default() as graph, alone.session() as session:
        assert alone.average(gradients) is gradients
        assert alone.agree({"steps": 1}, 7) == 7
        alone.start(session)
        assert not graph.get_operations()
    assert (alone.tasks, alone.index, alone.is_first) == (1, 0, True)
    assert alone.share(["a", "b"]) == ["a", "b"]


# Started wrong


def test_every_task_learns_the_first_start_and_one_started_otherwise_is_refused():
    def agree(task):
        run = {"steps": 100, "rate": 0.1, "batch_size": 64 if task.index == 2 else 32, "decay": None}
        try:
            return task.agree(run, 7 if task.is_first else 0)
        except UserError as error:
            return str(error)

    first, second, third = on_all(3, agree)
    assert first == second == 7
    assert third.startswith("worker 2 has batch_size 64, but worker 0 has 32: start all tasks with")


def test_each_task_reads_its_share_of_the_shards():
    paths = [f"train-{i}" for i in range(4)]
    assert on_all(2, lambda task: task.share(paths)) == [["train-0", "train-2"], ["train-1", "train-3"]]
    with pytest.raises(UserError, match="3 tasks cannot share 4 train.*--shards 3"):
        Cluster.share(Cluster(["a"] * 3, free_addresses(3), 1), paths)


@pytest.mark.parametrize("first", ["chief", "master", "worker"])
def test_tf_config_as_platforms_write_it(first, monkeypatch):
    addresses = free_addresses(3)
    jobs = {"worker": addresses, "ps": []} if first == "worker" else {"worker": addresses[1:], first: addresses[:1]}
    tasks = [("worker", i) for i in range(3)] if first == "worker" else [(first, 0), ("worker", 0), ("worker", 1)]
    found = []
    for job, index in tasks:
        monkeypatch.setenv("TF_CONFIG", tf_config(jobs, job, index))
        found.append(find_cluster())
    assert [task.index for task in found] == [0, 1, 2] and [task.is_first for task in found] == [True, False, False]
    assert [task.name for task in found] == [f"{job} {index}" for job, index in tasks]
    assert {task.tasks for task in found} == {3}
    assert [task._addresses[task.index] for task in found] == addresses


@pytest.mark.parametrize(
    "config", [None, "", "{}", '{"cluster": {}}', tf_config({"worker": ["127.0.0.1:1"]}, "worker"), '{"task": {}}']
)
def test_a_tf_config_of_one_task_is_none(config, monkeypatch):
    if config is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", config)
    task = find_cluster()
    assert task.tasks == 1 and task.is_first


@pytest.mark.parametrize(
    "config",
    [
        "no JSON",
        "[]",
        tf_config({"chief": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"]}, "chief"),
        tf_config({"chief": ["127.0.0.1:1"], "evaluator": ["127.0.0.1:2"]}, "chief"),
        tf_config({"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}, "evaluator"),
        tf_config({"chief": ["127.0.0.1:1"], "master": ["127.0.0.1:2"]}, "chief"),
        tf_config({"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}, "worker", 1),
        json.dumps({"cluster": {"chief": ["127.0.0.1:1"]}}),
    ],
)
def test_a_wrong_tf_config_is_one_line(config, monkeypatch, says):
    monkeypatch.setenv("TF_CONFIG", config)
    assert says("train").startswith("TF_CONFIG ")


# Lost


@command
def train_for_ever():
    """A task in a process of its own, which is stopped in one way or another."""
    cluster.ASK_SECONDS, cluster.ANSWER_SECONDS, cluster.STEP_SECONDS = 1, 2, 6
    task = find_cluster()
    assert task.agree({"steps": 1000}, 7 if task.is_first else 0) == 7
    step = tf.get_variable("step", [], tf.int64, tf.zeros_initializer())
    [mean] = task.average([tf.ones([5])])
    with tf.control_dependencies([mean]):
        step = step.assign_add(1)
    with task.session() as session:
        session.run(tf.global_variables_initializer())
        task.start(session)
        while True:
            done = task.run(session, step)
            if done == 100 and os.environ.get("HANGS") == task.name:
                print("hangs", flush=True)
                time.sleep(LIMIT)
            if done % 100 == 0:
                print(done, flush=True)


def in_process(config, output, hangs):
    os.environ.update(TF_CONFIG=config, HANGS=hangs)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    with tf.Graph().as_default():
        train_for_ever()


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """tasks(count, hangs): that many processes of train_for_ever; what each prints is in .output."""
    processes = []
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    # It imports TensorFlow once for all.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow.compat.v1"])

    def tasks(count, hangs=""):
        jobs = {"chief": free_addresses(1), "worker": free_addresses(count - 1)}
        for job, index in [("chief", 0), *(("worker", i) for i in range(count - 1))]:
            output = tmp_path / f"output {job} {index}"
            process = context.Process(target=in_process, args=(tf_config(jobs, job, index), output, hangs), daemon=True)
            process.start()
            process.output = output
            processes.append(process)
        return processes

    yield tasks
    for process in processes:
        process.kill()
        process.join()


def wait_for(process, text):
    """Waits until a process has printed a text."""
    deadline = time.monotonic() + LIMIT
    while not process.output.exists() or text not in process.output.read_text():
        said = process.output.exists() and process.output.read_text()
        assert process.is_alive() and time.monotonic() < deadline, said
        time.sleep(0.05)


@pytest.mark.parametrize("fault", ["kill", "stop", "hang", "interrupt"])
def test_a_lost_task_ends_all_each_with_a_line_that_names_it(fault, tasks):
    lost = 0 if fault == "interrupt" else 1
    processes = tasks(3, hangs="worker 0" if fault == "hang" else "")
    victim, name = processes[lost], ["chief 0", "worker 0"][lost]
    wait_for(victim, "hangs" if fault == "hang" else "100")
    if fault != "hang":
        os.kill(victim.pid, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGINT}[fault])
    for process in processes:
        if process is victim:
            continue
        process.join(LIMIT)
        assert process.exitcode == 1, process.output.read_text()
        [line] = [line for line in process.output.read_text().splitlines() if "lost" in line]
        reason = "has kept the others waiting for" if fault == "hang" else "does not answer"
        # Another that has ended because of it by now is named beside it.
        assert re.search(rf": lost (.* and )?{name} \(127.0.0.1:\d+\), which {reason}.*; start all tasks", line), line
        assert "Traceback" not in process.output.read_text()
    if fault == "interrupt":
        victim.join(LIMIT)
        assert victim.exitcode == 130 and victim.output.read_text().endswith("interrupted; no file is half-written\n")


def test_ctrl_c_comes_through_a_wait(tasks):
    chief, worker = tasks(2, hangs="worker 0")
    wait_for(worker, "hangs")
    os.kill(chief.pid, signal.SIGINT)
    chief.join(LIMIT)
    assert chief.exitcode == 130 and "interrupted" in chief.output.read_text()


# train.py


@pytest.fixture
def start(tmp_path):
    """start(jobs, job, *arguments): a process of train.py as that task; what it prints is in .output."""
    started = []

    def start(jobs, job, *arguments):
        output = tmp_path / f"output{len(started)}"
        with open(output, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "train.py", *map(str, arguments)],
                cwd=REPO,
                env=ENVIRONMENT | {"TF_CONFIG": tf_config(jobs, job)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.output = output
        process.is_alive = lambda: process.poll() is None
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_after_a_kill_the_same_commands_go_on_from_what_one_machine_trained(start, records, begun, tmp_path):
    for side in "train", "test":
        for i in range(2):
            with tf.io.TFRecordWriter(str(tmp_path / f"{side}-0000{i}-of-00002.tfrecords")) as writer:
                for record in [*tf.io.tf_record_iterator(str(records / f"{side}.tfrecords"))][i::2]:
                    writer.write(record)
    addresses = free_addresses(2)
    jobs = {"chief": addresses[:1], "worker": addresses[1:]}
    options = ["--data", tmp_path, "--network", "original", "--batch_size", 2, "--steps", 31, "--models"]

    def start_both():
        return start(jobs, "chief", *options, begun), start(jobs, "worker", *options, tmp_path / "never written")

    chief, worker = start_both()
    wait_for(chief, "continuing from")
    worker.kill()
    assert chief.wait(LIMIT) == 1
    assert f"\nchief 0: lost worker 0 ({addresses[1]}), which" in chief.output.read_text()

    chief, worker = start_both()
    assert chief.wait(LIMIT) == 0 == worker.wait(LIMIT), chief.output.read_text() + worker.output.read_text()
    assert re.search("step 31 .*best checkpoint", chief.output.read_text(), re.DOTALL)
    assert not re.search("NME|checkpoint", worker.output.read_text())
    assert not (tmp_path / "never written").exists()
    shapes = [tf.train.load_checkpoint(f"{begun}/model.ckpt-{step}").get_variable_to_shape_map() for step in (2, 31)]
    assert shapes[0] == shapes[1]  # so one machine can go on with it
