"""What the points of a face are: in which pixels, of which lists and spreadsheets, and which of them are missing."""

import json

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import REPO, call
from labelled import (
    CAN_LACK,
    COLUMNS,
    HEIGHT,
    WIDTH,
    WRITERS,
    csv_text,
    cvat_text,
    head,
    is_labelled,
    labelme_text,
    photo,
    read_all,
    write,
    write_coco,
    write_csv,
    write_cvat,
    write_labelme,
    write_labelme_points,
    write_pts,
    write_skeleton,
    write_xml,
)
from PIL import Image

from landmark.annotations import find_annotations
from landmark.cli import UserError
from landmark.formats import read_points
from landmark.points import crop_box, crop_face
from landmark.pose import is_face

# The eight EXIF orientations: from the upright picture to the pixels as stored, and a point's place in these.
TURNS = Image.Transpose
TO_STORED = {
    1: (None, lambda x, y: (x, y)),
    2: (TURNS.FLIP_LEFT_RIGHT, lambda x, y: (WIDTH - 1 - x, y)),
    3: (TURNS.ROTATE_180, lambda x, y: (WIDTH - 1 - x, HEIGHT - 1 - y)),
    4: (TURNS.FLIP_TOP_BOTTOM, lambda x, y: (x, HEIGHT - 1 - y)),
    5: (TURNS.TRANSPOSE, lambda x, y: (y, x)),
    6: (TURNS.ROTATE_90, lambda x, y: (y, WIDTH - 1 - x)),
    7: (TURNS.TRANSVERSE, lambda x, y: (HEIGHT - 1 - y, WIDTH - 1 - x)),
    8: (TURNS.ROTATE_270, lambda x, y: (HEIGHT - 1 - y, x)),
}
TEST_PB = {
    "face": 0,
    "yaw": 1.5,
    "score": 0.9,
    "spread0": 0.1,
    "mouth_open": 0.1,
}  # some columns that test_pb.py writes
SIZE = {"width": WIDTH, "height": HEIGHT}


def upright_photo(folder):
    return cv2.imread(str(photo(folder / "upright.png")))


