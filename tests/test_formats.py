"""Each format that --data takes: a small folder made here, and a damaged one."""

import contextlib
import io
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import REPO

from landmark import records as record_files
from landmark.annotations import find_annotations, read_face, read_faces, split_faces
from landmark.cli import UserError
from landmark.formats import FORMATS, WFLW_68, Annotation, read_points
from landmark.points import MIRROR, crop_box, to_crop

SHARED = REPO / "../shared"


def as_300w_lp(folder, faces):
    for stem, points in faces.items():
        path = folder / "landmarks/SET" / f"{stem}_pts.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"pts_2d": points, "pts_3d": points + 5})
        # 300W_LP holds these too, and each face must still count once.
        scipy.io.savemat(folder / f"SET/{stem}.mat", {"pt2d": points.T + 9, "Pose_Para": np.zeros([1, 7])})
    return "SET", path


def as_aflw2000(folder, faces):
    for stem, points in faces.items():
        depths = np.zeros([68, 1])
        mat = {"pt3d_68": np.hstack([points, depths]).T, "pt2d": np.zeros([2, 21]), "Pose_Para": np.zeros([1, 7])}
        scipy.io.savemat(path := folder / f"SET/{stem}.mat", mat)
    return "SET", path


def as_fits(folder, faces):
    for stem, points in faces.items():
        scipy.io.savemat(path := folder / f"SET/{stem}.mat", {"pt2d": points.T})
    return "SET", path


def as_pts(folder, faces):
    for stem, points in faces.items():
        rows = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points + 1)  # Matlab's first pixel is 1, 1
        (path := folder / f"SET/{stem}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}}}\n")
    return "SET", path


