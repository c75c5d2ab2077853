"""Training by a cluster and preparation in shards, measured on two cores; what more machines would give.

Usage:
    python bench/cluster.py --data ~/300W_LP            # 600 steps; what else runs on the machine spoils it
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from landmark.startup import CORES  # first: TensorFlow reads its settings as it is imported

# isort: split

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time

from landmark.cli import script_parser
from senet import DEFAULT_NETWORK, NETWORKS

REPO = Path(__file__).resolve().parents[1]
BATCH = 32
ETHERNET = 10e9 / 8  # bytes a second, each way
HOP = 1e-4  # seconds from one task to the next, assumed
RATE = re.compile(r"^step (\d+) .* (\d+) images/s", re.MULTILINE)


def start(cores, script, *arguments, task=None):
    """A script of this repository on some cores, "0" or "0,1"; task: (type, port of each task) of a cluster."""
    environment = {"PYTHONUNBUFFERED": "1"}
    if task:
        kind, ports = task
        cluster = {name: [f"127.0.0.1:{port}"] for name, port in zip(("chief", "worker"), ports, strict=True)}
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})
    command = "taskset", "-c", cores, "env", *(f"{name}={value}" for name, value in environment.items())
    command += sys.executable, script, *map(str, arguments)
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)


def loopback_bytes():
    """Bytes that went over the loopback interface since the machine started."""
    return int(re.search(r"lo:\s*(\d+)", Path("/proc/net/dev").read_text())[1])


def time_preparation(data, out, cores, shards):
    """Seconds of prepare_tfrecords.py: a process for each of `cores`, with a shard each."""
    began, options = time.monotonic(), ["--data", data, "--out", out]
    if shards:
        options += ["--shards", shards]
    chosen = [[] if len(cores) == 1 else ["--shard", i] for i in range(len(cores))]
    running = [start(core, "prepare_tfrecords.py", *options, *shard) for core, shard in zip(cores, chosen, strict=True)]
    for process in running:
        process.communicate()
        if process.returncode:
            sys.exit(process.returncode)
    return time.monotonic() - began


def time_training(records, cores, steps, network):
    """(crops a second, bytes a step over loopback) of train.py: a process for each of `cores`, from its second line on.

    Only the bytes of a step between two lines count: the weights go over once, before the first.
    """
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(tempfile.TemporaryDirectory())
        options = ["--data", records, "--models", models, "--batch_size", BATCH, "--steps", steps]
        options += ["--network", network]
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in cores]
        ports = [each.getsockname()[1] for each in sockets]
    tasks = [None] if len(cores) == 1 else [(kind, ports) for kind in ("chief", "worker")]
    running = [start(core, "train.py", *options, task=task) for core, task in zip(cores, tasks, strict=True)]
    rates, traffic = [], []
    for line in running[0].stdout:
        if match := RATE.match(line):
            rates.append(int(match[2]))
            traffic.append((int(match[1]), loopback_bytes()))
    assert not any([process.wait() for process in running])
    (first, before), *_, (last, after) = traffic
    return sum(rates[1:]) / len(rates[1:]), (after - before) / (last - first)


def main():
    parser = script_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of annotated photos")
    parser.add_argument("--steps", type=int, default=600, help="of each training, 200 or more (600)")
    parser.add_argument("--network", choices=NETWORKS, default=DEFAULT_NETWORK, help=f"({DEFAULT_NETWORK})")
    args = parser.parse_args()
    print(f"{args.network} on {args.data}, on {CORES} CPU cores\n")

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        print("| preparation | seconds |\n|---|---|")
        for name, cores, shards in [
            ("one process on one core", ["0"], None),
            ("one process on two cores", ["0,1"], None),
            ("two processes on a core each, `--shards 2`, `--shard 0` and `1`", ["0", "1"], 2),
        ]:
            (out / name).mkdir()
            print(f"| {name} | {time_preparation(args.data, out / name, cores, shards):.1f} |", flush=True)
        records = out / name

        print(f"\n| training, batch {BATCH} a process | crops/s | MB a step over loopback |\n|---|---|---|")
        alone, traffic = time_training(records, ["0,1"], args.steps, args.network)
        print(f"| one process on two cores | {alone:.0f} | {traffic / 1e6:.2f} |", flush=True)
        rate, traffic = time_training(records, ["0", "1"], args.steps, args.network)
        print(f"| chief and worker, a process on a core each | {rate:.0f} | {traffic / 1e6:.2f} |")

    # In a ring of n, each task sends 2 (n - 1) / n of the gradients, in 2 (n - 1) hops: both tasks of 2 send them once.
    step, gradients = BATCH / alone, traffic / 2
    print(f"\nComputed: {gradients / 1e6:.2f} MB of gradients, 10 Gbit Ethernet, {HOP * 1e3} ms a hop")
    print("\n| tasks | MB sent per task and step | ms to send | crops/s | scaling efficiency |\n|---|---|---|---|---|")
    for tasks in 1, 4, 8, 32, 128:
        sent = 2 * (tasks - 1) / tasks * gradients
        moving = sent / ETHERNET + 2 * (tasks - 1) * HOP
        share = step / (step + moving)
        print(f"| {tasks} | {sent / 1e6:.2f} | {1e3 * moving:.1f} | {alone * tasks * share:.0f} | {share:.0%} |")


if __name__ == "__main__":
    main()
