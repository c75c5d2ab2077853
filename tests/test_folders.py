"""Which faces a folder gives: each once, none lost, whatever lies beside it."""

import importlib
import os
import shutil
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
import pytest
from conftest import call
from labelled import WRITERS, csv_text, head, is_labelled, photo, read_all, write, write_csv, write_mat, write_pts

from landmark.annotations import find_annotations, identity_keys, photo_name
from landmark.cli import UserError
from landmark.formats import Annotation
from landmark.outputs import Outputs
from landmark.points import crop_box
from landmark.records import read_manifest
from turn_faces import find_photos

SIDE_BY_SIDE = {  # two lists of one photo: the file and format of each
    "points.csv, points_old.csv": (("points.csv", "csv"), ("points_old.csv", "csv")),
    "points.csv, points.tsv": (("points.csv", "csv"), ("points.tsv", "csv")),
    "list.xml, list (copy).xml": (("list.xml", "xml"), ("list (copy).xml", "xml")),
    "coco.json, coco_old.json": (("coco.json", "coco"), ("coco_old.json", "coco")),
    "a.pts, list.xml": (("a.pts", "pts"), ("list.xml", "xml")),
    "a.json, annotations.xml": (("a.json", "labelme points"), ("annotations.xml", "skeleton")),
    "a list in a folder of backups": (("points.csv", "csv"), ("backup/points.csv", "csv")),
}


def write_two(folder, names, first, second):
    photo(folder / "a.jpg")
    for (file, name), points in zip(names, (first, second), strict=True):
        (folder / file).parent.mkdir(exist_ok=True)
        WRITERS[name][1](folder / file, {"a.jpg": [points]})


@pytest.mark.parametrize("names", SIDE_BY_SIDE.values(), ids=SIDE_BY_SIDE)
def test_two_lists_that_place_different_points_on_a_face_are_refused(names, tmp_path):
    write_two(tmp_path, names, head(1), head(2))
    with pytest.raises(UserError) as refused:
        find_annotations([tmp_path])
    assert all(str(tmp_path / file) in str(refused.value) for file, _ in names)
    assert str(tmp_path / "a.jpg") in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("names", SIDE_BY_SIDE.values(), ids=SIDE_BY_SIDE)
def test_a_copy_of_the_same_points_counts_once(names, tmp_path):
    write_two(tmp_path, names, head(1), head(1))
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 1 and not wrong


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "csv"])
def test_points_csv_corrects_every_other_format_and_says_so(name, tmp_path, capsys):
    folder = tmp_path / "SET"
    for stem in "abc":
        photo(folder / f"{stem}.jpg")
    several = name not in ("labelme", "labelme points")
    write(folder, name, {f"{stem}.jpg": [head()] for stem in ("abc" if several else "a")})
    write_csv(folder / "points.csv", {"a.jpg": [head() + 2]})
    faces, wrong = read_all(tmp_path, landmark_type="pts_3d" if name == "pt3d_68" else "pts_2d")
    assert len(faces) == (3 if several else 1) and not wrong
    np.testing.assert_allclose(faces["SET/a"].box, np.add(crop_box(head()), 2), atol=1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("1 faces of ")]
    assert "taken from there" in line and "points.csv" in line


@pytest.mark.parametrize("shift", [3, 12, 28])  # pixels of a face 60 high: the boxes share 90%, 67%, 36%
def test_a_correction_wins_however_wrong_the_points_were(shift, tmp_path):
    photo(tmp_path / "a.jpg")
    write(tmp_path, "pts", {"a.jpg": [head()]})
    write_csv(tmp_path / "points.csv", {"a.jpg": [head() + [0, shift]]})
    faces, _ = read_all(tmp_path)
    assert [is_labelled(face, head() + [0, shift]) for face in faces.values()] == [True]


