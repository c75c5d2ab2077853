import json
import re
import shutil
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf2
import tensorflow.compat.v1 as tf
from conftest import REPO, call, names_in

from landmark import export
from landmark.annotations import AnnotatedFace
from landmark.cli import UserError
from landmark.export import FORMATS, freeze, write_checked
from landmark.graphs import landmark_type_of, load_graph
from landmark.outputs import whole_file
from landmark.records import to_record
from landmark.runtimes import load_session
from senet import SENet, crops_placeholder

SHIPPED = REPO / "models" / "landmark.pb"
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


@pytest.mark.parametrize(
    "shipped, convolutions, biases, size", [(False, 17, 27, 4.02e6), (True, 34, 49, 2.62e6)], ids=["original", "deep"]
)
def test_frozen_graph_holds_only_what_every_reader_knows(shipped, convolutions, biases, size, landmark_pb, check_plain):
    path = SHIPPED if shipped else landmark_pb
    definition = tf.GraphDef.FromString(path.read_bytes())
    check_plain(definition)
    kinds = [node.op for node in definition.node]
    assert (kinds.count("Conv2D"), kinds.count("BiasAdd"), kinds.count("Placeholder")) == (convolutions, biases, 1)
    (source,) = [node for node in definition.node if node.op == "Placeholder"]
    assert source.name == "Placeholder" and source.attr["dtype"].type == tf.float32
    assert [dim.size for dim in source.attr["shape"].shape.dim] == [-1, 128, 128, 3]
    assert definition.node[-1].name == "fully_connected_9/Relu"
    assert not definition.library.function
    # A reader compares its own version with these two, not with the producer's.
    assert definition.versions.min_consumer == 0 and not definition.versions.bad_consumers
    assert path.stat().st_size == pytest.approx(size, rel=0.02)


