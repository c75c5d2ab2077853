"""The layouts of annotated photos that --data takes: where the faces are, and what their points are."""

import csv
import re
from collections import namedtuple
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import scipy.io

from landmark.points import LANDMARKS

KINDS = "pts_2d", "pts_3d"  # the jaw on the visible outline; where the jaw is, behind the cheek of a turned head
PICTURES = ".jpg", ".png", ".jpeg", ".bmp", ".JPG", ".PNG", ".JPEG"
# The 98 points of WFLW that are the 68: every other one of the jaw; the upper edge of each brow; the nose; the corners
# of the eyes and the two points on each lid; the mouth.
WFLW_68 = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60)]
WFLW_68 += [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 96)]

# One face of a data set. name: <SET>/<stem>, with #1, #2, ... for the second face of a photo and on; points: what the
# format reads its points from; photo: Path; format: a name in FORMATS.
Annotation = namedtuple("Annotation", "name points photo format")

# find: function of a folder's Path that yields the name, points and photo of its Annotations; read: function of an
# Annotation's points that returns a dict of a kind to numbers [N, 2], in pixels of the photo; origin: its first pixel.
Format = namedtuple("Format", "find read origin")


def recognise(folder):
    """The faces of a folder.

    Args:
        folder: Path.

    Returns:
        (the name of its format, list of Annotation); (None, []) where it holds none of FORMATS.

    Raises:
        ValueError: a list of faces cannot be read; the message names it.
    """
    for name, form in FORMATS.items():
        found = [Annotation(*face, name) for face in form.find(folder)]
        if found:
            return name, found
    return None, []


def read_points(annotation):
    """The landmarks of a face, of each kind that is known.

    Returns:
        dict of one of KINDS to float64 [68, 2], x and y in pixels of the photo, whose first is 0, 0.

    Raises:
        ValueError: they cannot be read, are of another number or not finite.
    """
    form = FORMATS[annotation.format]
    found = {}
    for kind, points in form.read(annotation.points).items():
        if points.shape != (LANDMARKS, 2) or points.dtype.kind not in "fiu":
            raise ValueError(f"{kind} is {points.dtype} {list(points.shape)}, not numbers [{LANDMARKS}, 2]")
        if not np.isfinite(points).all():
            raise ValueError(f"{kind} holds NaN or infinite points")
        found[kind] = points.astype(np.float64) - form.origin
    return found


# 300W_LP (contract 1), AFLW2000-3D


def _find_300w_lp(folder):
    for path in sorted(folder.glob("landmarks/*/*_pts.mat")):
        group, stem = path.parent.name, path.name.removesuffix("_pts.mat")
        yield f"{group}/{stem}", path, folder / group / f"{stem}.jpg"


def _read_300w_lp(path):
    mat = _read_mat(path, KINDS)
    if "pts_2d" not in mat:
        raise ValueError("no pts_2d in the MAT file")
    return mat


def _find_fits(folder):
    for path in sorted(folder.rglob("*.mat")):
        if (photo := path.with_suffix(".jpg")).exists():
            yield f"{path.parent.name}/{path.stem}", path, photo


def _read_fit(path):
    """AFLW2000-3D has 68 points as pt3d_68 (its pt2d has others); 300W_LP itself as pt2d."""
    mat = _read_mat(path, ["pt3d_68", "pt2d"])
    if "pt3d_68" in mat:
        return {"pts_3d": mat["pt3d_68"][:2].T}
    if "pt2d" in mat:
        return {"pts_2d": mat["pt2d"].T}
    raise ValueError("no pt3d_68 and no pt2d in the MAT file")


def _read_mat(path, names):
    try:
        mat = scipy.io.loadmat(path, variable_names=list(names))
    except Exception as error:  # scipy raises a dozen types for a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"not a readable MAT file: {reason}") from None
    found = {name: mat[name] for name in names if name in mat}
    for name, points in found.items():
        if not isinstance(points, np.ndarray):  # sparse
            raise ValueError(f"{name} is no plain matrix")
    return found


# 300-W