def test_the_other_faces_of_a_corrected_photo_stay(tmp_path):
    photo(tmp_path / "a.jpg", width=240)
    write(tmp_path, "xml", {"a.jpg": [head(1), head(2, (180, 75))]})
    write_csv(tmp_path / "points.csv", {"a.jpg": [head(1) + 2]})
    faces, _ = read_all(tmp_path)
    boxes = [is_labelled(face, points) for face in faces.values() for points in (head(1) + 2, head(2, (180, 75)))]
    assert sorted(boxes) == [False, False, True, True]


def test_every_format_in_a_folder_is_taken_and_said(tmp_path, capsys):
    for i, name in enumerate(WRITERS):
        photo(tmp_path / f"{i}/{name}.jpg")
        write(tmp_path / str(i), name, {f"{name}.jpg": [head(i)]})
    faces, wrong = read_all(tmp_path)
    assert len(faces) == len(WRITERS) and not wrong
    assert capsys.readouterr().out.count("\n") == 8


@pytest.mark.parametrize("first", ["pt2d", "pt3d_68", "Pose_Para"])
def test_each_mat_says_itself_what_it_holds(first, tmp_path):
    for stem, key in ("a", first), ("b", "pt3d_68"), ("c", "pt2d"):
        photo(tmp_path / f"{stem}.jpg")
        write_mat(tmp_path / "x", {f"{stem}.jpg": [head()]}, key)
    faces, wrong = read_all(tmp_path)
    assert {"b", "c"} <= {name.rpartition("/")[2] for name in faces}


HIDDEN = "._points.csv", ".~lock.csv", "._a.pts", "._list.xml", "._a.jpg", "._a.mat", "._a.json", ".a.pts"
HIDDEN += ".ipynb_checkpoints/points-checkpoint.csv", ".Trash-1000/files/points.csv", ".AppleDouble/a.pts"


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("content", [b"\0\5\x16\7junk", csv_text({"a.jpg": [head(2)]}).encode()], ids=["mac", "older"])
def test_hidden_files_and_folders_are_passed_over(name, content, tmp_path):
    photo(tmp_path / "a.jpg")
    write_csv(tmp_path / "points.csv", {"a.jpg": [head(1)]})
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    faces, wrong = read_all(tmp_path)
    assert [is_labelled(face, head(1)) for face in faces.values()] == [True] and not wrong


def draw(folder, copied=True):
    """Photos with points.csv, and the folder of drawings that test_pb.py makes of them, with its own points.csv."""
    out, faces = folder / "out", {}
    for i, name in enumerate(("a.jpg", "b.jpg", "sub/c.jpg")):
        photo(folder / name, i)
        faces[name] = [head(i)]
    outputs = Outputs(dict.fromkeys([out / "points.csv", *(out / name for name in faces)], "photos"))
    for name in faces:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        with outputs.write(out / name) as partial:
            partial.write_bytes(cv2.imencode(".jpg", np.zeros([150, 120, 3], np.uint8))[1].tobytes())
    more = {"score": 0.9, "width": 120, "height": 150}
    with outputs.write(out / "points.csv") as partial:
        partial.write_text(csv_text(faces, more=more))
    if copied:
        shutil.copy(out / "points.csv", folder)
    return faces


def photos_used(*folders):
    return sorted(str(annotation.photo) for annotation in find_annotations(folders))


def test_what_test_pb_drew_into_the_photos_folder_is_no_photo(tmp_path):
    draw(tmp_path)
    assert photos_used(tmp_path) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "sub/c.jpg")]


def test_points_corrected_where_test_pb_wrote_them_are_of_the_photos(tmp_path):
    draw(tmp_path, copied=False)
    (tmp_path / "out/points.csv").write_text((tmp_path / "out/points.csv").read_text() + "\n")
    assert not [path for path in photos_used(tmp_path) if "/out/" in path]  # black, with the points drawn on it


