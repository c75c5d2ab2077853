import csv

import cv2
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import call, names_in


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, make, landmark_pb, run):
    """test_pb.py on pictures of every kind with a text file among them: (images, output, CompletedProcess)."""
    images = tmp_path_factory.mktemp("images")
    photo = make.photo(1, 300, 240)
    alpha = np.dstack([photo, np.full(photo.shape[:2], 128, np.uint8)])
    for name, picture in {
        "colour.png": photo,
        "photo.jpg": photo,
        "small.bmp": make.photo(2, 90, 110),
        "grey.png": photo[..., 0],
        "grey.jpg": photo[..., 2],
        "deep.png": photo.astype(np.uint16) * 257,
        "alpha.png": alpha,
        "large.jpg": make.photo(3, 3648, 5472),
        "CAPITAL.JPG": photo,
    }.items():
        assert cv2.imwrite(str(images / name), picture)
    (images / "broken.jpg").write_text("no picture\n")
    (images / "notes.txt").write_text("neither\n")
    output = images / "out"
    done = run("test_pb.py", "--pb", landmark_pb, "--images", images, "--output", output)
    assert done.returncode == 0, done.stderr
    return images, output, done


@pytest.fixture(scope="module")
def points(drawn):
    """The points in points.csv: dict of a picture's name to float [68, 2]."""
    with (drawn[1] / "points.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:139] == ["picture", "seconds", "face", *(f"{axis}{i}" for i in range(68) for axis in "xy")]
    assert header[139:213] == ["yaw", "pitch", "roll", "score", *(f"spread{i}" for i in range(68)), "width", "height"]
    assert header[213:] == ["eye_open_right", "eye_open_left", "mouth_open"]
    assert len({name for name, *_ in rows}) == len(rows) and {(seconds, face) for _, seconds, face, *_ in rows} == {
        ("", "0")
    }
    return {name: np.array(numbers[:136], float).reshape(68, 2) for name, _, _, *numbers in rows}


def test_every_picture_is_drawn_under_its_name_at_its_size(drawn, points):
    images, output, _ = drawn
    names = {path.name for path in images.iterdir() if path.is_file()} - {"broken.jpg", "notes.txt"}
    assert len(names) == 9 and set(points) == names
    assert names_in(output) == names | {"points.csv"}
    for name in names:
        assert cv2.imread(str(output / name)).shape == cv2.imread(str(images / name)).shape


def test_a_file_that_is_no_picture_is_reported(drawn):
    _, output, done = drawn
    assert len(done.stderr.splitlines()) == 1 and "broken.jpg" in done.stderr
    assert str(output / "points.csv") in done.stdout


def test_points_are_the_networks_shares_times_the_pictures_sides(drawn, points, live_checkpoint, checkpoint_outputs):
    for name in "colour.png", "large.jpg", "grey.jpg", "deep.png":
        picture = cv2.imread(str(drawn[0] / name))
        shares = checkpoint_outputs(live_checkpoint, cv2.resize(picture, (128, 128))[None])[0]
        np.testing.assert_allclose(points[name][:, 0], shares[0::2] * picture.shape[1], atol=0.1)
        np.testing.assert_allclose(points[name][:, 1], shares[1::2] * picture.shape[0], atol=0.1)


def test_green_dots_are_where_the_points_are_and_grow_with_the_picture(drawn, points):
    images, output, _ = drawn
    for name in "colour.png", "alpha.png", "large.jpg":
        picture, before = cv2.imread(str(output / name)), cv2.imread(str(images / name))
        height, width = picture.shape[:2]
        green = (picture[..., 1] > 180) & (picture[..., 0] < 90) & (picture[..., 2] < 90)
        assert not ((before[..., 1] > 180) & (before[..., 0] < 90) & (before[..., 2] < 90)).any()
        inside = [(x, y) for x, y in points[name].round().astype(int) if 0 < x < width - 1 and 0 < y < height - 1]
        assert len(inside) > 50
        assert all(green[y, x] for x, y in inside)
        radius = min(height, width) // 200
        assert all(green[max(y - radius, 0), x] and green[y, max(x - radius, 0)] for x, y in inside)
    changed = (cv2.imread(str(output / "colour.png")) != cv2.imread(str(images / "colour.png"))).any(-1)
    assert 0.01 < changed.mean() < 0.5


def test_pb_that_cannot_be_used_is_one_line_with_its_name(tmp_path, make, says):
    images, output = tmp_path / "images", tmp_path / "drawn"
    images.mkdir()
    cv2.imwrite(str(images / "a.jpg"), make.photo(0))
    with tf.Graph().as_default() as graph:
        tf.constant(1.0, name="fully_connected_9/Relu")
        nameless = graph.as_graph_def().SerializeToString()
    pb = tmp_path / "some.pb"
    for content in None, b"", b"a text, not a graph\n", nameless:
        if content is not None:
            pb.write_bytes(content)
        assert str(pb) in says("test_pb", "--pb", pb, "--images", images, "--output", output)
    assert not output.exists()


def test_images_that_cannot_be_used_are_one_line(tmp_path, says, landmark_pb):
    images, output = tmp_path / "images", tmp_path / "drawn"
    command = ["test_pb", "--pb", landmark_pb, "--images", images, "--output", output]
    assert str(images) in says(*command)
    images.mkdir()
    assert str(images) in says(*command)
    (images / "notes.txt").write_text("no picture\n")
    assert str(images) in says(*command)
    (images / "broken.png").write_bytes(b"\x89PNG\r\n")
    assert str(images) in says(*command)
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob(".partial*"))