def stored_photo(path, upright, orientation):
    """Saves an upright picture as a camera does: turned, with the EXIF orientation that turns it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(upright[..., ::-1])
    turn = TO_STORED[orientation][0]
    exif = Image.Exif()
    exif[0x112] = orientation
    (image if turn is None else image.transpose(turn)).save(path, exif=exif, quality=97)


def check_record(face, pixels, points, tolerance):
    """That a record's crop and photo are those of points in a picture, to some levels on average; the photo's pixels
    may be compressed once more."""
    crop = crop_face(pixels, crop_box(points)).astype(int)
    assert is_labelled(face, points)
    kept = cv2.imdecode(np.frombuffer(face.photo, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert np.abs(crop - face.crop).mean() < tolerance
    assert np.abs(crop - crop_face(kept, face.box)).mean() < tolerance + 1  # training cuts its crops from this


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", TO_STORED)
def test_points_of_test_pb_are_upright_and_all_others_stored(suffix, orientation, tmp_path):
    upright, name = upright_photo(tmp_path), f"a.{suffix}"
    for folder in "corrected", "by_hand", "pts":
        stored_photo(tmp_path / folder / name, upright, orientation)
    stored = np.stack(TO_STORED[orientation][1](*head().T), 1)
    write_csv(tmp_path / "corrected/points.csv", {name: [head()]}, more=TEST_PB | SIZE)
    write_csv(tmp_path / "by_hand/points.csv", {name: [stored]})
    write_pts(tmp_path / "pts/x.pts", {name: [stored]})
    faces, wrong = read_all(tmp_path)
    assert not wrong
    check_record(faces["corrected/a"], upright, head(), 4)
    pixels = cv2.imread(str(tmp_path / "by_hand" / name), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    for folder in "by_hand", "pts":
        check_record(faces[f"{folder}/a"], pixels, stored, 1)


@pytest.mark.parametrize("orientation", TO_STORED)
def test_the_same_points_in_both_frames_are_one_face(orientation, tmp_path):
    stored_photo(tmp_path / "a.jpg", upright_photo(tmp_path), orientation)
    stored = np.stack(TO_STORED[orientation][1](*head().T), 1)
    write_csv(tmp_path / "points.csv", {"a.jpg": [head()]}, more=TEST_PB | SIZE)
    write_csv(tmp_path / "by_hand.csv", {"a.jpg": [stored]})
    faces, _ = read_all(tmp_path)
    assert len(faces) == 1


@pytest.mark.parametrize("lost", [["spread0"], ["width", "height"], ["score"], ["score", "width", "height", "spread0"]])
def test_columns_that_someone_deleted_do_not_turn_the_points(lost, tmp_path):
    upright = upright_photo(tmp_path)
    stored_photo(tmp_path / "a.jpg", upright, 6)
    more = {name: value for name, value in (TEST_PB | SIZE).items() if name not in lost}
    write_csv(tmp_path / "points.csv", {"a.jpg": [head()]}, more=more)
    faces, wrong = read_all(tmp_path)
    if wrong:  # refused, by name
        assert str(tmp_path / "points.csv") in wrong[0]
    else:
        check_record(*faces.values(), upright, head(), 4)


RESIZED = {
    "points.csv": ("points.csv", lambda path, faces: write_csv(path, faces, more=TEST_PB | SIZE)),
    "points.csv by hand": ("points.csv", lambda path, faces: write_csv(path, faces, more=SIZE)),
    "coco": ("coco.json", write_coco),
    "labelme": ("a.json", write_labelme),
    "labelme points": ("a.json", write_labelme_points),
    "cvat": ("annotations.xml", write_cvat),
    "skeleton": ("annotations.xml", write_skeleton),
}


@pytest.mark.parametrize("size", [(300, 240), (225, 180), (WIDTH, HEIGHT)], ids=["doubled", "by half", "on its side"])
@pytest.mark.parametrize("name", RESIZED)
def test_a_photo_of_another_size_than_its_points_is_left_out(name, size, tmp_path):
    photo(tmp_path / "a.jpg", 0, *size)
    file, writer = RESIZED[name]
    writer(tmp_path / file, {"a.jpg": [head()]})
    faces, wrong = read_all(tmp_path)
    assert not faces and len(wrong) == 1
    assert str(tmp_path / "a.jpg") in wrong[0] and str(tmp_path / file) in wrong[0]


@pytest.mark.parametrize(
    "size", [{"width": "120.0", "height": " 150"}, {"width": 120}, {"height": 150}, {"width": 120, "height": ""}]
)
def test_a_size_that_a_spreadsheet_wrote_in_its_own_way_is_a_size(size, tmp_path):
    photo(tmp_path / "a.jpg")
    write_csv(tmp_path / "points.csv", {"a.jpg": [head()]}, more=TEST_PB | size)
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 1 and not wrong


@pytest.mark.parametrize("orientation", TO_STORED)
@pytest.mark.parametrize("name", ["labelme", "labelme points", "cvat", "skeleton"])
def test_programs_that_show_photos_upright_write_upright_points(name, orientation, tmp_path):
    upright = upright_photo(tmp_path)
    stored_photo(tmp_path / "a.jpg", upright, orientation)
    file, writer = RESIZED[name]
    writer(tmp_path / file, {"a.jpg": [head()]})
    faces, wrong = read_all(tmp_path)
    assert not wrong
    check_record(*faces.values(), upright, head(), 4)


@pytest.mark.parametrize("name", RESIZED)
def test_a_size_that_fits_one_way_only_tells_in_which_pixels_points_are(name, tmp_path):
    """Photos on their side, of which some are labelled as they are stored and some as they are seen."""
    upright, (file, writer) = upright_photo(tmp_path), RESIZED[name]
    for folder in "seen", "stored":
        stored_photo(tmp_path / folder / "a.jpg", upright, 6)
    stored = np.stack(TO_STORED[6][1](*head().T), 1)
    writer(tmp_path / "seen" / file, {"a.jpg": [head()]})
    size = {"width": HEIGHT, "height": WIDTH}
    if file == "points.csv":
        write_csv(tmp_path / "stored" / file, {"a.jpg": [stored]}, more=size)
    else:
        writer(tmp_path / "stored" / file, {"a.jpg": [stored]}, **size)
    faces, wrong = read_all(tmp_path)
    assert not wrong
    check_record(faces["seen/a"], upright, head(), 4)
    pixels = cv2.imread(str(tmp_path / "stored/a.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    check_record(faces["stored/a"], pixels, stored, 4)


def test_a_column_that_anyone_may_add_does_not_turn_the_points(tmp_path):
    stored_photo(tmp_path / "a.jpg", upright_photo(tmp_path), 6)
    stored = np.stack(TO_STORED[6][1](*head().T), 1)
    write_csv(tmp_path / "points.csv", {"a.jpg": [stored]}, more={"face": 0, "note": "good"})
    faces, _ = read_all(tmp_path)
    pixels = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    check_record(*faces.values(), pixels, stored, 1)


def test_points_of_two_faces_in_cvat_are_told_apart_by_their_group(tmp_path):
    """Without a group a second point of the same label is refused."""
    photo(tmp_path / "a.jpg", 0, HEIGHT, 2 * WIDTH)
    two = head(0), head(1) + [WIDTH, 0]

    def draw(group, points):
        return "".join(f"<points label='{i}'{group} points='{x},{y}'/>\n" for i, (x, y) in enumerate(points))

    for grouped in True, False:
        groups = [f" group_id='{group}'" if grouped else "" for group in (1, 2)]
        text = cvat_text({"a.jpg": [*zip(groups, two, strict=True)]}, lambda face: draw(*face), 2 * WIDTH)
        (tmp_path / "annotations.xml").write_text(text)
        faces, wrong = read_all(tmp_path)
        if grouped:
            assert sum(is_labelled(face, points) for face in faces.values() for points in two) == 2 and not wrong
        else:
            assert not faces and len(wrong) == 1


# Spreadsheets

TWO = {"a.jpg": [head(0)], "b.jpg": [head(1)]}
NUMBERED = ["picture", *COLUMNS]
SPREADSHEETS = {
    "as it is": csv_text(TWO),
    "other line ends": csv_text(TWO, end="\r\n"),
    "blank lines": csv_text(TWO, end="\n\n"),
    "blank lines first": "\n\n" + csv_text(TWO),
    "BOM": csv_text(TWO).encode("utf-8-sig"),
    "other order": "".join(",".join(line.split(",")[::-1]) + "\n" for line in csv_text(TWO).splitlines()),
    "other columns": csv_text(TWO, more={"": "", "note": "good", "seconds": ""}),
    "semicolons": csv_text(TWO, ";"),
    "semicolons, decimal commas": csv_text(TWO, ";", ","),
    "tabs, decimal commas": csv_text(TWO, "\t", ","),
    "UTF-16": csv_text(TWO, "\t").encode("utf-16"),
    "UTF-16, big": b"\xfe\xff" + csv_text(TWO, "\t", ",").encode("utf-16-be"),
    "UTF-16, no BOM": csv_text(TWO, "\t").encode("utf-16-le"),
    "sep=": "sep=;\r\n" + csv_text(TWO, ";", ",", end="\r\n"),
    "sep= quoted": '"sep=;"\n' + csv_text(TWO, ";"),
    "SEP=": "SEP=;\n" + csv_text(TWO, ";"),
    "sep=, BOM": ("sep=;\n" + csv_text(TWO, ";")).encode("utf-8-sig"),
    "sep=, UTF-16": ("sep=\t\r\n" + csv_text(TWO, "\t", ",", end="\r\n")).encode("utf-16"),
    "quoted header": csv_text(TWO, head=[f'"{name}"' for name in NUMBERED]),
    "spaces in the header": csv_text(TWO, head=[f" {name}" for name in NUMBERED]),
    "upper case header": csv_text(TWO, head=[name.title() for name in NUMBERED]),
    "all quoted, decimal commas": "".join(
        ",".join(f'"{word.replace(".", ",") if word[0].isdecimal() else word}"' for word in line.split(",")) + "\n"
        for line in csv_text(TWO).splitlines()
    ),
}


@pytest.mark.parametrize(
    "name, kind", [("points.csv", kind) for kind in SPREADSHEETS] + [("POINTS.CSV", "UTF-16"), ("points.txt", "sep=")]
)
def test_points_of_any_spreadsheet_are_read(name, kind, tmp_path):
    for stem in "ab":
        photo(tmp_path / f"{stem}.jpg")
    text = SPREADSHEETS[kind]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    faces, wrong = read_all(tmp_path)
    assert not wrong
    assert [is_labelled(faces[key], head(i)) for i, key in enumerate(sorted(faces))] == [True, True]


WRONG = {  # each would give other points, or fewer faces
    "decimal commas between commas": csv_text(TWO, ",", ","),
    "a quote that is never closed": csv_text(TWO).replace("b.jpg", '"b.jpg'),
    "no x67": csv_text(TWO, head=["picture", *COLUMNS[:-2], "", ""]),
    "no picture": csv_text(TWO, head=["photo", *COLUMNS]),
    "no x0": csv_text(TWO, head=["picture", "x", *COLUMNS[1:]]),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_spreadsheet_that_cannot_be_read_is_named_beside_a_good_one(text, tmp_path):
    for stem in "abc":
        photo(tmp_path / f"{stem}.jpg")
    write_csv(tmp_path / "good.csv", {"c.jpg": [head()]})
    (tmp_path / "points.csv").write_text(text)
    try:
        _, wrong = read_all(tmp_path)
    except UserError as error:
        wrong = [str(error)]
    assert wrong and all(str(tmp_path / "points.csv") in line and "\n" not in line for line in wrong)


OTHERS = {
    "other.csv": b"a,b\n1,2\n",
    "list.csv": b"picture,note\na.jpg,good\n",
    "empty.csv": b"",
    "bytes.csv": bytes(range(256)) * 9,
    "notes.txt": b"picture x0",
    "package.json": b'{"images": ["a.png"], "name": "mine"}',
    "none.json": b'{"images": null, "annotations": null}',
    "lines.json": b'{"a": 1}\n{"a": 2}\n',
    "deep.json": b"[" * 100_000,
    "persons.json": b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations":'
    b' [{"image_id": 1, "keypoints": [1, 1, 2]}, {"image_id": 1, "keypoints": null}]}',
    "cars.json": labelme_text([{"label": "car", "points": [[1, 2], [3, 4]]}], "a.jpg").encode(),
    "empty.json": labelme_text([], "a.jpg").encode(),
    "voc.xml": b"<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
    "pom.xml": b"<project><box/></project>",
    "pose.mat": b"no MAT file",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_is_not_about_faces_does_no_harm(name, tmp_path):
    photo(tmp_path / "a.jpg")
    write_csv(tmp_path / "points.csv", {"a.jpg": [head()]})
    (tmp_path / name).write_bytes(OTHERS[name])
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 1 and not wrong


@pytest.mark.parametrize("name", ["coco", "labelme", "xml", "csv"])
def test_a_list_that_is_cut_short_is_named_beside_a_good_one(name, tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "good/b.jpg")
    write_csv(tmp_path / "good/points.csv", {"b.jpg": [head()]})
    write(tmp_path, name, {"a.jpg": [head()]})
    path = tmp_path / WRITERS[name][0]
    path.write_bytes(path.read_bytes()[:-400])
    try:
        faces, wrong = read_all(tmp_path)
        assert len(faces) + len(wrong) == 2  # the points that are left of a line count
    except UserError as error:
        wrong = [str(error)]
    assert not wrong or str(path) in wrong[0]


# Missing points

FEW = [3, 36, 40, 50]


def without(lost, points=None):
    points = head() if points is None else points.copy()
    points[lost] = np.nan
    return points


@pytest.mark.parametrize("lost", [FEW, [0], [67]], ids=str)
@pytest.mark.parametrize("name", CAN_LACK)
def test_the_points_that_are_there_are_used_in_every_format(name, lost, tmp_path):
    photo(tmp_path / "SET/a.jpg")
    write(tmp_path / "SET", name, {"a.jpg": [without(lost)]})
    faces, wrong = read_all(tmp_path, landmark_type="pts_3d" if name == "pt3d_68" else "pts_2d")
    if wrong and lost == [0] and name in ("xml", "labelme points"):
        assert WRITERS[name][0] in wrong[0]  # 1 to 67 may be numbered from 0, or from 1: not to be guessed
        return
    assert not wrong
    assert is_labelled(faces["SET/a"], without(lost))
    assert np.flatnonzero(np.isnan(faces["SET/a"].label[::2])).tolist() == lost


@pytest.mark.parametrize("mark", ["-1", "-1.00", "0", "nan", ""])
def test_each_mark_of_a_missing_point_is_known(mark, tmp_path):
    photo(tmp_path / "a.jpg")
    text = csv_text({"a.jpg": [np.where(np.isnan(without(FEW)), 777, head())]}).replace("777.00", mark)
    (tmp_path / "points.csv").write_text(text)
    faces, wrong = read_all(tmp_path)
    assert [is_labelled(face, without(FEW)) for face in faces.values()] == [True] and not wrong


def test_a_point_on_the_photos_edge_is_there(tmp_path):
    photo(tmp_path / "a.jpg")
    points = head() - [head()[:, 0].min(), 0]
    write_csv(tmp_path / "points.csv", {"a.jpg": [points]})
    faces, _ = read_all(tmp_path)
    assert is_labelled(*faces.values(), points)


KNOWN = {  # whether the crop is known without some points
    "both eyes": (range(36, 48), True),
    "mouth": (range(48, 68), True),
    "one brow's end": ([17], True),
    "the end of the chin": ([8], True),
    "chin": (range(5, 12), False),
    "jaw": (range(17), False),
    "brows": (range(17, 27), False),
    "half of the face": ([*range(8), *range(17, 22), *range(36, 42)], False),
    "all but 20 that span it": ([i for i in range(17, 68) if i not in (19, 24, 33)], True),
    "all but 19": ([i for i in range(17, 68) if i not in (19, 24)], False),
    "all but 20 of the mouth": (range(48), False),
    "all": (range(68), False),
}


@pytest.mark.parametrize("lost, is_known", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("scale", [0.5, 1])
@pytest.mark.filterwarnings("error")
def test_a_face_is_used_where_its_crop_is_known_without_the_missing_points(lost, is_known, scale, tmp_path):
    photo(tmp_path / "a.jpg")
    write_pts(tmp_path / "x.pts", {"a.jpg": [without([*lost], scale * head())]})
    faces, wrong = read_all(tmp_path)
    assert (len(faces), len(wrong)) == ((1, 0) if is_known else (0, 1))
    if is_known:
        whole, found = crop_box(scale * head()), next(iter(faces.values())).box
        assert np.abs(np.subtract(whole, found)).max() <= 0.15 * (whole[2] - whole[0])
    else:
        assert str(tmp_path / "a.pts") in wrong[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("points", [[50, 60], np.c_[range(40), [70] * 40]], ids=["one place", "one line"])
def test_points_that_span_no_area_are_left_out(points, tmp_path):
    photo(tmp_path / "a.jpg")
    placed = np.full([68, 2], np.nan)
    placed[:40] = points
    write_pts(tmp_path / "x.pts", {"a.jpg": [placed]})
    faces, wrong = read_all(tmp_path)
    assert not faces and str(tmp_path / "a.pts") in wrong[0]


def test_a_line_without_any_point_is_no_face_and_all_others_are_counted(tmp_path):
    rows = {"whole": head(), "no x0": head(), "no y67": head(), "blank": without(range(68)), "one": without(range(67))}
    for name in rows:
        photo(tmp_path / f"{name}.jpg")
    write_csv(tmp_path / "points.csv", {f"{name}.jpg": [points] for name, points in rows.items()})
    lines = (tmp_path / "points.csv").read_text().splitlines()
    for i, at in (2, 1), (3, 136):
        cells = lines[i].split(",")
        cells[at] = ""
        lines[i] = ",".join(cells)
    (tmp_path / "points.csv").write_text("\n".join(lines))
    faces, wrong = read_all(tmp_path)
    names = {
        name.rpartition("/")[2]: np.flatnonzero(np.isnan(face.label[::2])).tolist() for name, face in faces.items()
    }
    assert names == {"whole": [], "no x0": [0], "no y67": [67]}
    assert len(wrong) == 1 and "points.csv, line 6" in wrong[0]


# JSON and CVAT

LISTS = {
    "xml": write_xml,
    "xml from 1": lambda path, faces: write_xml(path, faces, first=1),
    "coco": write_coco,
    "labelme": write_labelme,
    "labelme points": write_labelme_points,
    "labelme points from 1": lambda path, faces, **size: write_labelme_points(path, faces, first=1, **size),
    "cvat": write_cvat,
    "skeleton": write_skeleton,
    "skeleton from 1": lambda path, faces, **size: write_skeleton(path, faces, first=1, **size),
}


@pytest.mark.parametrize("lost", [[], FEW, [33]], ids=str)
@pytest.mark.parametrize("name", LISTS)
def test_two_faces_of_a_photo_in_one_list(name, lost, tmp_path):
    lost = [] if name in ("labelme", "cvat") else lost  # which have all points or none
    both = [without(lost, head(0)), without(lost, head(1, (180, 75)))]
    photo(tmp_path / "images/a.jpg", width=240)
    photo(tmp_path / "images/b.jpg")
    path = tmp_path / ("list.json" if "coco" in name or "labelme" in name else "list.xml")
    LISTS[name](path, {"a.jpg": both}, **({} if "xml" in name else {"width": 240}))
    faces, wrong = read_all(tmp_path)
    assert not wrong
    found = [is_labelled(face, points) for face in faces.values() for points in both]
    assert sorted(found) == [False, False, True, True]


@pytest.mark.parametrize("name", [name for name in LISTS if name.startswith(("xml", "labelme points", "skeleton"))])
@pytest.mark.parametrize("lost", [[0], [67]], ids=str)
def test_points_numbered_from_0_or_1_are_never_shifted(name, lost, tmp_path):
    photo(tmp_path / "a.jpg")
    path = tmp_path / ("list.json" if "labelme" in name else "list.xml")
    LISTS[name](path, {"a.jpg": [without(lost)]})
    faces, wrong = read_all(tmp_path)
    assert [is_labelled(face, without(lost)) for face in faces.values()] == [True] * (1 - len(wrong))


def labelme_twice(path):
    """Two faces of 68 numbered points each, without group_id."""
    each = [head(0), head(1, (180, 75))]
    shapes = [{"label": str(i), "points": [point.tolist()]} for points in each for i, point in enumerate(points)]
    path.with_suffix(".json").write_text(labelme_text(shapes, "a.jpg", width=240))


def labelme_unnumbered(path):
    """Points with names that are no numbers."""
    shapes = [{"label": f"p{i}", "points": [point.tolist()]} for i, point in enumerate(head())]
    path.with_suffix(".json").write_text(labelme_text(shapes, "a.jpg", width=240))


def skeleton_unnumbered(path):
    draw = "<skeleton label='face'>{}</skeleton>".format
    points = "".join(f"<points label='p{i}' outside='0' points='{x},{y}'/>" for i, (x, y) in enumerate(head()))
    path.with_suffix(".xml").write_text(cvat_text({"a.jpg": [0]}, lambda _: draw(points), width=240))


def loose_cvat_points(path):
    points = "".join(f"<points label='{i}' points='{x},{y}'/>" for i, (x, y) in enumerate(head()))
    path.with_suffix(".xml").write_text(cvat_text({"a.jpg": [0]}, lambda _: points, width=240))


def test_a_line_of_68_points_in_a_wflw_list_is_named(tmp_path):
    photo(tmp_path / "a.jpg")
    numbers = " ".join(map(str, head().ravel()))
    (tmp_path / "list_98pt_test.txt").write_text(f"{numbers} a.jpg\n")
    _, (wrong,) = read_all(tmp_path)
    assert wrong.endswith("list_98pt_test.txt, line 1: 68 points, not 98")


def test_the_type_of_points_is_that_of_any_readable_face(tmp_path, capsys):
    for i in range(4):
        photo(tmp_path / f"{i}.jpg", i)
        write(tmp_path, "pts", {f"{i}.jpg": [head(i)]})
    for i in 0, 3:
        (tmp_path / f"{i}.pts").write_text("")
    assert len(read_all(tmp_path)[0]) == 2
    assert "300-W .pts, 2D points" in capsys.readouterr().out


@pytest.mark.parametrize("count", [30, 67, 69])
@pytest.mark.parametrize("name", ["pts", "labelme", "cvat", "coco"])
def test_a_list_of_more_or_fewer_than_68_points_is_left_out_and_named(name, count, tmp_path):
    faces = {"good.jpg": [head()], "bad.jpg": [np.resize(head(1), (count, 2))]}
    of_all = name in ("cvat", "coco")  # one file for all photos
    for folder, labels in {"all": faces}.items() if of_all else ((each, {each: faces[each]}) for each in faces):
        for each in labels:
            photo(tmp_path / folder / each, len(each))
        write(tmp_path / folder, name, labels)
    read, wrong = read_all(tmp_path)
    assert len(read) == 1 and "good" in next(iter(read))
    assert len(wrong) == 1 and wrong[0].endswith(f"{count} points, not 68")


@pytest.mark.parametrize("write_faces", [labelme_twice, labelme_unnumbered, skeleton_unnumbered, loose_cvat_points])
def test_points_whose_order_is_not_known_are_read_or_named(write_faces, tmp_path):
    photo(tmp_path / "a.jpg", width=240)
    photo(tmp_path / "b.jpg")
    write_csv(tmp_path / "points.csv", {"b.jpg": [head()]})
    write_faces(tmp_path / "list")
    try:
        faces, wrong = read_all(tmp_path)
    except UserError as error:
        faces, wrong = {}, [str(error)]
    count = 2 if write_faces is labelme_twice else 1
    assert wrong and all(str(tmp_path / "list") in line for line in wrong) or len(faces) == 1 + count


def test_a_point_after_a_skeleton_is_not_of_it(tmp_path):
    photo(tmp_path / "a.jpg")
    write_skeleton(tmp_path / "list.xml", {"a.jpg": [head()]})
    text = (tmp_path / "list.xml").read_text()
    (tmp_path / "list.xml").write_text(text.replace("</skeleton>", "</skeleton><points label='3' points='5.0,5.0'/>"))
    faces, _ = read_all(tmp_path)
    assert is_labelled(next(iter(faces.values())), head())


# Labels that nobody has


def write_set(folder, name, count=12):
    for i in range(count):
        photo(folder / f"{i:02}.jpg", i)
        write(folder, name, {f"{i:02}.jpg": [head(i)]})
    return folder


@pytest.mark.parametrize("shards", [[], ["--shards", 1], ["--shards", 2]], ids=str)
@pytest.mark.parametrize("name, points, other", [("pt3d_68", "2d", "3d"), ("pts", "3d", "2d")])
def test_labels_without_any_jaw_are_refused(name, points, other, shards, tmp_path, says):
    data, out = write_set(tmp_path / "set", name, 40), tmp_path / "out"
    message = says("prepare_tfrecords", "--data", data, "--out", out, "--points", points, *shards)
    assert "jaw" in message and f"--points {other}" in message
    assert not list(out.glob("*.tfrecords"))
    call("prepare_tfrecords", "--data", data, "--out", out, "--points", other, *shards)


def test_it_is_said_how_many_faces_have_a_jaw(tmp_path, capsys):
    sets = write_set(tmp_path / "with", "pts", 4), write_set(tmp_path / "without", "pt3d_68", 16)
    call("prepare_tfrecords", "--data", sets[0], "--data", sets[1], "--out", tmp_path / "out")
    count = sum(int(line.split()[0]) for line in capsys.readouterr().out.splitlines() if line.endswith("of the jaw"))
    assert 2 <= count <= 4


FAULTS = {
    "y points up": lambda points: points * [1, -1] + [0, HEIGHT],
    "x and y are swapped": lambda points: points[:, ::-1],
    "flipped and not renamed": lambda points: [WIDTH, 0] + points * [-1, 1],
    "the jaw last": lambda points: np.roll(points, -17, 0),
    "one point off": lambda points: np.roll(points, 1, 0),
    "thousands are decimals": lambda points: np.where(points > 60, points / 1000, points),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_points_that_are_no_face_are_said(fault, tmp_path, capsys):
    faces = {f"{i}.jpg": [head(i)] for i in range(12)}
    for i, name in enumerate(faces):
        photo(tmp_path / name, i)
    half = {name: [*points] for name, points in faces.items()}
    half["3.jpg"][0][30:] = np.nan
    for shown in faces, half:
        write(tmp_path, "csv", shown)
        call("prepare_tfrecords", "--data", tmp_path, "--out", tmp_path / "out")
        assert "unlike" not in capsys.readouterr().out
    faces |= {name: [FAULTS[fault](*faces[name])] for name in ("5.jpg", "7.jpg")}
    write(tmp_path, "csv", faces)
    call("prepare_tfrecords", "--data", tmp_path, "--out", tmp_path / "out")
    said = f"2 faces have points unlike a face's, mirrored or in another order: look at {tmp_path.name}/5, "
    assert said + f"{tmp_path.name}/7\n" in capsys.readouterr().out


@pytest.mark.parametrize("set_name", ["300W_LP", "AFLW2000", "AFLW80", "InfAnFace", "WFLW", "YTF", "dlib_faces"])
def test_labelled_faces_are_faces(set_name):
    folder = (REPO.parent / "shared" / set_name).resolve()
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    points = [each for face in find_annotations([folder]) for each in read_points(face).values()]
    wrong = sum(not is_face(each) for each in points)
    assert wrong <= (set_name == "AFLW80")  # there one jaw point lies on a nose


# Neighbours of these: what else is wrong in real lists


def test_two_pictures_of_one_name_and_unequal_size_are_named(tmp_path):
    photo(tmp_path / "a.png")
    write(tmp_path, "pts", {"a.jpg": [head()]})
    photo(tmp_path / "a.jpg")
    assert len(read_all(tmp_path)[0]) == 1
    photo(tmp_path / "a.jpg", 0, 2 * HEIGHT, 2 * WIDTH)
    with pytest.raises(UserError, match=r"a.pts: a.jpg and a.png beside it are of unequal size"):
        find_annotations([tmp_path])


def test_labelme_files_that_were_renamed(tmp_path):
    photo(tmp_path / "1.jpg")
    write_labelme(tmp_path / "1.json", {"IMG_7.jpg": [head()]})  # the photo was renamed with its file
    faces, wrong = read_all(tmp_path)
    assert not wrong and is_labelled(faces[f"{tmp_path.name}/1"], head())
    photo(tmp_path / "IMG_7.jpg")
    with pytest.raises(UserError, match="1.json: its imagePath is IMG_7.jpg, but 1.jpg lies beside it"):
        find_annotations([tmp_path])


@pytest.mark.parametrize("said", ["0.jpg", "/home/me/faces/3.jpg", "..\\raw\\3.jpg"])
def test_labelme_takes_the_photo_beside_it_if_the_other_is_gone(said, tmp_path):
    photo(tmp_path / "other/3.jpg", 1)
    photo(tmp_path / "mine/0.png")
    photo(tmp_path / "mine/1.jpg")
    write_labelme(tmp_path / "mine/0.json", {said: [head()]})
    write_labelme(tmp_path / "mine/1.json", {"1.jpg": [head(1)]})
    faces, wrong = read_all(tmp_path)
    assert not wrong and faces.keys() == {"mine/0", "mine/1"} and is_labelled(faces["mine/0"], head())
    photo(tmp_path / "other/0.jpg", 1)
    if said == "0.jpg":  # mine/0.png may be its mask
        with pytest.raises(UserError, match="0.json: its imagePath is 0.jpg, but 0.png lies beside it"):
            find_annotations([tmp_path])


def test_a_thumbnail_beside_the_photo_that_labelme_names_does_no_harm(tmp_path):
    photo(tmp_path / "0.jpg")
    photo(tmp_path / "0.png", 0, 15, 12)
    write_labelme(tmp_path / "0.json", {"0.jpg": [head()]})
    assert len(read_all(tmp_path)[0]) == 1


def test_pictures_beside_files_that_are_no_labels_do_no_harm(tmp_path):
    photo(tmp_path / "a.jpeg")
    photo(tmp_path / "a.png", 0, 15, 12)  # a thumbnail
    scipy.io.savemat(tmp_path / "a.mat", {"depth": np.ones([3, 3])})
    write(tmp_path, "csv", {"a.jpeg": [head()]})
    photo(tmp_path / "b.jpeg", 1)
    write(tmp_path, "pts", {"b.jpeg": [head()]})
    (tmp_path / "b.jpg").symlink_to("gone.jpg")
    (tmp_path / "b.png").touch()
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib/points.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "cars.xml").write_text("<annotations><track><box/></track></annotations>")
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 1 and is_labelled(faces[f"{tmp_path.name}/a"], head())
    assert wrong == [f"{tmp_path / 'b.jpg'}: cannot be read: No such file or directory"]


def test_a_face_that_a_list_has_twice_is_said(tmp_path, capsys):
    photo(tmp_path / "a.jpg")
    write(tmp_path, "csv", {"a.jpg": [head(0), head(1), head(0)[::-1] + [40, 0]]})
    assert len(find_annotations([tmp_path])) == 3
    first, second = (f"{tmp_path / 'points.csv'}, line {line}" for line in (2, 3))
    said = f"1 faces seem to be twice in one list: {first} and {second}, in {tmp_path / 'a.jpg'}\n"
    assert said in capsys.readouterr().out


def test_labels_in_whole_pixels_are_copies(tmp_path):
    photo(tmp_path / "a.jpg")
    write(tmp_path, "pts", {"a.jpg": [head()]})
    write(tmp_path, "xml", {"a.jpg": [np.round(head())]})
    assert len(find_annotations([tmp_path])) == 1


@pytest.mark.parametrize("moved", [{37: 0.95}, {51: np.nan}], ids=["a lid by a pixel", "a point less"])
def test_labels_that_differ_a_little_are_no_copies(moved, tmp_path):
    photo(tmp_path / "a.jpg")
    points = head()
    for number, by in moved.items():
        points[number] += by
    write_csv(tmp_path / "original.csv", {"a.jpg": [head()]})
    write_csv(tmp_path / "points.csv", {"a.jpg": [points]})
    with pytest.raises(UserError, match="place different points on one face"):
        find_annotations([tmp_path])


@pytest.mark.parametrize(
    "more", [{"date_captured": "2024"}, {"id": 7, "file_name": "b.jpg"}], ids=["same", "unlabelled"]
)
def test_coco_may_list_images_twice(more, tmp_path):
    photo(tmp_path / "a.jpg")
    write_coco(tmp_path / "coco.json", {"a.jpg": [head()]})
    content = json.loads((tmp_path / "coco.json").read_text())
    (image,) = content["images"]
    content["images"] += [image | more, image | more | {"file_name": more.get("file_name", "a.jpg")}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert len(read_all(tmp_path)[0]) == 1


def test_a_polygon_of_hair_does_not_hide_the_labels_beside_it(tmp_path):
    photo(tmp_path / "a.jpg")
    write(tmp_path, "pt2d", {"a.jpg": [head()]})
    WRITERS["labelme"][1](tmp_path / "a.json", {"a.jpg": [np.resize(head(1), (65, 2))]})
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace("linestrip", "polygon"))
    faces, _ = read_all(tmp_path)
    assert [is_labelled(face, head()) for face in faces.values()] == [True]


def test_labelme_photos_that_were_copied_are_those_beside_it(tmp_path):
    photo(tmp_path / "original/IMG_7.jpg", 1)
    photo(tmp_path / "mine/0.jpg")
    write_labelme(tmp_path / "mine/0.json", {str(tmp_path / "original/IMG_7.jpg"): [head()]})
    faces, wrong = read_all(tmp_path / "mine")
    assert not wrong and faces.keys() == {"mine/0"}


def test_boxes_that_imglab_ignores_are_no_faces(tmp_path):
    photo(tmp_path / "a.jpg")
    write(tmp_path, "xml", {"a.jpg": [head(), head() + [50, 0]]})
    path = tmp_path / "list.xml"
    path.write_text("<box ignore='1' ".join(path.read_text().rsplit("<box ", 1)))
    (face,) = read_all(tmp_path)[0].values()
    assert is_labelled(face, head())


UNREADABLE = {
    "COCO, one id twice": ("coco.json", write_coco, '"id": 6', '"id": 5', "two images have the id 5"),
    "COCO, no name": ("coco.json", write_coco, '"file_name": "b.jpg"', '"file_name": null', "expected str"),
    "COCO, half a character": ("coco.json", write_coco, '"b.jpg"', '"\\ud83d.jpg"', "surrogates not allowed"),
    "labelme, no name": ("a.json", write_labelme, '"imagePath": "a.jpg"', '"imagePath": 5', "expected str"),
    "CVAT, a video": (
        "a.xml",
        write_cvat,
        "</version>",
        "</version><track id='0'><points/></track>",
        "export the task as CVAT for im",
    ),
    "points.csv, no header": ("points.csv", write_csv, "picture", "Bild", "no column picture"),
    "points.csv, other columns": ("points.csv", write_csv, ",", ",p_", "does not name the columns picture and x0 y0"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_lists_that_cannot_be_understood_are_named(fault, tmp_path):
    file, writer, old, new, reason = UNREADABLE[fault]
    names = ["a.jpg"] if writer is write_labelme else ["a.jpg", "b.jpg"]
    for name in names:
        photo(tmp_path / name)
    writer(tmp_path / file, {name: [head()] for name in names})
    assert len(find_annotations([tmp_path])) == len(names)
    text = (tmp_path / file).read_text().replace(old, new)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=reason) as refused:
        find_annotations([tmp_path])
    assert str(tmp_path / file) in str(refused.value)


@pytest.mark.parametrize("count, is_named", [(4, False), (17, False), (67, True), (70, True), (133, False)])
@pytest.mark.parametrize("name", ["labelme", "coco"])
def test_polygons_and_categories_of_about_68_points_are_meant_to_be_faces(name, count, is_named, tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    write(tmp_path, "csv", {"a.jpg": [head()]})
    WRITERS[name][1](tmp_path / "b.json", {"b.jpg": [np.resize(head(1), (count, 2))]})
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text().replace("linestrip", "polygon"))
    faces, wrong = read_all(tmp_path)
    assert len(faces) == 1
    assert [line.endswith(f": {count} points, not 68") for line in wrong] == [True] * is_named


def test_points_that_are_no_numbers_are_named(tmp_path):
    photo(tmp_path / "a.jpg")
    write_coco(tmp_path / "coco.json", {"a.jpg": [head()]})
    content = json.loads((tmp_path / "coco.json").read_text())
    content["annotations"][0]["keypoints"][0] = {"x": 1}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    faces, wrong = read_all(tmp_path)
    assert not faces and "the points are not pairs of numbers" in wrong[0]