def test_drawn_pictures_are_known_in_a_copy_of_the_folder_too(tmp_path):
    draw(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos", tmp_path / "copy", copy_function=shutil.copyfile)  # other times: cp -r, zip
    assert not [path for path in photos_used(tmp_path / "copy") if "/out/" in path]


def test_a_folder_of_nothing_but_drawings_says_so(tmp_path):
    draw(tmp_path, copied=False)
    with pytest.raises(UserError, match="wrote|written|passed over"):
        find_annotations([tmp_path / "out"])


def labelled(folder, names="ab"):
    for i, name in enumerate(names):
        photo(folder / f"{name}.jpg", i)
    write_csv(folder / "points.csv", {f"{name}.jpg": [head(i)] for i, name in enumerate(names)})


def linked(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "all")
    return tmp_path / "link"


@pytest.mark.parametrize(
    "given",
    [
        lambda tmp: [tmp / "all", tmp / "all"],
        lambda tmp: [tmp / "all", tmp / "all/sub"],
        lambda tmp: [tmp / "all/sub", tmp / "all"],
        lambda tmp: [tmp / "all/sub/../sub", tmp / "all"],
        lambda tmp: [tmp / "all", linked(tmp)],
        lambda tmp: [linked(tmp) / "sub", tmp / "all"],
    ],
    ids=["twice", "parent, child", "child, parent", "dots", "link", "child of a link"],
)
def test_a_folder_given_twice_is_one_folder(given, tmp_path):
    labelled(tmp_path / "all/sub")
    labelled(tmp_path / "all/more", "c")
    assert len(photos_used(*given(tmp_path))) == 3


def test_a_hidden_folder_is_taken_if_it_is_given_by_name(tmp_path):
    labelled(tmp_path / "all/sub")
    labelled(tmp_path / "all/.own/more", "c")
    assert len(photos_used(tmp_path / "all", tmp_path / "all/.own")) == 3


def test_folders_that_are_links_are_followed_each_real_folder_once(tmp_path):
    labelled(tmp_path / "far/away")
    labelled(tmp_path / "here", "c")
    (tmp_path / "here/one").symlink_to(tmp_path / "far")
    (tmp_path / "here/two").symlink_to(tmp_path / "far/away")
    (tmp_path / "here/loop").symlink_to(tmp_path / "here")
    (tmp_path / "far/away/up").symlink_to("../..")
    (tmp_path / "here/nowhere").symlink_to(tmp_path / "nowhere")
    assert len(photos_used(tmp_path / "here")) == 3
    assert len(photos_used(tmp_path / "here", tmp_path / "far")) == 3


def test_images_enters_folders_below_and_its_output_keeps_the_tree(tmp_path):
    list_pictures = importlib.import_module("test_pb").list_pictures
    draw(tmp_path / "photos")
    photo(tmp_path / "photos/.hidden/h.jpg")
    photo(tmp_path / "far/d.jpg")
    (tmp_path / "photos/link").symlink_to(tmp_path / "far")
    photo(tmp_path / "photos/new/half-written.jpg")
    targets = list_pictures([tmp_path / "photos"], tmp_path / "photos/new")
    assert {str(path.relative_to(tmp_path)): str(target.relative_to(tmp_path)) for path, target in targets.items()} == {
        f"photos/{name}": f"photos/new/{name}" for name in ("a.jpg", "b.jpg", "link/d.jpg", "sub/c.jpg")
    }


# Shards


def prepare(*arguments):
    call("prepare_tfrecords", *arguments)


def small(seed):
    return head(seed, (50, 60)) / 2


def remove_one(folder):
    (folder / "07.jpg").unlink()
    (folder / "07.pts").unlink()


def move_points(folder):
    for i in range(30):
        write_pts(folder / "x.pts", {f"{i:02}.jpg": [small(100 + i)]})


@pytest.fixture
def thirty(tmp_path):
    for i in range(30):
        photo(tmp_path / f"set/{i:02}.jpg", i, 60, 50)
        write_pts(tmp_path / "set/x.pts", {f"{i:02}.jpg": [small(i)]})
    return tmp_path / "set"


@pytest.mark.parametrize("change", [remove_one, move_points], ids=["a face fewer", "other faces of the same names"])
def test_shards_of_different_lists_are_refused(change, thirty, tmp_path, says):
    out = tmp_path / "out"
    prepare("--data", thirty, "--out", out, "--shards", 2, "--shard", 0)
    change(thirty)
    prepare("--data", thirty, "--out", out, "--shards", 2, "--shard", 1)
    with pytest.raises(UserError, match="train-00000-of-00002|test-00000-of-00002"):
        read_manifest(out)


def test_shards_of_one_list_are_taken(thirty, tmp_path):
    for shard in range(2):
        prepare("--data", thirty, "--out", tmp_path / "out", "--shards", 2, "--shard", shard)
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.train, manifest.test) == (27, 3)


