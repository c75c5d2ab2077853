"""Small labelled folders for test_folders.py and test_labels.py: a writer for each way in which labels are kept."""

import json

import cv2
import numpy as np
import scipy.io

from landmark.annotations import find_annotations, read_face
from landmark.cli import UserError
from landmark.formats import WFLW_68
from landmark.points import crop_box, to_crop
from landmark.pose import MEAN_HEAD

HEIGHT, WIDTH = 150, 120
COLUMNS = [f"{axis}{i}" for i in range(68) for axis in "xy"]


def head(seed=0, centre=(60, 75)):
    """The 68 points of a face that looks ahead, 60 pixels high: float [68, 2], two digits."""
    flat = MEAN_HEAD[:, :2] - MEAN_HEAD[:, :2].mean(0)
    return np.round(60 * flat / np.ptp(flat[:, 1]) + np.random.default_rng(seed).uniform(-1, 1, (68, 2)) + centre, 2)


def photo(path, seed=0, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


# Writers: of a file (Path) from a dict of a photo's name to a list of faces, [68, 2], NaN for a point that is missing


def csv_text(faces, separator=",", decimal=".", head=None, end="\n", more=None):
    """The text of a points.csv; more: dict of further columns to their values."""
    more = more or {}
    rows = [head or ["picture", *COLUMNS, *more]]
    for name, each in faces.items():
        for points in each:
            numbers = ["" if np.isnan(v) else f"{v:.2f}".replace(".", decimal) for v in np.ravel(points)]
            rows.append([name, *numbers, *map(str, more.values())])
    return "".join(separator.join(row) + end for row in rows)


def write_csv(path, faces, **choices):
    path.write_text(csv_text(faces, **choices))


def write_pts(path, faces):
    for name, (points,) in faces.items():
        rows = "".join(f"{x:.2f} {y:.2f}\n" for x, y in np.where(np.isnan(points), -1, points + 1))
        path.with_name(name).with_suffix(".pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}}}\n")


def write_xml(path, faces, first=0):
    text = ""
    for name, each in faces.items():
        text += f"<image file='{name}'>\n"
        for points in each:
            parts = [f"<part name='{i + first:02}' x='{x}' y='{y}'/>" for i, (x, y) in enumerate(points) if x == x]
            text += f"<box top='1' left='1' width='9' height='9'>{''.join(parts)}</box>\n"
        text += "</image>\n"
    path.write_text(f"<dataset><images>{text}</images></dataset>")


def write_coco(path, faces, width=WIDTH, height=HEIGHT):
    images, annotations = [], []
    for name, each in faces.items():
        images.append({"id": 5 + len(images), "file_name": name, "width": width, "height": height})
        for points in each:
            seen = [[7, 9, 0] if np.isnan(x) else [x, y, 2] for x, y in points.tolist()]
            annotations.append({"id": 1, "image_id": images[-1]["id"], "category_id": 1, "keypoints": sum(seen, [])})
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))


def labelme_text(shapes, name, width=WIDTH, height=HEIGHT):
    keys = {"label": "face", "group_id": None, "shape_type": "point"}
    return json.dumps(
        {
            "version": "5.0.1",
            "shapes": [keys | shape for shape in shapes],
            "imagePath": name,
            "imageData": None,
            "imageWidth": width,
            "imageHeight": height,
        }
    )


def write_labelme(path, faces, **size):
    ((name, each),) = faces.items()
    shapes = [{"points": points.tolist(), "shape_type": "linestrip"} for points in each]
    path.write_text(labelme_text(shapes, name, **size))


def write_labelme_points(path, faces, first=0, **size):
    ((name, each),) = faces.items()
    shapes = [
        {"label": str(i + first), "group_id": group, "points": [point.tolist()]}
        for group, points in enumerate(each)
        for i, point in enumerate(points)
        if not np.isnan(point[0])
    ]
    path.write_text(labelme_text(shapes, name, **size))


