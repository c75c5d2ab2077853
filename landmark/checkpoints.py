"""What lies in models/: the checkpoints, the best and the last of them, and what the run was started with."""

import json
from pathlib import Path

import tensorflow.compat.v1 as tf

from landmark.files import whole_file
from senet import NETWORKS

BEST = "best"  # the file in models/ that names the best checkpoint, as `checkpoint` names the last
RUN = "run.json"


def restore(saver, session, checkpoint):
    """Restores a checkpoint.

    Raises:
        ValueError: it is missing, damaged or of another graph; the message names it.
    """
    try:
        saver.restore(session, checkpoint)
        for variable, value in zip(tf.global_variables(), session.run(tf.global_variables()), strict=True):
            if value.shape != variable.shape:  # Saver does not mind
                raise ValueError(f"{variable.op.name} is {list(value.shape)}, not {variable.shape}")
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is damaged or a checkpoint of another graph: {reason}") from None


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
    """The best checkpoint of a folder, else the last (of a run that never measured), else None."""
    return tf.train.latest_checkpoint(models, BEST) or tf.train.latest_checkpoint(models)


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