@pytest.mark.parametrize(
    "first, second", [(["--shards", 2], []), ([], ["--shards", 2]), (["--shards", 2], ["--shards", 3])]
)
def test_records_beside_those_of_other_shards_are_refused(first, second, thirty, tmp_path, says):
    prepare("--data", thirty, "--out", tmp_path / "out", *first)
    before = sorted(os.listdir(tmp_path / "out"))
    message = says("prepare_tfrecords", "--data", thirty, "--out", tmp_path / "out", *second)
    assert "-of-00002" in message or "test.tfrecords" in message
    assert sorted(os.listdir(tmp_path / "out")) == before


def test_a_photo_that_is_reached_by_a_link_of_another_name_is_one_photo(tmp_path):
    photo(tmp_path / "all/a.jpg")
    write_pts(tmp_path / "all/a.pts", {"a.jpg": [head()]})
    (tmp_path / "best").mkdir()
    (tmp_path / "best/chosen.jpg").symlink_to("../all/a.jpg")
    write_pts(tmp_path / "best/chosen.pts", {"chosen.jpg": [head()]})
    assert len(find_annotations([tmp_path / "all", tmp_path / "best"])) == 1


# Names


def test_names_in_wflws_lists_may_have_spaces_and_no_attributes(tmp_path):
    names = "my a.jpg", "a.jpg", "1 b.jpg"
    for i, name in enumerate(names):
        photo(tmp_path / name, i)
    write(tmp_path, "wflw", {name: [head(i)] for i, name in enumerate(names)})
    (path,) = tmp_path.glob("*.txt")
    for text in path.read_text(), path.read_text().replace(" 1 2 3 4 0 0 0 0 0 0 ", " "):
        path.write_text(text)
        faces, wrong = read_all(tmp_path)
        assert not wrong and len(faces) == len(names)
        assert all(is_labelled(faces[f"{tmp_path.name}/{name[:-4]}"], head(i)) for i, name in enumerate(names))


def write_lists(folder, name, faces):
    """One list, or one for each photo where the format has no more."""
    for some in [{each: faces[each]} for each in faces] if name == "labelme" else [faces]:
        (first, *_), (file, writer) = some, WRITERS[name]
        writer(folder / (f"{PureWindowsPath(first).stem}.json" if name == "labelme" else file), some)


@pytest.mark.parametrize("name", ["csv", "xml", "coco", "labelme", "cvat"])
def test_a_photo_that_is_gone_gets_no_photo_of_another_folder(name, tmp_path):
    for i, folder in enumerate(("anna", "bert")):
        for k in range(3):
            photo(tmp_path / folder / f"{k}.jpg", k)
        write_lists(tmp_path / folder, name, {f"{k}.jpg": [head(10 * i + k, (60, 60 + 20 * i))] for k in range(3)})
    (tmp_path / "anna/1.jpg").unlink()
    faces, wrong = read_all(tmp_path)
    assert wrong == [f"{tmp_path / 'anna/1.jpg'}: cannot be read: No such file or directory"]
    assert len(faces) == 5
    assert all(is_labelled(faces[f"bert/{k}"], head(10 + k, (60, 80))) for k in range(3))