def as_wflw(folder, faces):
    path = folder / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
    path.parent.mkdir(parents=True)
    lines = []
    for stem, points in faces.items():
        all_98 = np.full([98, 2], 1.0)
        all_98[WFLW_68] = points
        numbers = " ".join(f"{number:.6f}" for number in all_98.ravel())
        lines.append(f"{numbers} 1 2 3 4 0 0 0 0 0 0 SET/{stem}.jpg")
    path.write_text("\n".join(lines) + "\n")
    repeated = lines[len(lines) // 2].split()  # one face in another list too
    (path.parent.parent / "list_98pt_test_pose.txt").write_text(" ".join(repeated[:196] + repeated[-1:]))
    return "SET", path


def as_dlib(folder, faces):
    images = []
    for stem, points in faces.items():
        parts = [f"<part name='{i}' x='{x}' y='{y}'/>" for i, (x, y) in enumerate(points)]
        parts = "".join(sorted(parts))  # as text: 0, 1, 10, 11, ...
        box = f"<box top='1' left='1' width='9' height='9'>{parts}</box>"
        images.append(f"<image file='SET/{stem}.jpg'>\n{box}\n</image>\n")
    head = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<dataset><images>\n"
    (path := folder / "faces.xml").write_text(f"{head}{''.join(images)}</images></dataset>")
    return "SET", path


def as_cvat(folder, faces):
    images = [
        f"<image name='SET/{stem}.jpg'>\n<points points='{';'.join(f'{x},{y}' for x, y in points)}'/></image>\n"
        for stem, points in faces.items()
    ]
    (path := folder / "annotations.xml").write_text(f"<annotations>\n{''.join(images)}</annotations>")
    return "SET", path


def as_coco(folder, faces):
    images = [{"id": i, "file_name": f"{stem}.jpg"} for i, stem in enumerate(faces)]
    annotations = [
        {"image_id": i, "keypoints": np.column_stack([points, np.full(68, 2)]).ravel().tolist()}
        for i, points in enumerate(faces.values())
    ]
    (path := folder / "faces.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return "SET", path


def as_labelme(folder, faces):
    for stem, points in faces.items():
        shapes = [{"label": str(1 + i), "points": [point]} for i, point in enumerate(points.tolist())]
        content = {"imagePath": f"{stem}.jpg", "shapes": shapes}
        (path := folder / f"SET/{stem}.json").write_text(json.dumps(content))
    return "SET", path


def as_csv(folder, faces):
    path = folder / "SET/points.csv"
    names = [f"{axis}{i}" for i in range(68) for axis in "xy"]
    lines = [",".join(["face", "picture", *names, "score"])]
    lines += [",".join(["0", f"{stem}.jpg", *map(str, points.ravel()), "0.9"]) for stem, points in faces.items()]
    lines.append(",".join(["", "nobody.jpg", *[""] * 137]))
    path.write_text("\n".join(lines) + "\n")
    return "SET", path


WRITERS = {
    "300W_LP": as_300w_lp,
    "WFLW list": as_wflw,
    "dlib or CVAT XML": as_dlib,
    "300-W .pts": as_pts,
    "COCO or labelme JSON": as_coco,
    "AFLW2000-3D": as_aflw2000,
    "300W_LP without landmarks/": as_fits,
    "points.csv of test_pb.py": as_csv,
}


def write_set(folder, name, make, count=6, write=None):
    """Writes a set in a format; returns ({stem: points of whole pixels}, the file of the last face's points)."""
    (folder / "SET").mkdir(parents=True)
    faces = {f"face_{seed}00": np.round(make.points(seed)) for seed in range(1, 1 + count)}
    for seed, (stem, points) in enumerate(faces.items()):
        photo = make.photo(seed)
        photo[points[:, 1].astype(int), points[:, 0].astype(int)] = (0, 255, 0)
        cv2.imwrite(str(folder / f"SET/{stem}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return faces, (write or WRITERS[name])(folder, faces)[1]


VARIANTS = [*WRITERS.items(), ("dlib or CVAT XML", as_cvat), ("COCO or labelme JSON", as_labelme)]


@pytest.mark.parametrize("name, write", VARIANTS)
def test_points_are_in_pixels_of_the_photo(name, write, tmp_path, make, capsys):
    assert WRITERS.keys() == FORMATS.keys()
    faces, _ = write_set(tmp_path / "own", name, make, write=write)
    annotations = find_annotations([tmp_path / "own"])
    types = {"300W_LP": "2D and 3D", "AFLW2000-3D": "3D"}.get(name, "2D")
    first = capsys.readouterr().out.partition("\n")[0]
    assert re.fullmatch(rf"\d faces in {tmp_path / 'own'}: {re.escape(name)}, {types} points", first)
    assert sorted(annotation.name for annotation in annotations) == sorted(f"SET/{stem}" for stem in faces)
    for annotation in annotations:
        points = next(iter(read_points(annotation).values()))
        np.testing.assert_allclose(points, faces[annotation.photo.stem], atol=1e-3)
        photo = cv2.imread(str(annotation.photo)).astype(int)
        x, y = points.round().astype(int).T
        assert (photo[y, x, 1] > photo[y + 1, x + 1, 1] + 30).mean() > 0.8  # the points were drawn there


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_face_is_named_and_left_out(name, tmp_path, make, capsys):
    folder = tmp_path / "own"
    faces, path = write_set(folder, name, make)
    if path.suffix == ".mat":
        path.write_bytes(path.read_bytes()[:300])
    else:
        number = f"{faces['face_600'][40, 0]}"
        before, found, after = path.read_text().rpartition(
            number if path.suffix in (".xml", ".csv", ".json") else f"{number}00"
        )
        assert found
        path.write_text(before + ('"?"' if path.suffix == ".json" else "?") + after)
    (folder / "SET/face_100.jpg").unlink()
    annotations = find_annotations([folder])
    assert len(annotations) == 6 and f" faces in {folder}: {name}, " in capsys.readouterr().out
    faces = [face for face in read_faces(annotations, workers=1) if not isinstance(face, str)]
    reasons = [face for face in read_faces(annotations, workers=1) if isinstance(face, str)]
    assert len(faces) == 4 and len(reasons) == 2
    assert any(reason.startswith(str(path)) for reason in reasons)
    assert any("face_100.jpg: cannot be read" in reason for reason in reasons)


def test_a_list_that_cannot_be_read_is_one_line(tmp_path, make, says):
    _, path = write_set(tmp_path / "xml", "dlib or CVAT XML", make)
    path.write_text(path.read_text()[:-20])
    assert str(path) in says("prepare_tfrecords", "--data", tmp_path / "xml", "--out", tmp_path)
    bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><dataset><image file='&b;'/></dataset>"
    encoded = bomb.encode(), ("\ufeff" + bomb).encode("utf-16-le")
    for text in (*encoded, b"<?xml version='1.0' encoding='none'?><dataset/>"):
        path.write_bytes(text)
        assert str(path) in says("prepare_tfrecords", "--data", tmp_path / "xml", "--out", tmp_path)
    _, path = write_set(tmp_path / "csv", "points.csv of test_pb.py", make)
    path.write_text(path.read_text() + "x" * 200_000)
    assert f"{path}, line " in says("prepare_tfrecords", "--data", tmp_path / "csv", "--out", tmp_path)
    for path in tmp_path / "pts/x.pts", tmp_path / "wflw/list_98pt_test.txt":
        path.parent.mkdir()
        path.symlink_to("nowhere")
    assert "skipped.txt" in says("prepare_tfrecords", "--data", tmp_path / "pts", "--out", tmp_path)
    assert f"{tmp_path / 'pts/x.pts'}: cannot be read" in (tmp_path / "skipped.txt").read_text()
    assert f"cannot read {path}: No such file" in says("prepare_tfrecords", "--data", tmp_path / "wflw")


TOKENS = b"nan 1e999 -1 { } <box> </image> , \n \0 ../ / &a; \xff\xfe <!ENTITY".split(b" ") + [b"9" * 400]


@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_is_one_line_or_changes_points(name, tmp_path, make):
    _, path = write_set(tmp_path, name, make, 2)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 5)).tolist():
            damaged[at : at + rng.integers(0, 40)] = rng.choice([TOKENS[rng.integers(len(TOKENS))], rng.bytes(9), b""])
        path.write_bytes(damaged)
        try:
            annotations = find_annotations([tmp_path])
        except UserError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
            continue
        for annotation in annotations:
            try:
                read_face(annotation)
            except UserError as error:
                assert str(tmp_path) in str(error) and "\n" not in str(error)


def test_a_folder_in_no_format_gets_the_list_of_formats(tmp_path, says):
    message = says("prepare_tfrecords", "--data", tmp_path)
    assert str(tmp_path) in message
    for name in FORMATS:
        assert name in message


@pytest.mark.parametrize("name", ["dlib or CVAT XML", "COCO or labelme JSON", "points.csv of test_pb.py"])
def test_the_faces_of_one_photo_are_in_one_split(name, tmp_path, make):
    (tmp_path / "SET").mkdir()
    faces = {f"face_{i}00": np.round(make.points(i, (100 + 120 * (i % 2), 200), 80)) for i in (1, 2, 3)}
    for stem in "face_100", "face_300":
        cv2.imwrite(str(tmp_path / f"SET/{stem}.jpg"), make.photo(0))
    _, path = WRITERS[name](tmp_path, faces)
    path.write_text(path.read_text().replace("face_200", "face_100"))
    (path.parent / f"more{path.suffix}").write_text(path.read_text())  # another list of the same faces
    annotations = find_annotations([tmp_path])
    found = {annotation.name: annotation for annotation in annotations}
    assert sorted(found) == ["SET/face_100", "SET/face_100#1", "SET/face_300"]
    np.testing.assert_allclose(read_points(found["SET/face_100#1"])["pts_2d"], faces["face_200"])
    is_test = dict(zip([annotation.name for annotation in annotations], split_faces(annotations), strict=True))
    assert is_test["SET/face_100"] == is_test["SET/face_100#1"] != is_test["SET/face_300"]


def test_the_68_of_the_98_points_keep_their_sides_in_the_mirror():
    # WFLW's own: jaw 0-32, brows 33-41 and 42-50 (upper edge first), nose 51-59, eyes 60-67 and 68-75, mouth 76-95.
    mirror_98 = [*range(32, -1, -1), *range(46, 41, -1), *range(50, 46, -1), *range(37, 32, -1), *range(41, 37, -1)]
    mirror_98 += [51, 52, 53, 54, 59, 58, 57, 56, 55, 72, 71, 70, 69, 68, 75, 74, 73, 64, 63, 62, 61, 60, 67, 66, 65]
    mirror_98 += [82, 81, 80, 79, 78, 77, 76, 87, 86, 85, 84, 83, 92, 91, 90, 89, 88, 95, 94, 93, 97, 96]
    assert len(set(WFLW_68)) == 68
    assert [mirror_98[i] for i in WFLW_68] == [WFLW_68[i] for i in MIRROR]


def named(name, form):
    return Annotation(name=name, points=None, photo=Path(f"{name}.jpg"), format=form)


@pytest.mark.parametrize(
    "stems, variants, faces",  # whether the format has variants; how many faces the stems are
    [
        ([f"AFW_{i}_1_{v}" for i in range(10) for v in range(3)], True, 10),
        ([f"Name_{i:02}" for i in range(6)] + [f"Other_{i:02}" for i in range(6)], True, 2),
        ([f"{i:06}" for i in range(30)], True, 30),
        ([f"img_{i:04}" for i in range(30)], True, 30),
        ([f"image-{i:04}" for i in range(30)], True, 30),
        ([f"frame_{i}" for i in range(60)], True, 60),
        ([f"frame_{i}" for i in range(150)], True, 150),
        ([f"holiday_{i}" for i in range(20)] + [f"party_{i}" for i in range(20)], False, 40),
    ],
)
def test_a_number_in_a_name_is_a_variants_only_if_the_set_has_variants(stems, variants, faces):
    form = next(name for name, row in FORMATS.items() if row.variants is variants)
    theirs = [named(f"AFW/AFW_{i}_1_{v}", "300W_LP") for i in range(40) for v in range(2)]
    mine = [named(f"MINE/{stem}", form) for stem in stems]
    is_test = split_faces(mine)
    assert sum(is_test) / len(is_test) == round(max(1, 0.1 * faces)) / faces
    mirrored = [named(f"MINE_Flip/{stem}", form) for stem in stems]
    assert split_faces(mine + mirrored) == is_test + is_test
    if len(stems) == faces:
        turned = [named(f"MINE_turned/{stem}_{v}", "300W_LP") for v in range(3) for stem in stems]
        assert split_faces(mine + turned) == 4 * is_test
    held_out = split_faces(theirs + mine)
    assert 0 < sum(held_out) < 0.3 * len(held_out)
    assert sum(held_out[:80]) > 0


def test_lists_never_leave_their_folder(tmp_path, make):
    outside = tmp_path / "secret.jpg"
    cv2.imwrite(str(outside), make.photo(9))
    folder = tmp_path / "own"
    _, path = write_set(folder, "points.csv of test_pb.py", make, 1)
    (folder / "SET/loop.jpg").symlink_to("loop.jpg")
    (folder / "SET/around").symlink_to("..")
    header, row, _ = path.read_text().splitlines()
    names = ["../../secret.jpg", str(outside), "..\\..\\secret.jpg", "../SET/../../secret.jpg", "loop.jpg", "x" * 300]
    names += ["SET/face_100.jpg/../../../secret.jpg", "", "around/around/../../secret.jpg", "/", ".."]
    lines = [",".join(["0", name, str(i), *row.split(",")[3:]]) for i, name in enumerate(names)]
    path.write_text("\n".join([header, *lines]))
    annotations = find_annotations([folder / "SET"])
    assert len(annotations) == len(names)
    for annotation in annotations:
        assert annotation.photo.is_relative_to(folder.resolve())
        with pytest.raises(UserError, match="cannot be read"):
            read_face(annotation)


def test_a_photo_is_found_by_the_end_of_its_name_if_only_one_has_it(tmp_path, make):
    (tmp_path / "images/A").mkdir(parents=True)
    (tmp_path / "images/B").mkdir(parents=True)
    for name in "A/1.jpg", "B/1.jpg", "A/2.jpg":
        cv2.imwrite(str(tmp_path / "images" / name), make.photo(0))
    names = {"A/1.jpg": "A/1.jpg", "/home/me/2.jpg": "A/2.jpg", "../images/B/1.jpg": "B/1.jpg", "/home/me/1.jpg": None}
    points = np.round(make.points(1))
    text = WRITERS["dlib or CVAT XML"](tmp_path, {"face_100": points})[1].read_text()
    (tmp_path / "faces.xml").unlink()
    (tmp_path / "lists").mkdir()
    for name, found in names.items():
        (tmp_path / "lists/faces.xml").write_text(text.replace("SET/face_100.jpg", name))
        (annotation,) = find_annotations([tmp_path])
        np.testing.assert_allclose(read_points(annotation)["pts_2d"], points)
        assert annotation.photo.exists() == bool(found)
        if found:
            assert annotation.photo == (tmp_path / "images" / found).resolve()


@pytest.mark.parametrize("lists", [["faces.xml"], ["train.xml", "test.xml"]])
def test_a_name_does_not_take_the_photo_of_another_name(lists, tmp_path, make):
    """300-W's parts number their photos alike; here one part was not downloaded."""
    (tmp_path / "lfpw/testset").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "lfpw/testset/1.jpg"), make.photo(0))
    faces = {name: np.round(make.points(i)) for i, name in enumerate(("lfpw/trainset/1.jpg", "lfpw/testset/1.jpg"))}
    texts = [WRITERS["dlib or CVAT XML"](tmp_path, {"x": points})[1].read_text() for points in faces.values()]
    (tmp_path / "faces.xml").unlink()
    texts = [text.replace("SET/x.jpg", name) for text, name in zip(texts, faces, strict=True)]
    if len(lists) == 1:
        texts = [texts[0].replace("</images></dataset>", "") + texts[1].partition("<images>")[2]]
    for path, text in zip(lists, texts, strict=True):
        (tmp_path / path).write_text(text)
    found = {annotation.photo: annotation for annotation in find_annotations([tmp_path])}
    assert {path.relative_to(tmp_path.resolve()).as_posix() for path in found} == {*faces}
    (there,) = (annotation for path, annotation in found.items() if path.exists())
    np.testing.assert_allclose(read_points(there)["pts_2d"], faces["lfpw/testset/1.jpg"])