@pytest.fixture(scope="module", params=[0.8, 1.0])
def training_graph(request, live_checkpoint):
    """GraphDef of a network frozen in training mode, with dropout and without."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        SENet(crops_placeholder(), is_training=True, keep_prob=request.param)
        tf.train.Saver().restore(session, live_checkpoint)
        return tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["fully_connected_9/Relu"])


def test_training_graph_is_not_frozen(training_graph):
    with pytest.raises(UserError, match="it holds .*FusedBatchNormV3"):
        export.fold_batch_norms(training_graph)


def test_training_graph_frozen_elsewhere_is_not_loaded(training_graph, tmp_path, make, says):
    stripped = tf.GraphDef.FromString(training_graph.SerializeToString())
    for node in stripped.node:
        if node.op == "FusedBatchNormV3":
            del node.attr["is_training"]  # the default is True
    pb = tmp_path / "training.pb"
    cv2.imwrite(str(tmp_path / "a.jpg"), make.photo(0))
    for definition in training_graph, stripped:
        pb.write_bytes(definition.SerializeToString())
        message = says("test_pb", "--pb", pb, "--images", tmp_path, "--output", tmp_path / "drawn")
        assert str(pb) in message and "training graph" in message
    assert not (tmp_path / "drawn").exists()


def serve(folder):
    """Loads a SavedModel as TensorFlow Serving does, by the names of its signature."""
    points = tf2.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda crops: points(crops=tf2.constant(crops, tf2.float32))["points"].numpy()


@pytest.mark.parametrize("file", ["landmark.tflite", "landmark.onnx", "1"])
def test_other_formats_give_the_checkpoints_points_for_any_number_of_crops(
    file, landmark_pb, live_checkpoint, crops, checkpoint_outputs
):
    path = landmark_pb.with_name(file)
    run = serve(path) if path.is_dir() else FORMATS[path.suffix[1:]].load(path)
    expected = checkpoint_outputs(live_checkpoint, crops)
    for count in 1, 32, 2:
        np.testing.assert_allclose(run(crops[:count]), expected[:count], atol=1e-4)


def labelled(crops, labels):
    return export.TestCrops(crops, labels, np.tile([0, 0, 128, 128], [len(crops), 1]))


@pytest.mark.parametrize("suffix", ["pb", "onnx"])
def test_a_model_written_again_has_the_same_bytes(suffix, landmark_pb, live_checkpoint, crops, tmp_path):
    """landmark_pb and the files beside it were written by another process."""
    again = tmp_path / f"landmark.{suffix}"
    if suffix == "pb":
        again.write_bytes(freeze(live_checkpoint, crops[:1])[0])
    else:
        for _ in range(2):  # the second time, the converter counts on from the first
            FORMATS[suffix].convert(landmark_pb, again, None)
    assert again.read_bytes() == landmark_pb.with_name(again.name).read_bytes()


def test_a_model_that_gives_other_points_is_not_kept(landmark_pb, crops, tmp_path):
    output = tmp_path / "landmark.tflite"
    output.write_bytes(b"the old one")
    model = landmark_pb.with_suffix(".tflite")
    expected = FORMATS["tflite"].load(model)(crops)
    for faces in labelled(crops, expected + 0.1), export.TestCrops(crops, None, None):
        arguments = output, FORMATS["tflite"], landmark_pb, crops, faces
        with pytest.raises(UserError, match="landmark.tflite was not written"):
            write_checked(*arguments, expected + np.float32(2e-4), whole_file)
        assert output.read_bytes() == b"the old one" and not list(tmp_path.glob(".partial*"))
    write_checked(*arguments, expected + np.float32(5e-5), whole_file)
    assert output.read_bytes() == model.read_bytes()


def test_8_bit_integers_are_kept_if_the_nme_rises_by_at_most_3_percent_of_itself(tmp_path, says):
    int8 = tmp_path / "int8.tflite"
    pictures = [cv2.resize(cv2.imread(str(path)), (128, 128)) for path in sorted((REPO / "images").glob("*.jpg"))]
    crops = np.array([picture[:, ::side] for picture in pictures for side in (1, -1)])
    expected = load_session(SHIPPED)(crops)
    noise = np.random.default_rng(0).normal(0, 1, expected.shape).astype(np.float32)

    def arguments(error):
        for split in "train", "test":
            with tf.io.TFRecordWriter(str(tmp_path / f"{split}.tfrecords")) as records:
                for crop, label in zip(crops, expected + error * noise, strict=True):
                    face = AnnotatedFace("a", crop, label, (0, 0, 128, 128), b"", 0.0, "pts_2d")
                    records.write(to_record(face))
        checkpoint = SHIPPED.with_suffix(".ckpt")
        return freeze_arguments(tmp_path, tmp_path / "a.pb", "--checkpoint", checkpoint, "--tflite_int8", int8)

    assert re.search("rises by .* more than 3%: .*int8.tflite was not written", says(*arguments(0.0005)))
    assert not int8.exists()
    call(*arguments(0.02))  # about the error of the network itself
    assert 1e-4 < np.abs(FORMATS["tflite_int8"].load(int8)(crops) - expected).mean() < 3e-3
    assert int8.stat().st_size < 1.1e6
    tensors = tf.lite.Interpreter(str(int8)).get_tensor_details()
    assert not [tensor for tensor in tensors if "Conv" in tensor["name"] and tensor["dtype"] == np.float32]


def test_a_saved_model_is_written_whole_or_not_at_all(landmark_pb, crops, tmp_path):
    folder, model = tmp_path / "serving" / "1", FORMATS["saved_model"]
    expected = model.load(landmark_pb.with_name("1"))(crops)
    faces = labelled(crops, expected + 0.1)
    with pytest.raises(UserError, match="serving/1 was not written"):
        write_checked(folder, model, landmark_pb, crops, faces, expected + np.float32(1e-3), whole_file)
    assert not list(folder.parent.iterdir())
    write_checked(folder, model, landmark_pb, crops, faces, expected, whole_file)
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert [path.name for path in folder.iterdir()] == ["saved_model.pb"]


@pytest.mark.parametrize("name", ["saved_model", "tflite"])
def test_a_full_disk_is_named_and_nothing_is_left_on_it(name, landmark_pb, crops, small_disk):
    with pytest.raises(UserError) as refused:
        write_checked(small_disk / "1", FORMATS[name], landmark_pb, crops, None, None, whole_file)
    assert str(refused.value) == f"cannot write {small_disk / '1'}: No space left on device"
    assert not list(small_disk.iterdir())


def test_a_saved_model_needs_a_folder_of_its_own(records, tmp_path, says):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "file").touch()
    for taken in tmp_path / "photos", tmp_path / "file":
        message = says(*freeze_arguments(records, tmp_path / "landmark.pb", "--saved_model", taken))
        assert f"{taken} is in the way" in message
    assert len(list(tmp_path.rglob("*"))) == 3


def test_onnx_without_its_packages_names_the_line_that_installs_them(records, tmp_path, says, monkeypatch):
    dev = (REPO / "requirements-dev.txt").read_text()
    wanted = re.search(r"^(tf2onnx.+)\n(onnxruntime.+)$", dev, re.MULTILINE)
    for package in "tf2onnx", "onnxruntime":
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)  # Python's own mark of a module that cannot be imported
            message = says(*freeze_arguments(records, tmp_path / "a.pb", "--onnx", tmp_path / "a.onnx"))
        assert message.endswith(f'pip install "{wanted[1]}" "{wanted[2]}"')
    assert not list(tmp_path.iterdir())


def test_two_formats_in_one_file_are_refused(records, tmp_path, stop):
    code, message = stop(*freeze_arguments(records, tmp_path / "a", "--tflite", tmp_path / "a"))
    assert code == 2 and "--tflite" in message


def test_a_checkpoint_of_few_steps_freezes(trained, records, tmp_path, run):
    output = tmp_path / "landmark.pb"
    done = run("freeze_graph.py", "--data", records, "--models", trained.models, "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best.ckpt-20" in done.stdout and output.is_file()


def test_a_checkpoint_and_records_of_different_landmark_types_are_refused(trained, records, tmp_path, says):
    shutil.copytree(trained.models, tmp_path / "models")
    written = json.loads((tmp_path / "models" / "run.json").read_text())
    (tmp_path / "models" / "run.json").write_text(json.dumps(written | {"landmark_type": "pts_3d"}))
    message = says(*freeze_arguments(records, tmp_path / "landmark.pb", "--models", tmp_path / "models"))
    assert "was trained on pts_3d" in message and f"the records in {records} are pts_2d" in message
    assert not (tmp_path / "landmark.pb").exists()


def test_a_graph_names_its_landmark_type_and_loads_everywhere_as_before(trained, records, tmp_path, small_set, says):
    shutil.copytree(trained.models, tmp_path / "models")
    shutil.copytree(records, tmp_path / "records")
    for path in tmp_path / "models/run.json", tmp_path / "records/records.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"landmark_type": "pts_3d"}))
    graphs = tmp_path / "2d.pb", tmp_path / "3d.pb"
    sources = (trained.models, records), (tmp_path / "models", tmp_path / "records")
    for (models, data), output in zip(sources, graphs, strict=True):
        call(*freeze_arguments(data, output, "--models", models, "--tflite", tmp_path / "landmark.tflite"))
    assert [landmark_type_of(load_graph(path)) for path in graphs] == ["pts_2d", "pts_3d"]
    crop = np.full([1, 3, 128, 128], 100, np.float32)
    outputs = []
    for path in graphs:
        net = cv2.dnn.readNetFromTensorflow(str(path))
        net.setInput(crop)
        outputs.append(net.forward())
    np.testing.assert_array_equal(*outputs)
    assert f"{graphs[1]} was trained on pts_3d" in says("evaluate", "--pb", graphs[1], "--data", small_set)


@pytest.mark.parametrize("name", ["landmark", "landmark_3d", "landmark_free"])
def test_a_shipped_checkpoint_freezes_to_the_shipped_graph(name):
    shipped = REPO / "models" / f"{name}.ckpt"
    frozen, _ = freeze(str(shipped), np.zeros([1, 128, 128, 3], np.float32))
    assert frozen == shipped.with_suffix(".pb").read_bytes()
    assert sum(path.stat().st_size for path in shipped.parent.glob(f"{name}.ckpt*")) < 4e6


def test_a_checkpoint_alone_can_be_frozen_without_records(tmp_path, run):
    checkpoint, output = SHIPPED.with_suffix(".ckpt"), tmp_path / "landmark.pb"
    others = [option for name in ("tflite", "onnx") for option in (f"--{name}", f"landmark.{name}")]
    done = run(REPO / "freeze_graph.py", "--checkpoint", checkpoint, "--output", output, *others, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"no records in data: checking on the crops in {REPO / 'images'}" in done.stdout
    assert names_in(tmp_path) == {"landmark.pb", "landmark.tflite", "landmark.onnx"}
    assert output.read_bytes() == SHIPPED.read_bytes()
    crops = export.read_crops(REPO / "images").crops
    assert len(crops) == len([*(REPO / "images").glob("*.jpg")]) and crops.shape[1:] == (128, 128, 3)
    expected = load_session(SHIPPED)(crops)
    for name in "tflite", "onnx":
        np.testing.assert_allclose(FORMATS[name].load(output.with_suffix(f".{name}"))(crops), expected, atol=1e-4)


def test_a_damaged_crop_is_named(tmp_path):
    (tmp_path / "cut.jpg").write_bytes((REPO / "images" / "astronaut.jpg").read_bytes()[:2000])
    with pytest.raises(UserError, match="cut.jpg: JPEG is cut short"):
        export.read_crops(tmp_path)


def test_8_bit_integers_need_records_and_say_so(tmp_path, says):
    checkpoint, int8 = SHIPPED.with_suffix(".ckpt"), tmp_path / "int8.tflite"
    arguments = freeze_arguments(
        tmp_path / "none", tmp_path / "a.pb", "--checkpoint", checkpoint, "--tflite_int8", int8
    )
    message = says(*arguments)
    assert "tflite_int8" in message and str(tmp_path / "none") in message
    assert not list(tmp_path.iterdir())


def test_best_goes_before_last_and_checkpoint_before_both(
    records, tmp_path, live_values, save_variables, crops, checkpoint_outputs
):
    checkpoints = {}
    for name, shift, state in ("model.ckpt", 0.0, "checkpoint"), ("best.ckpt", 0.1, "best"), ("own.ckpt", 0.2, "own"):
        biases = live_values["fully_connected_9/biases"] + np.float32(shift)
        values = live_values | {"fully_connected_9/biases": biases}
        checkpoints[state] = save_variables(values, tmp_path / name, 9, state)
    output = tmp_path / "landmark.pb"

    def frozen(*more):
        call(*freeze_arguments(records, output, "--models", tmp_path, *more))
        with tf.Graph().as_default(), tf.Session() as session:
            tf.import_graph_def(tf.GraphDef.FromString(output.read_bytes()), name="")
            return session.run("fully_connected_9/Relu:0", {"Placeholder:0": crops[:4]})

    expected = {state: checkpoint_outputs(path, crops[:4]) for state, path in checkpoints.items()}
    np.testing.assert_allclose(frozen(), expected["best"], atol=1e-5)
    np.testing.assert_allclose(frozen("--checkpoint", f"{checkpoints['own']}.index"), expected["own"], atol=1e-5)
    for path in tmp_path.glob("best.ckpt-9.*"):
        path.unlink()
    np.testing.assert_allclose(frozen(), expected["checkpoint"], atol=1e-5)


def test_what_cannot_be_frozen_is_one_line_and_leaves_landmark_pb_as_it_was(
    records, tmp_path, says, live_values, save_variables
):
    def gives_up(*more):
        message = says(*freeze_arguments(records, tmp_path / "new" / "landmark.pb", *more))
        assert not list((tmp_path / "new").glob("*")) and not list((tmp_path / "new").glob(".*"))
        old = tmp_path / "landmark.pb"
        old.write_bytes(b"the old one")
        assert says(*freeze_arguments(records, old, "--overwrite", *more)).count("\n") == 0
        assert old.read_bytes() == b"the old one" and not list(tmp_path.glob(".partial*"))
        return message

    (tmp_path / "new").mkdir()
    assert str(tmp_path / "none") in gives_up("--models", tmp_path / "none")
    absent = tmp_path / "absent.ckpt-3"
    assert gives_up("--checkpoint", absent).startswith(f"no such checkpoint: {absent} ")

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
