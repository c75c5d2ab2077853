"""Turns the best checkpoint into landmark.pb, the one file that other programs load.

Usage:
    python freeze_graph.py                                             # models/ -> landmark.pb
    python freeze_graph.py --checkpoint models/model.ckpt-150000       # that one instead of the best

The file is kept only if it gives the checkpoint's own points on real test crops.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from prepare_tfrecords import whole_file
from senet import OUTPUT_NAME, SENet, crops_placeholder
from test_pb import load_graph, predict
from train import BEST, find_records, read_batches, restore

COMPARED_CROPS = 200
TOLERANCE = 1e-5


def find_checkpoint(models):
    """The best checkpoint of a folder, else the last (of a run that never measured), else None."""
    return tf.train.latest_checkpoint(models, BEST) or tf.train.latest_checkpoint(models)


def read_crops(paths, count):
    """The first crops of record files: float32 [count or fewer, 128, 128, 3], BGR, 0..255."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(tf.data.make_one_shot_iterator(read_batches(paths, count)).get_next()[0])


def freeze(checkpoint, crops):
    """Freezes a checkpoint.

    Args:
        checkpoint: path of a checkpoint of senet.py's network, or of the TF-Slim original.
        crops: float32 [N, 128, 128, 3].

    Returns:
        (bytes of a serialized GraphDef without variables, the checkpoint's outputs on the crops: float32 [N, 136]).

    Raises:
        ValueError: the checkpoint is missing, damaged or of another graph.
    """
    with tf.Graph().as_default() as graph, tf.Session() as session:
        placeholder = crops_placeholder()
        outputs = SENet(placeholder)
        restore(tf.train.Saver(), session, checkpoint)
        frozen = tf.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [OUTPUT_NAME.partition(":")[0]]
        )
        return frozen.SerializeToString(deterministic=True), session.run(outputs, {placeholder: crops})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="checkpoints (models)")
    parser.add_argument("--checkpoint", metavar="PREFIX", help="this one (the best in --models, else the last)")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="test records (data)")
    parser.add_argument("--output", type=Path, default=Path("landmark.pb"), metavar="FILE", help="(landmark.pb)")
    args = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)

    checkpoint = args.checkpoint or find_checkpoint(args.models)
    if not checkpoint:
        sys.exit(f"no checkpoint in {args.models}: run python train.py")
    try:
        crops = read_crops(find_records(args.data, "test")[0], COMPARED_CROPS)
        frozen, expected = freeze(checkpoint, crops)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(args.output) as path:
            path.write_bytes(frozen)
            with tf.Session(graph=load_graph(path)) as session:
                # Points lie in 0..1; a network of few steps may answer more, with float32's error in proportion.
                difference = (np.abs(predict(session, crops) - expected) / np.maximum(expected, 1)).max()
            print(f"{checkpoint}: largest difference on {len(crops)} test crops {difference:.1e}")
            if not difference <= TOLERANCE:
                raise ValueError(f"more than {TOLERANCE:.0e} from its checkpoint: {args.output} was not written")
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write {args.output}: {error.strerror}")
    print(f"{args.output} written, {args.output.stat().st_size / 1e6:.2f} MB")
    print(f"next: python test_pb.py{'' if args.output == Path('landmark.pb') else f' --pb {args.output}'}")


if __name__ == "__main__":
    main()