def test_a_face_that_coco_lacks_points_of_is_named_by_its_photo(tmp_path, make):
    faces, path = write_set(tmp_path, "COCO or labelme JSON", make)
    content = json.loads(path.read_text())
    content["annotations"][2]["keypoints"] = [7, 9, 0] * 58 + content["annotations"][2]["keypoints"][174:]
    path.write_text(json.dumps(content))
    wrong = [face for face in read_faces(find_annotations([tmp_path])) if isinstance(face, str)]
    assert wrong == [f"{path.resolve()}, {[*faces][2]}.jpg: pts_2d has 10 points, fewer than 20"]


def test_a_set_of_the_other_landmark_type_has_no_labels_at_the_jaw(tmp_path, make):
    faces, _ = write_set(tmp_path / "3d", "AFLW2000-3D", make, 1)
    (annotation,) = find_annotations([tmp_path / "3d"])
    points = faces["face_100"]
    for landmark_type in "pts_3d", "pts_2d":
        face = read_face(annotation, landmark_type)
        expected = to_crop(points, crop_box(points))
        if landmark_type == "pts_2d":
            expected[:17] = np.nan
        np.testing.assert_allclose(face.label.reshape(68, 2), expected, rtol=1e-6)
    faces, _ = write_set(tmp_path / "both", "300W_LP", make, 1)
    (annotation,) = find_annotations([tmp_path / "both"])
    face = read_face(annotation, "pts_3d")
    np.testing.assert_allclose(face.label.reshape(68, 2), to_crop(points + 5, crop_box(points + 5)), rtol=1e-6)


