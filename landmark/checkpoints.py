"""The checkpoints in models/, the best and the last, and run.json, which holds what their run was started with."""

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import tensorflow.compat.v1 as tf

from landmark.cli import UserError, defer_signals
from landmark.outputs import lock, whole_file
from landmark.recipe import FORMER_NAMES
from senet import NETWORKS, SENet, crops_placeholder

# The names of a run's checkpoints; the files that name the newest, for other programs; how many are kept.
LAST, BEST = "model.ckpt", "best.ckpt"
STATES = {LAST: "checkpoint", BEST: "best"}
KEPT = {LAST: 5, BEST: 1}
SAVE_STEPS, SAVE_SECONDS = 1000, 300
TORN = re.compile(r"(model|best)\.ckpt.*\.tempstate\d+|(checkpoint|best)\.tmp[0-9a-f]+")  # of a save that was cut short
RUN = "run.json"
LOCK = ".lock"


# Reading: by the files that are there, since TensorFlow's own functions believe STATES.


def prefix_of(path):
    """The prefix of a checkpoint, from that or from one of its files: x.ckpt-40.index -> x.ckpt-40."""
    return re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)


def step_of(checkpoint):
    """models/model.ckpt-500 -> 500; UserError if the name has no number."""
    step = checkpoint.rpartition("-")[2]
    if not step.isdigit():
        raise UserError(f"{checkpoint} is not a checkpoint of train.py, whose names end in -STEP: move it elsewhere")
    return int(step)


def find_whole(models, name):
    """The prefix (str) of the newest intact checkpoint in a folder, or None if there are none; name: LAST or BEST.

    Damaged ones that are newer are reported. Raises UserError if there are checkpoints, but none is intact.
    """
    damaged = []
    for prefix in _prefixes(models, name):
        try:
            read_checkpoint(prefix)
        except UserError as error:
            damaged.append(str(error))
            continue
        if damaged:
            print(f"{damaged[0]}: taking {prefix}")
        return prefix
    if damaged or _orphaned_data(models, name) and (models / STATES[name]).exists():
        raise UserError(
            f"no {name} in {models} is intact ({', '.join(damaged) or 'no .index'}): put them back, or"
            " move them elsewhere to go on without them"
        )
    return None


def read_checkpoint(prefix):
    """The variables of a checkpoint, dict of a name to an array, compared with their checksums.

    Raises UserError if it is missing or damaged.
    """
    with _plain_path(prefix) as path:
        try:
            reader = tf.train.load_checkpoint(path)
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        except (tf.errors.OpError, ValueError, LookupError, RuntimeError, MemoryError) as error:
            reason = str(error).partition("\n")[0].replace(path, str(prefix))
            raise UserError(f"{prefix} is missing or damaged: {reason}") from None


def restore(saver, session, checkpoint):
    """saver.restore() from a checkpoint (prefix, str) in any folder; UserError if it is missing or does not fit."""
    values, variables = read_checkpoint(checkpoint), saver._var_list
    if not isinstance(variables, dict):
        variables = {variable.op.name: variable for variable in variables}
    for name, variable in variables.items():  # TensorFlow itself would assign values of any shape
        found = values[name].shape if name in values else "not found in checkpoint"
        if found != tuple(variable.shape):
            raise UserError(f"{checkpoint} belongs to another graph: {name} is {found}, not {tuple(variable.shape)}")
    with _plain_path(checkpoint) as path:
        saver.restore(session, path)


@contextlib.contextmanager
def _plain_path(prefix):
    """A path to a checkpoint that TensorFlow does not take for a pattern, as it does models/[1]/model.ckpt."""
    prefix = Path(prefix)
    with tempfile.TemporaryDirectory() as folder:
        for path in prefix.parent.glob(f"{glob.escape(prefix.name)}.*"):
            os.symlink(path.resolve(), f"{folder}/x{path.name.removeprefix(prefix.name)}")
        yield f"{folder}/x"


def _prefixes(models, name):
    """The checkpoints of a name, newest first."""
    prefixes = [str(path.with_suffix("")) for path in models.glob(f"{name}*.index")]
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix), reverse=True)


def _orphaned_data(models, name):
    """The data files of a checkpoint's name without an .index, which are of no use."""
    return [path for path in models.glob(f"{name}*.data-*") if not path.with_suffix(".index").exists()]


# Writing