@pytest.mark.parametrize("name", ["csv", "xml", "cvat"])
def test_a_list_finds_the_photos_nearest_to_it(name, tmp_path):
    """As CVAT exports its tasks: each numbers its frames anew."""
    for i in range(2):
        for k in range(2):
            photo(tmp_path / f"task{i}/images/{k}.jpg", k)
        write_lists(tmp_path / f"task{i}", name, {f"{k}.jpg": [head(10 * i + k)] for k in range(2)})
    faces, wrong = read_all(tmp_path)
    assert not wrong and len(faces) == 4
    assert all(is_labelled(faces[f"task{i}/images/{k}"], head(10 * i + k)) for i in range(2) for k in range(2))


@pytest.mark.parametrize("name", ["csv", "xml", "coco", "cvat"])
def test_photos_below_a_lists_folder_are_found_whatever_else_is_there(name, tmp_path):
    faces = {f"{k}.jpg": [head(k)] for k in range(3)}
    photo(tmp_path / "0.jpg")
    photo(tmp_path / "sub/1.jpg")
    photo(tmp_path / "sub/2.jpg")
    write(tmp_path, name, faces)
    write(tmp_path / "other", "xml", {"/home/me/b/7.jpg": [head(7)], "": [head()]})  # found by its end; no name at all
    photo(tmp_path / "b/7.jpg")
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 4 and len(wrong) == 1 and "nameless" in wrong[0]
    found = [f"{tmp_path.name}/0", "sub/1", "sub/2", "b/7"]
    assert all(is_labelled(faces[key], head(int(key[-1]))) for key in found)


@pytest.mark.parametrize("name", ["csv", "xml", "coco", "labelme"])
@pytest.mark.parametrize("other", ["/home/b/faces/{}", "D:\\d\\faces\\{}", "../../old/faces/{}"])
def test_names_from_two_computers_are_both_found(name, other, tmp_path):
    for k in range(4):
        photo(tmp_path / f"faces/{k}.jpg", k)
    (tmp_path / "lists").mkdir()
    names = ["../faces/0.jpg", "../faces/1.jpg", other.format("2.jpg"), other.format("3.jpg")]
    write_lists(tmp_path / "lists", name, {each: [head(k)] for k, each in enumerate(names)})
    faces, wrong = read_all(tmp_path)
    assert not wrong and all(is_labelled(faces[f"faces/{k}"], head(k)) for k in range(4))


@pytest.mark.parametrize("name", ["csv", "xml", "coco", "labelme"])
def test_a_photo_that_is_gone_is_not_further_away_than_the_others(name, tmp_path):
    (tmp_path / "set0/lists").mkdir(parents=True)
    write_lists(tmp_path / "set0/lists", name, {f"{k}.jpg": [head(k)] for k in range(3)})
    for path in "set0/images/0.jpg", "set0/images/1.jpg", "set1/images/2.jpg":
        photo(tmp_path / path)
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 2 and wrong == [f"{tmp_path / 'set0/lists/2.jpg'}: cannot be read: No such file or directory"]


def test_a_name_that_begins_with_two_slashes_leads_nowhere_else(tmp_path):
    outside = photo(tmp_path / "outside/0.jpg")
    photo(tmp_path / "in/1.jpg")
    write(tmp_path / "in", "csv", {f"/{outside}": [head()], "1.jpg": [head(1)]})
    faces, (wrong,) = read_all(tmp_path / "in")
    assert faces.keys() == {"in/1"} and wrong.startswith(str(tmp_path / "in"))


def test_two_labels_of_a_photo_that_is_gone_are_both_named(tmp_path):
    """As COCO has its parts: both number their photos alike."""
    for i, part in enumerate(("train", "val")):
        photo(tmp_path / part / "0.jpg", i)
        WRITERS["coco"][1](tmp_path / f"{part}.json", {"0.jpg": [head(i)]})
    photo(tmp_path / "a.jpg")
    write(tmp_path, "csv", {"a.jpg": [head()]})
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 1 and len(wrong) == 2


def test_of_more_pictures_than_lists_none_is_taken(tmp_path):
    """The nearest may be a thumbnail."""
    for folder in "images", "list/small":
        photo(tmp_path / folder / "0.jpg")
    write(tmp_path / "list", "csv", {"0.jpg": [head()]})
    _, (wrong,) = read_all(tmp_path)
    assert wrong.startswith(f"{tmp_path / 'list/0.jpg'}: cannot be read")