def cvat_text(faces, draw, width=WIDTH, height=HEIGHT):
    images = [
        f"<image id='0' name='{name}' width='{width}' height='{height}'>\n{''.join(map(draw, each))}</image>\n"
        for name, each in faces.items()
    ]
    return f"<annotations><version>1.1</version>{''.join(images)}</annotations>"


def write_cvat(path, faces, **size):
    def draw(points):
        return f"<points label='face' points='{';'.join(f'{x},{y}' for x, y in points)}'/>\n"

    path.write_text(cvat_text(faces, draw, **size))


def write_skeleton(path, faces, first=0, **size):
    def draw(points):
        each = [
            f"<points label='{i + first}' outside='{int(np.isnan(x))}' points='{x},{y}'/>".replace("nan,nan", "7,9")
            for i, (x, y) in enumerate(points)
        ]
        return f"<skeleton label='face'>{''.join(each[::-1])}</skeleton>\n"

    path.write_text(cvat_text(faces, draw, **size))


def write_wflw(path, faces):
    lines = []
    for name, each in faces.items():
        for points in each:
            all_98 = np.ones([98, 2])
            all_98[WFLW_68] = np.where(np.isnan(points), -1, points)
            lines.append(f"{' '.join(map(str, all_98.ravel()))} 1 2 3 4 0 0 0 0 0 0 {name}\n")
    path.with_name(f"list_98pt_{path.name}.txt").write_text("".join(lines))


def write_mat(path, faces, key):
    for name, (points,) in faces.items():
        rows = np.vstack([np.where(np.isnan(points), -1, points).T, np.zeros([1, 68])])
        scipy.io.savemat(path.with_name(name).with_suffix(".mat"), {key: rows[: 3 if key == "pt3d_68" else 2]})


def write_300w_lp(path, faces):
    for name, (points,) in faces.items():
        mat = path.parent.parent / "landmarks" / path.parent.name / f"{name.removesuffix('.jpg')}_pts.mat"
        mat.parent.mkdir(parents=True, exist_ok=True)
        points = np.where(np.isnan(points), -1, points)
        scipy.io.savemat(mat, {"pts_2d": points, "pts_3d": points})


# The name of the file to write, if it has one of its own, and the writer.
WRITERS = {
    "csv": ("points.csv", write_csv),
    "pts": ("a.pts", write_pts),
    "xml": ("list.xml", write_xml),
    "coco": ("coco.json", write_coco),
    "labelme": ("a.json", write_labelme),
    "labelme points": ("a.json", write_labelme_points),
    "cvat": ("annotations.xml", write_cvat),
    "skeleton": ("annotations.xml", write_skeleton),
    "wflw": ("test", write_wflw),
    "300W_LP": ("", write_300w_lp),
    "pt2d": ("", lambda path, faces: write_mat(path, faces, "pt2d")),
    "pt3d_68": ("", lambda path, faces: write_mat(path, faces, "pt3d_68")),
}
CAN_LACK = [name for name in WRITERS if name not in ("labelme", "cvat")]  # these two have all points or none


def write(folder, name, faces):
    """Writes the labels of photos into their folder, in the format `name`."""
    file, writer = WRITERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    writer(folder / (file or "x"), faces)


# Reading


def read_all(*folders, landmark_type="pts_2d"):
    """What the folders give: (dict of a name to its AnnotatedFace, list of what is wrong with the others)."""
    faces, wrong = {}, []
    for annotation in find_annotations(folders):
        try:
            faces[annotation.name] = read_face(annotation, landmark_type)
        except UserError as error:
            wrong.append(str(error))
    return faces, wrong


def label_of(points):
    """The label [68, 2] that a record holds of points, NaN for those that are missing."""
    return to_crop(points, crop_box(points[~np.isnan(points).any(1)]))


def is_labelled(face, points):
    return np.allclose(face.label.reshape(68, 2), label_of(points), atol=2e-3, equal_nan=True)