def _find_pts(folder):
    for path in sorted(folder.rglob("*.pts")):
        photos = (path.with_suffix(suffix) for suffix in PICTURES)
        photo = next((photo for photo in photos if photo.exists()), path.with_suffix(PICTURES[0]))
        yield f"{path.parent.name}/{path.stem}", path, photo


def _read_pts(path):
    body = re.search(r"\{(.*)\}", path.read_text(errors="replace"), re.DOTALL)
    try:
        return {"pts_2d": np.array(body[1].split(), np.float64).reshape(-1, 2)}
    except (TypeError, ValueError):
        raise ValueError("not a .pts file: no pairs of numbers between { and }") from None


# WFLW


def _find_wflw(folder):
    lists = sorted(folder.rglob("list_98pt_*.txt"))
    photos = _Photos(folder)
    for path in lists:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            words = line.split()
            if words:
                photo = photos.find(words[-1], path)
                yield photos.name(photo), (path, number, words[:196]), photo


def _read_wflw(points):
    return {"pts_2d": _listed(points, 98)[WFLW_68]}


def _listed(points, count):
    """The points of one row of a list; points: (Path of the list, number of the row, the words of the numbers)."""
    path, number, words = points
    try:
        return np.array(words, np.float64).reshape(count, 2)
    except ValueError:
        raise ValueError(f"row {number} of {path} has no {count} pairs of numbers") from None


class _Photos:
    """The photos that a list names: each in its folder, and how often each came."""

    def __init__(self, folder):
        self.folder, self.counts = folder, {}
        self.known = {path.name: path for path in sorted(folder.rglob("*")) if path.suffix in PICTURES}

    def find(self, name, source):
        """The Path of a photo by the name that the list `source` gives it: from there, or anywhere in the folder."""
        photo = source.parent / name
        inside = photo.resolve().is_relative_to(self.folder.resolve())
        return photo if inside and photo.exists() else self.known.get(Path(name).name, self.folder / Path(name).name)

    def name(self, photo):
        """A name for the next face of a photo."""
        count = self.counts[photo] = self.counts.get(photo, -1) + 1
        return f"{photo.parent.name}/{photo.stem}" + (f"#{count}" if count else "")


# dlib, imglab


def _find_dlib(folder):
    photos = _Photos(folder)
    for path in sorted(folder.glob("*.xml")):
        try:
            text = path.read_bytes()
            if b"<!ENTITY" in text:  # these can grow without end
                raise ValueError("it defines entities")
            images = list(ElementTree.fromstring(text).iter("image"))
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"{path}: not a readable XML file: {error}") from None
        for number, image in enumerate(images, 1):
            photo = photos.find(image.get("file", ""), path)
            for box in image.iter("box"):
                parts = sorted(box.iter("part"), key=lambda part: part.get("name", ""))
                if parts:
                    words = [part.get(axis) for part in parts for axis in "xy"]
                    yield photos.name(photo), (path, number, words), photo


def _read_dlib(points):
    return {"pts_2d": _listed(points, LANDMARKS)}


# points.csv of test_pb.py


def _find_csv(folder):
    photos = _Photos(folder)
    for path in sorted(folder.glob("*points.csv")):
        with open(path, newline="", errors="replace") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                words = [row.get(f"{axis}{i}") for i in range(LANDMARKS) for axis in "xy"]
                if row.get("picture") and words[0]:  # a picture without a face has no points
                    photo = photos.find(row["picture"], path)
                    yield photos.name(photo), (path, number, words), photo


FORMATS = {
    "300W_LP": Format(_find_300w_lp, _read_300w_lp, 0),
    "WFLW list": Format(_find_wflw, _read_wflw, 0),
    "dlib XML": Format(_find_dlib, _read_dlib, 0),
    "300-W .pts": Format(_find_pts, _read_pts, 1),
    "AFLW2000-3D or 300W_LP without landmarks/": Format(_find_fits, _read_fit, 0),
    "points.csv of test_pb.py": Format(_find_csv, _read_dlib, 0),
}
