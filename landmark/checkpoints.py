"""What lies in models/: the checkpoints, the best and the last of them, and what the run was started with."""

import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import tensorflow.compat.v1 as tf

from landmark.ending import held
from landmark.files import whole_file
from senet import NETWORKS

# How the checkpoints of a run are named; the files beside them from which other programs know the newest; how many are
# kept.
LAST, BEST = "model.ckpt", "best.ckpt"
STATES = {LAST: "checkpoint", BEST: "best"}
KEPT = {LAST: 5, BEST: 1}
SAVE_STEPS, SAVE_SECONDS = 1000, 300
TORN = re.compile(r"(model|best)\.ckpt.*\.tempstate\d+|(checkpoint|best)\.tmp[0-9a-f]+")  # of a save that was cut short
RUN = "run.json"
LOCK = ".lock"


# Reading: by the files that are there. TensorFlow's own functions take a path for a pattern, and believe STATES.


def prefix_of(path):
    """What TensorFlow calls a checkpoint, by that or by one of its files: x.ckpt-40.index -> x.ckpt-40."""
    return re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)


def step_of(checkpoint):
    """models/model.ckpt-500 -> 500.

    Raises:
        ValueError: there is no number in the name.
    """
    step = checkpoint.rpartition("-")[2]
    if not step.isdigit():
        raise ValueError(f"{checkpoint} is not a checkpoint of train.py, whose names end in -STEP: move it elsewhere")
    return int(step)


def find_checkpoint(models):
    """The best checkpoint of a folder, else the last (of a run that never measured), else None: as of find_whole."""
    return find_whole(models, BEST) or find_whole(models, LAST)


def find_whole(models, name):
    """The newest checkpoint of a folder that is whole; where a newer one is not, that is said.

    Args:
        models: Path of the folder.
        name: LAST or BEST.

    Returns:
        str, its prefix; None where there is none of the name.

    Raises:
        ValueError: there are some, and none is whole.
    """
    damaged = []
    for prefix in _prefixes(models, name):
        try:
            read_checkpoint(prefix)
        except ValueError as error:
            damaged.append(str(error))
            continue
        if damaged:
            print(f"{damaged[0]}: taking {prefix}")
        return prefix
    if damaged or _lost(models, name) and (models / STATES[name]).exists():
        raise ValueError(
            f"{models} holds {name}, but none that is whole ({', '.join(damaged) or 'no .index'}): put them back, or"
            " move them elsewhere to go on without them"
        )
    return None


def read_checkpoint(prefix):
    """The variables of a checkpoint, compared with their checksums: dict of a name to its value, an array.

    Raises:
        ValueError: it is missing or damaged; the message names it.
    """
    prefix = Path(prefix)
    with tempfile.TemporaryDirectory() as folder:
        for path in prefix.parent.glob(f"{glob.escape(prefix.name)}.*"):
            os.symlink(path.resolve(), f"{folder}/x{path.name.removeprefix(prefix.name)}")
        try:
            reader = tf.train.load_checkpoint(f"{folder}/x")
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        except (tf.errors.OpError, ValueError, LookupError, RuntimeError, MemoryError) as error:
            reason = str(error).partition("\n")[0].replace(f"{folder}/x", str(prefix))
            raise ValueError(f"{prefix} is missing or damaged: {reason}") from None


def restore(session, checkpoint, variables=None):
    """Gives variables their values in a checkpoint.

    Args:
        session: tf.Session.
        checkpoint: its prefix.
        variables: dict of a name in the checkpoint to a tf.Variable; all global variables by their own names if None.

    Raises:
        ValueError: it is missing, damaged or of another graph; the message names it.
    """
    if variables is None:
        variables = {variable.op.name: variable for variable in tf.global_variables()}
    values = read_checkpoint(checkpoint)
    for name, variable in variables.items():
        shape = values[name].shape if name in values else None
        if shape != tuple(variable.shape):
            raise ValueError(f"{checkpoint} is of another graph: {name} is {shape} in it, not {tuple(variable.shape)}")
    given = {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()}
    session.run([variable.initializer for variable in variables.values()], given)


def _prefixes(models, name):
    """The checkpoints of a name, newest first."""
    prefixes = [str(path.with_suffix("")) for path in models.glob(f"{name}*.index")]
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix), reverse=True)