@contextlib.contextmanager
def lock_models(models):
    """Keeps other runs out of a folder during a block, and removes what a killed run left half-written there.

    Raises UserError: another process, whose number it gives, trains there; or it is no folder.
    """
    is_new = not models.exists()
    try:
        models.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{models} is not a folder: name another") from None
    with open(models / LOCK, "a+") as file:
        try:
            lock(file)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"process {file.read()} trains in {models}: stop it, or give another --models") from None
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
    """Whether a run of `steps` saves and tests after a step (from 1): every 1,000 steps, more often in a short run, and
    when it last did so 5 minutes ago or more."""
    return step % min(SAVE_STEPS, max(100, steps // 20)) == 0 or step == steps or seconds >= SAVE_SECONDS


def save(saver, session, models, name, step):
    """saver.save() as `name` (LAST or BEST) in the folder `models`, after which all but the newest KEPT are deleted.

    The saver has max_to_keep=None. Raises UserError if it cannot be written; older checkpoints are kept then.
    """
    try:
        with defer_signals():
            saved = saver.save(session, str(models / name), step, STATES[name], write_meta_graph=False)
    except tf.errors.OpError as error:
        _remove_torn(models)
        reason = reason_of(error).rpartition("; ")[2]  # PATH; REASON
        raise UserError(f"cannot save {models / name}-{step}: {reason}: make room, then run this again") from None
    older = [prefix for prefix in _prefixes(models, name) if prefix != saved]
    for prefix in older[KEPT[name] - 1 :]:
        for path in sorted(models.glob(f"{glob.escape(Path(prefix).name)}.*"), reverse=True):  # the .index first
            path.unlink()


def reason_of(error):
    """The one line of a tf.errors.OpError's message that says what went wrong."""
    found = re.search(r"^(.+)\n\s*\[\[\{\{", error.message, re.MULTILINE)
    return found[1] if found else error.message.partition("\n")[0]


def _remove_torn(models):
    for path in models.iterdir():
        if TORN.fullmatch(path.name):
            path.unlink()
    for name, state in STATES.items():
        if _prefixes(models, name) or not (models / state).exists():
            for path in _orphaned_data(models, name):
                path.unlink()


# What a run was started with


def keep_run(models, run, fixed):
    """Writes run.json, a dict of every choice, into a folder; if a run was saved there, compares with that first.

    Raises UserError, before anything is written, if a value whose name is in `fixed` differs.
    """
    path = Path(models) / RUN
    is_saved = any(_prefixes(path.parent, name) for name in STATES)
    before = _read_json(path) if is_saved and path.exists() else run
    for name, value in run.items():
        was = before.get(name, value)
        if was == value:
            continue
        if name in fixed:
            raise UserError(f"{models} holds a run with {name} {was}, not {value}: keep it, or give another --models")
        print(f"{name} was {was} in {models} and is {value} from here on")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(run, indent=2) + "\n")


def read_run(checkpoint):
    """What is known of a checkpoint: the file of its own name with .json, or the run.json beside it.

    Returns: dict with "network", a name in senet.NETWORKS, and more; without such a file the variables tell which.
    Raises UserError: the network is not in NETWORKS, or the file is damaged.
    """
    if not Path(f"{checkpoint}.index").exists():
        raise UserError(f"no such checkpoint: {checkpoint} (it would have a {checkpoint}.index)")
    paths = Path(f"{checkpoint}.json"), Path(checkpoint).parent / RUN
    path = next((path for path in paths if path.exists()), None)
    if not path:
        return {"network": _network_of(read_checkpoint(checkpoint))}
    run = _read_json(path)
    if run.get("network") not in NETWORKS:
        raise UserError(f"{path} names the network {run.get('network')}, not one of {', '.join(NETWORKS)}")
    return run


def _network_of(values):
    """The network whose variables are those of a checkpoint, dict of a name to an array; "original" if none fits."""
    for network in NETWORKS:
        with tf.Graph().as_default():
            SENet(crops_placeholder(), network=network)
            shapes = {variable.op.name: tuple(variable.shape) for variable in tf.model_variables()}
        if shapes.items() <= {name: value.shape for name, value in values.items()}.items():
            return network
    return "original"


def _read_json(path):
    """A run.json, under today's names."""
    try:
        return {FORMER_NAMES.get(name, name): value for name, value in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError):
        raise UserError(f"{path} is damaged: delete it to continue with the options of this command") from None