def test_a_grey_picture_is_drawn_in_colour_in_its_format(tmp_path, make, landmark_pb):
    (tmp_path / "images").mkdir()
    for name in "a.pgm", "b.pbm":
        cv2.imwrite(str(tmp_path / "images" / name), make.photo(0, 90, 80)[..., 0])
    call("test_pb", "--pb", landmark_pb, "--images", tmp_path / "images", "--output", tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a.pgm", "b.pbm", "points.csv"}
    for name in "a.pgm", "b.pbm":
        drawn = cv2.imread(str(tmp_path / "out" / name))
        assert drawn.shape == (90, 80, 3) and (np.ptp(drawn.astype(int), axis=2) > 100).any()


def test_points_of_other_pictures_are_kept_and_those_of_the_same_are_replaced(tmp_path, make, landmark_pb, says):
    images, output = tmp_path / "images", tmp_path / "out"
    (images / "more").mkdir(parents=True)
    same = ["test_pb", "--pb", landmark_pb, "--output", output, "--images"]
    for i, name in enumerate(("a.png", "b.png", "more/c.png")):
        cv2.imwrite(str(images / name), make.photo(i, 60, 50))
        call(*same, images)  # with one picture more each time
        assert len((output / "points.csv").read_text().splitlines()) == 2 + i
    assert f"{output / 'points.csv'} is in the way" in says(*same, images / "a.png")


def test_a_pattern_in_the_home_folder_may_be_quoted(tmp_path, make, landmark_pb, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cv2.imwrite(str(tmp_path / "a.png"), make.photo(0, 60, 50))
    call("test_pb", "--pb", landmark_pb, "--images", "~/*.png", "--output", tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a.png", "points.csv"}


def test_images_may_be_given_several_times_but_not_beside_a_video(tmp_path, make, landmark_pb, stop):
    for name in "a.png", "b.png":
        cv2.imwrite(str(tmp_path / name), make.photo(0, 60, 50))
    both = "--images", tmp_path / "a.png", "--images", tmp_path / "b.png"
    call("test_pb", "--pb", landmark_pb, *both, "--output", tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a.png", "b.png", "points.csv"}
    code, message = stop("test_pb", *both, "--video", tmp_path / "a.avi")
    assert code == 2 and "--images" in message


def test_output_over_the_images_is_refused(tmp_path, make, stop):
    cv2.imwrite(str(tmp_path / "a.png"), make.photo(0))
    before = (tmp_path / "a.png").read_bytes()
    for images in tmp_path / "a.png", tmp_path:
        _, message = stop("test_pb", "--images", images, "--output", tmp_path / ".." / tmp_path.name)
        assert "--output" in message
        assert (tmp_path / "a.png").read_bytes() == before


def test_the_shipped_model_is_used_until_the_user_has_one(tmp_path, make, landmark_pb, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in "models", "images":
        (tmp_path / folder).mkdir()
    cv2.imwrite("images/a.png", make.photo(0))
    (tmp_path / "models" / "landmark.pb").write_bytes(landmark_pb.read_bytes())
    call("test_pb")
    assert "models/landmark.pb" in capsys.readouterr().out
    assert (tmp_path / "images" / "out" / "points.csv").exists()
    (tmp_path / "landmark.pb").write_bytes(landmark_pb.read_bytes())
    call("test_pb")
    assert "models/landmark.pb" not in capsys.readouterr().out