def _lost(models, name):
    """The data files of checkpoints of a name that have no .index: of no use."""
    return [path for path in models.glob(f"{name}*.data-*") if not path.with_suffix(".index").exists()]


# Writing


@contextlib.contextmanager
def alone(models):
    """Keeps other runs out of a folder while the block runs, and removes what a killed one left half-written.

    Raises:
        ValueError: there is one; the message has its process number.
    """
    is_new = not models.exists()
    models.mkdir(parents=True, exist_ok=True)
    with open(models / LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with its process, however that ends
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"process {file.read()} is training in {models}: stop it, or give another --models"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _remove_torn(models)
        try:
            yield
        finally:
            if is_new and [*models.iterdir()] == [models / LOCK]:  # nothing came of it
                shutil.rmtree(models)


def is_due(step, steps, seconds):
    """Whether a run of some steps saves and measures after this one: every 1,000 or 5 minutes, more often a short one.

    Args:
        step: int, from 1.
        steps: int, of the whole run.
        seconds: since it did last.
    """
    return step % min(SAVE_STEPS, max(100, steps // 20)) == 0 or step == steps or seconds >= SAVE_SECONDS


def save(saver, session, models, name, step):
    """Saves a checkpoint, and deletes the oldest but KEPT.

    Args:
        saver: tf.train.Saver that deletes none itself.
        session: tf.Session.
        models: Path of the folder.
        name: LAST or BEST.
        step: int.

    Raises:
        ValueError: there is no room; what was there stays as it was.
    """
    try:
        with held():
            saved = saver.save(session, str(models / name), step, STATES[name], write_meta_graph=False)
    except tf.errors.OpError as error:
        _remove_torn(models)
        reason = reason_of(error).rpartition("; ")[2]  # PATH; REASON
        raise ValueError(
            f"cannot save {models / name}-{step}: {reason}: make room, and the same command goes on from the one before"
        ) from None
    older = [prefix for prefix in _prefixes(models, name) if prefix != saved]
    for prefix in older[KEPT[name] - 1 :]:
        for path in sorted(models.glob(f"{glob.escape(Path(prefix).name)}.*"), reverse=True):  # the .index first
            path.unlink()


def reason_of(error):
    """What went wrong, of a tf.errors.OpError: one line in the middle of the many that a session makes of it."""
    found = re.search(r"^(.+)\n\s*\[\[\{\{", error.message, re.MULTILINE)
    return found[1] if found else error.message.partition("\n")[0]


def _remove_torn(models):
    for path in models.iterdir():
        if TORN.fullmatch(path.name):
            path.unlink()
    for name, state in STATES.items():
        if _prefixes(models, name) or not (models / state).exists():
            for path in _lost(models, name):
                path.unlink()


# What a run was started with


def keep_run(models, run, fixed):
    """Writes down what a run is started with; where the folder holds a run already, compares with that first.

    Args:
        models: Path of the folder of the checkpoints.
        run: dict of a name to a number, string, boolean or None: everything chosen.
        fixed: names in it that a run that goes on cannot change.

    Raises:
        ValueError: one of these is another than the run was started with, or the file is damaged; nothing is written
            then.
    """
    path = Path(models) / RUN
    try:
        before = json.loads(path.read_text()) if path.exists() else run
    except ValueError:
        raise ValueError(f"{path} is damaged: delete it to go on as this command says") from None
    for name, now in run.items():
        was = before.get(name, now)
        if was == now:
            continue
        if name in fixed:
            raise ValueError(
                f"{models} holds a run with {name} {was}, not {now}: go on with that, or give another --models"
            )
        print(f"{name} was {was} in {models} and is {now} from here on")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(run, indent=2) + "\n")


def read_run(checkpoint):
    """What is known of a checkpoint: the file of its own name with .json, else the run.json beside it.

    Returns:
        dict with "network", one of senet.NETWORKS, and more; the original network where there is no such file.

    Raises:
        ValueError: the network is none of senet.py's, or the file is damaged; the message names it.
    """
    paths = Path(f"{checkpoint}.json"), Path(checkpoint).parent / RUN
    path = next((path for path in paths if path.exists()), None)
    if not path:
        return {"network": "original"}
    try:
        run = json.loads(path.read_text())
        network = run["network"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: it should name the network, one of {', '.join(NETWORKS)}") from None
    if network not in NETWORKS:
        raise ValueError(f"{path} names the network {network}, which is none of {', '.join(NETWORKS)}")
    return run