def test_it_is_said_if_a_photos_name_lacks_folders(tmp_path, capsys):
    for k in range(3):
        photo(tmp_path / f"lfpw/trainset/{k}.jpg", k)
    write(tmp_path, "xml", {f"helen/trainset/{k}.jpg": [head(k)] for k in range(3)})
    assert len(find_annotations([tmp_path])) == 3
    first = f"helen/trainset/0.jpg of {tmp_path / 'list.xml'} is {tmp_path / 'lfpw/trainset/0.jpg'}"
    assert f"3 photos are found by the end of their names: {first}\n" in capsys.readouterr().out


def test_a_hash_in_a_folders_name_does_not_join_its_faces(tmp_path):
    for i in range(6):
        photo(tmp_path / f"set #2/{i:04}.jpg", i)
    write_csv(tmp_path / "set #2/points.csv", {f"{i:04}.jpg": [head(i), head(i) + [40, 0]] for i in range(6)})
    annotations = find_annotations([tmp_path / "set #2"])
    assert len(annotations) == 12 and len({*identity_keys(annotations)}) == 6
    assert {photo_name(each) for each in annotations} == {f"set #2/{i:04}" for i in range(6)}


TURNED_SETS = {  # photos, by format, whose turned variants have other names than those of 300W_LP
    "a folder a person": ("pts", [f"Person_{i:02}/Person_{i:02}_0001.jpg" for i in range(4)]),
    "names that end in a number": ("xml", ["two/8190_0.jpg", "two/8190_2.jpg", "two/8191.jpg"]),
    "mirrors": ("300W_LP", [f"{group}/x_{i}_1_0.jpg" for group in ("SET", "SET_Flip") for i in range(3)]),
}


@pytest.mark.parametrize("form, names", TURNED_SETS.values(), ids=TURNED_SETS)
def test_turned_variants_stay_with_their_photo(form, names, tmp_path):
    for name in names:
        path = photo(tmp_path / name, 1, 450, 450)
        faces = [head() * 3 + [45, 0], *([head() + [300, 0]] if form == "xml" else [])]
        WRITERS[form][1](path.parent / f"{path.stem}.{form}", {path.name: faces})
    photos = find_annotations([tmp_path])
    turned = []
    for group, face, annotation in find_photos([tmp_path]):
        names = [f"{group}/{face}_{k}" for k in (1, 2, 12)]
        turned += [(annotation, Annotation(None, Path(f"{name}.jpg"), "300W_LP", name)) for name in names]
    assert len(turned) == 3 * len(photos)
    keys = identity_keys(photos + [variant for _, variant in turned])
    expected = {photo.name: key for photo, key in zip(photos, keys, strict=False)}
    assert keys[len(photos) :] == [expected[annotation.name] for annotation, _ in turned]


def test_pictures_of_equal_names_are_all_turned(tmp_path, run):
    names = "clip1/frames/1.jpg", "clip2/frames/1.jpg", "one/a.jpg", "one/a.png", "deep/er/clip1/frames/1.jpg"
    faces = {}
    for i, name in enumerate(names):
        photo(tmp_path / "photos" / name, i, 450, 450)
        faces[name] = [head(i) * 3 + [45, 0]]
    write_csv(tmp_path / "photos/points.csv", faces)
    written = []
    for out in "one", "two":
        done = run("data/turn_faces.py", "--data", tmp_path / "photos", "--out", tmp_path / out, "--variants", 1)
        assert done.returncode == 0, done.stderr
        written.append(sorted(str(path.relative_to(tmp_path / out)) for path in (tmp_path / out).rglob("*.jpg")))
    assert len(written[0]) == len(names) and written[0] == written[1]
    assert f"{len(names)} pictures" in done.stdout
    assert len(find_annotations([tmp_path / "photos", tmp_path / "one"])) == 2 * len(names)