def test_all_formats_at_once(tmp_path, make, run, read_records):
    folders = []
    for name in FORMATS:
        folders.append(tmp_path / f"set{len(folders)}")
        write_set(folders[-1], name, make, 4)
    options = [option for folder in folders for option in ("--data", folder)]
    done = run("prepare_tfrecords.py", *options, "--out", tmp_path, "--points", "3d")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith("cropping the faces of ") and str(folders[-1]) in first
    for folder, name in zip(folders, FORMATS, strict=True):
        assert [line for line in lines if f" faces in {folder}: {name}, " in line]
    faces = read_records(tmp_path / "train.tfrecords") + read_records(tmp_path / "test.tfrecords")
    assert len(faces) == 4 * len(FORMATS)
    labelled = [np.isfinite(label[:34]).all() for _, _, label, _ in faces]
    assert sum(labelled) == 2 * 4  # 300W_LP and AFLW2000-3D know the jaw of 3d
    assert json.loads((tmp_path / "records.json").read_text())["landmark_type"] == "pts_3d"
    assert cv2.imread(str(tmp_path / "preview.png")) is not None


@pytest.mark.parametrize("name", ["300W_LP", "points.csv of test_pb.py", "WFLW list"])
def test_names_that_are_not_utf8_work(name, tmp_path, make):
    latin = os.fsdecode(b"caf\xe9")
    write_set(tmp_path, name, make)
    for path in sorted(tmp_path.rglob("face_*")):
        path.rename(path.with_name(path.name.replace("face", latin)))
    for path in *tmp_path.rglob("*.csv"), *tmp_path.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"face", os.fsencode(latin)))
    (tmp_path / f"SET/{latin}_100.jpg").write_bytes(b"")
    annotations = find_annotations([tmp_path])
    with contextlib.redirect_stdout(io.StringIO()) as said:  # pytest's own takes no such names
        record_files.write_records(split_faces(annotations), read_faces(annotations, workers=1), tmp_path)
    assert f"look at SET/{latin}_200, " in said.getvalue()
    assert f"SET/{latin}_100.jpg: empty file" in os.fsdecode((tmp_path / "skipped.txt").read_bytes())
    faces = record_files.read_records([tmp_path / f"{split}.tfrecords" for split in ("train", "test")])
    assert sorted(face.name for face in faces) == [f"SET/{latin}_{i}00" for i in range(2, 7)]


@pytest.mark.skipif(not (SHARED / "WFLW").is_dir(), reason="the real sets are not in ../shared")
def test_real_sets_are_recognised_and_their_faces_readable(capsys):
    of_set = {
        "300W_LP": "300W_LP",
        "AFLW2000": "AFLW2000-3D",
        "InfAnFace": "300-W .pts",
        "WFLW": "WFLW list",
        "YTF": "300W_LP",
        "dlib_faces": "dlib or CVAT XML",
    }
    for folder, name in of_set.items():
        annotations = find_annotations([SHARED / folder])
        assert f": {name}, " in capsys.readouterr().out
        assert len({annotation.name for annotation in annotations}) == len(annotations) > 20
        for annotation in annotations[:10]:
            read_face(annotation)
