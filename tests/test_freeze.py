import json
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

PROGRAM = """
import json
import numpy as np
import tensorflow.compat.v1 as tf
definition = tf.GraphDef()
with open("landmark.pb", "rb") as file:
    definition.ParseFromString(file.read())
crops = np.load("crops.npy")
assert crops.dtype == np.uint8
with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(definition, name="")
    run = lambda crops: session.run("fully_connected_9/Relu:0", {"Placeholder:0": crops}).tolist()
    print(json.dumps([run(crops[:1]), run(crops)]))
"""


def freeze_arguments(records, output, *more):
    return "freeze_graph", "--data", records, "--output", output, *more


@pytest.fixture(scope="module")
def crops(make):
    return np.stack([make.photo(seed, 128, 128) for seed in range(32)])


def test_another_program_loads_it_by_name_and_gets_the_checkpoints_points(
    landmark_pb, live_checkpoint, crops, tmp_path, run, checkpoint_outputs
):
    shutil.copy(landmark_pb, tmp_path / "landmark.pb")
    np.save(tmp_path / "crops.npy", crops)
    done = run("-I", "-c", PROGRAM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, many = map(np.array, json.loads(done.stdout))
    assert one.shape == (1, 136) and many.shape == (32, 136)
    expected = checkpoint_outputs(live_checkpoint, crops)
    assert expected.std(0).max() > 0.01
    np.testing.assert_allclose(many, expected, atol=1e-5)
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)


def test_frozen_graph_has_no_variables(landmark_pb):
    definition = tf.GraphDef.FromString(landmark_pb.read_bytes())
    kinds = {node.op for node in definition.node}
    assert not {kind for kind in kinds if "Var" in kind or kind in ("Assign", "RestoreV2", "SaveV2", "IteratorGetNext")}
    assert "Const" in kinds
    assert [node.name for node in definition.node if node.op == "Placeholder"] == ["Placeholder"]
    assert 4e6 < landmark_pb.stat().st_size < 4.3e6


def test_a_checkpoint_of_few_steps_freezes(trained, records, tmp_path, run):
    output = tmp_path / "landmark.pb"
    done = run("freeze_graph.py", "--data", records, "--models", trained.models, "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best.ckpt-20" in done.stdout and output.is_file()


def test_best_goes_before_last_and_checkpoint_before_both(
    records, tmp_path, monkeypatch, live_values, save_variables, crops, checkpoint_outputs
):
    import freeze_graph

    checkpoints = {}
    for name, shift, state in ("model.ckpt", 0.0, "checkpoint"), ("best.ckpt", 0.1, "best"), ("own.ckpt", 0.2, "own"):
        biases = live_values["fully_connected_9/biases"] + np.float32(shift)
        values = live_values | {"fully_connected_9/biases": biases}
        checkpoints[state] = save_variables(values, tmp_path / name, 9, state)
    output = tmp_path / "landmark.pb"

    def frozen(*more):
        arguments = freeze_arguments(records, output, "--models", tmp_path, *more)
        monkeypatch.setattr("sys.argv", list(map(str, arguments)))
        freeze_graph.main()
        with tf.Graph().as_default(), tf.Session() as session:
            tf.import_graph_def(tf.GraphDef.FromString(output.read_bytes()), name="")
            return session.run("fully_connected_9/Relu:0", {"Placeholder:0": crops[:4]})

    expected = {state: checkpoint_outputs(path, crops[:4]) for state, path in checkpoints.items()}
    np.testing.assert_allclose(frozen(), expected["best"], atol=1e-5)
    np.testing.assert_allclose(frozen("--checkpoint", checkpoints["own"]), expected["own"], atol=1e-5)
    (tmp_path / "best").unlink()
    np.testing.assert_allclose(frozen(), expected["checkpoint"], atol=1e-5)


def test_what_cannot_be_frozen_is_one_line_and_leaves_landmark_pb_alone(
    records, tmp_path, says, live_values, save_variables
):
    def gives_up(*more):
        message = says(*freeze_arguments(records, tmp_path / "new" / "landmark.pb", *more))
        assert not list((tmp_path / "new").glob("*")) and not list((tmp_path / "new").glob(".*"))
        old = tmp_path / "landmark.pb"
        old.write_bytes(b"the old one")
        assert says(*freeze_arguments(records, old, *more)).count("\n") == 0
        assert old.read_bytes() == b"the old one" and not list(tmp_path.glob(".partial*"))
        return message

    (tmp_path / "new").mkdir()
    assert str(tmp_path / "none") in gives_up("--models", tmp_path / "none")
    assert "absent" in gives_up("--checkpoint", tmp_path / "absent.ckpt-3")

    other = save_variables({"dense/kernel": np.ones(3, np.float32)}, tmp_path / "a" / "other.ckpt")
    assert other in gives_up("--checkpoint", other)

    damaged = save_variables(live_values, tmp_path / "c" / "damaged.ckpt")
    data = tmp_path / "c" / "damaged.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1_000_000])
    assert damaged in gives_up("--checkpoint", damaged)
    index = tmp_path / "c" / "damaged.ckpt.index"
    index.write_bytes(b"no index")
    assert damaged in gives_up("--checkpoint", damaged)


def test_outputs_that_do_not_compare_are_refused(records, tmp_path, says, live_values, save_variables):
    values = live_values | {"fully_connected_9/biases": np.full(136, np.inf, np.float32)}
    checkpoint = save_variables(values, tmp_path / "infinite.ckpt")
    output = tmp_path / "landmark.pb"
    assert "not written" in says(*freeze_arguments(records, output, "--checkpoint", checkpoint))
    assert not output.exists() and not list(tmp_path.glob(".partial*"))


def test_checkpoint_with_our_names_but_other_shapes_is_one_line(records, tmp_path, says, live_values, save_variables):
    cut = {name: value[..., :10] for name, value in live_values.items() if name.startswith("fully_connected_9/")}
    checkpoint = save_variables(live_values | cut, tmp_path / "narrow.ckpt")
    output = tmp_path / "landmark.pb"
    assert checkpoint in says(*freeze_arguments(records, output, "--checkpoint", checkpoint))
    assert not output.exists()
