"""The layouts of annotated photos that --data takes: where the faces are, and what their points are."""

import contextlib
import csv
import functools
import os
import re
from collections import namedtuple
from pathlib import Path
from xml.parsers import expat

import numpy as np

from landmark.errors import UserError
from landmark.mat import read_mat
from landmark.points import LANDMARK_TYPES, LANDMARKS

PLACEHOLDERS = 0, -1  # x and y of points that were not found, in some sets
PICTURES = ".jpg", ".png", ".jpeg", ".bmp", ".JPG", ".PNG", ".JPEG"
TEXT = {"encoding": "utf-8-sig", "errors": "surrogateescape"}  # spreadsheets put a mark first; names may be any bytes
# The 98 points of WFLW that are the 68: every other one of the jaw; the upper edge of each brow; the nose; the corners
# of the eyes and the two points on each lid; the mouth.
WFLW_68 = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60)]
WFLW_68 += [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 96)]

# One face of a data set. name: <SET>/<stem>, with #1, #2, ... for the second face of a photo and on; points: what the
# format reads its points from: the Path of a file, or a Row; photo: Path; format: a name in FORMATS.
Annotation = namedtuple("Annotation", "name points photo format")

# One face of a file that lists many. path: of the file; line: of it, from 1; numbers: str, x and y of its points.
Row = namedtuple("Row", "path line numbers")

# find: function of a folder's Path that yields the name, points and photo of its Annotations; read: function of an
# Annotation's points that returns a dict of a kind to numbers [N, 2], in pixels of the photo; origin: its first pixel;
# variants: whether `_0`, `_1`, ... at the end of a name may be the same face again.
Format = namedtuple("Format", "find read origin variants")


def find_annotated(folder):
    """The faces of a folder.

    folder: Path.
    Returns: (the name of its format, list of Annotation); (None, []) where it holds none of FORMATS.
    Raises UserError: a list of faces cannot be read; the message names it.
    """
    for name, form in FORMATS.items():
        try:
            found = [Annotation(*face, name) for face in form.find(folder)]
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
        if found:
            return name, found
    return None, []


def read_points(annotation):
    """The landmarks of a face, of each kind that is known.

    Returns: dict of one of LANDMARK_TYPES to float64 [68, 2], x and y in pixels of the photo, whose first is 0, 0.
    Raises UserError: they cannot be read, are of another number, not finite, or not all there.
    """
    form = FORMATS[annotation.format]
    try:
        known = form.read(annotation.points)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from None
    found = {}
    for kind, points in known.items():
        if points.shape != (LANDMARKS, 2) or points.dtype.kind not in "fiu":
            raise UserError(f"{kind} is {points.dtype} {list(points.shape)}, not numbers [{LANDMARKS}, 2]")
        if not np.isfinite(points).all():
            raise UserError(f"{kind} holds NaN or infinite points")
        if (empty := np.isin(points, PLACEHOLDERS).all(-1)).any():
            raise UserError(f"point {empty.argmax()} of {kind} is a placeholder, not a position: {points[empty][0]}")
        found[kind] = points.astype(np.float64) - form.origin
    return found


def source_of(annotation):
    """Where the points of a face are written down, for a message: a file, with the line where it lists many."""
    points = annotation.points
    return f"{points.path}, line {points.line}" if isinstance(points, Row) else str(points)


# 300W_LP (contract 1), AFLW2000-3D


def _find_300w_lp(folder):
    for path in sorted(folder.glob("landmarks/*/*_pts.mat")):
        group, stem = path.parent.name, path.name.removesuffix("_pts.mat")
        yield f"{group}/{stem}", path, folder / group / f"{stem}.jpg"


def _read_300w_lp(path):
    mat = read_mat(path, LANDMARK_TYPES)
    if "pts_2d" not in mat:
        raise UserError("no pts_2d in the MAT file")
    return mat


def _find_fits(name, folder):
    paths = sorted(folder.rglob("*.mat"))
    for path in paths:
        if path.with_suffix(".jpg").exists():
            with contextlib.suppress(UserError):  # the first readable one tells what all are
                if name in read_mat(path, [name]):
                    yield from ((f"{path.parent.name}/{path.stem}", path, path.with_suffix(".jpg")) for path in paths)
                return


def _read_fit(name, kind, path):
    mat = read_mat(path, [name])
    if name not in mat:
        raise UserError(f"no {name} in the MAT file")
    return {kind: mat[name][:2].T}  # pt3d_68 has the depth too


# 300-W


def _find_pts(folder):
    for path in sorted(folder.rglob("*.pts")):
        photos = (path.with_suffix(suffix) for suffix in PICTURES)
        photo = next((photo for photo in photos if photo.exists()), path.with_suffix(PICTURES[0]))
        yield f"{path.parent.name}/{path.stem}", path, photo


def _read_pts(path):
    body = re.search(r"\{(.*)\}", path.read_text(**TEXT), re.DOTALL)
    return {"pts_2d": _read_numbers(body[1].split() if body else [])}


# Lists: WFLW; dlib, imglab; points.csv


def _read_row(count, chosen, row):
    """The chosen ones of the `count` points of a Row."""
    points = _read_numbers(row.numbers.split())
    if len(points) != count:
        raise UserError(f"{len(points)} points, not {count}")
    return {"pts_2d": points[chosen]}


def _read_numbers(words):
    try:
        return np.array(words, np.float64).reshape(-1, 2)
    except ValueError:
        raise UserError("the points are not pairs of numbers") from None


class _Photos:
    """The photos of a folder, as the lists in it name them, and the faces of each."""

    def __init__(self, folder):
        self.folder, self.faces, self.known = folder, {}, {}
        for path in sorted(folder.rglob("*")):
            if path.suffix in PICTURES:
                parts = path.relative_to(folder).parts
                for i in range(len(parts)):
                    name = "/".join(parts[i:])
                    self.known[name] = None if name in self.known else path  # None: which one is meant?

    def find(self, name, source):
        """The Path of a photo by the name that the list `source` gives it: from there, or anywhere in the folder.

        It never leaves the folder: of a name that does, the end counts.
        """
        parts = Path(name.replace("\\", "/").replace("\0", "")).parts
        direct = Path(os.path.normpath(source.parent.joinpath(*parts)))
        if direct.is_relative_to(self.folder) and os.path.exists(direct):
            return direct
        parts = [part for part in parts if part not in ("/", "..")] or ["nameless"]
        return self.known.get("/".join(parts)) or self.known.get(parts[-1]) or source.parent.joinpath(*parts)

    def add(self, name, source, line, numbers):
        """Yields the name, points and photo of the next face of a photo; nothing if another list had it already."""
        photo = self.find(name, source)
        faces = self.faces.setdefault(photo, [])
        if numbers not in faces:
            faces.append(numbers)
            number = f"#{len(faces) - 1}" if len(faces) > 1 else ""
            yield f"{photo.parent.name}/{photo.stem}{number}", Row(source, line, numbers), photo


def _find_wflw(folder):
    photos = None
    for path in sorted(folder.rglob("list_98pt_*.txt")):
        photos = photos or _Photos(folder)
        for line, text in enumerate(path.read_text(**TEXT).splitlines(), 1):
            if words := text.split():
                yield from photos.add(words[-1], path, line, " ".join(words[:196]))


def _find_dlib(folder):
    photos = None
    for path in sorted(folder.rglob("*.xml")):
        photos = photos or _Photos(folder)
        for name, line, parts in _read_imglab(path):
            numbers = " ".join(f"{parts[i][0]} {parts[i][1]}" for i in range(LANDMARKS) if i in parts)
            yield from photos.add(name, path, line, numbers)


def _read_imglab(path):
    """The faces of an imglab file: list of (name of the photo, line of the box, dict of a part's number to x and y, as
    they are written)."""
    faces, image = [], ""

    def start(tag, attributes):
        nonlocal image
        if tag == "image":
            image = attributes.get("file", "")
        elif tag == "box":
            faces.append((image, parser.CurrentLineNumber, {}))
        elif tag == "part" and faces:
            number = attributes.get("name", "")
            faces[-1][2][int(number) if number.isdecimal() else number] = attributes.get("x"), attributes.get("y")

    def refuse(*_):  # entities can grow without end
        raise UserError("it defines entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EntityDeclHandler = start, refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, UserError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise UserError(f"{path}: not a readable XML file: {error}") from None
    return [face for face in faces if face[2]]


def _find_csv(folder):
    names = [f"{axis}{i}" for i in range(LANDMARKS) for axis in "xy"]
    photos = None
    for path in sorted(folder.rglob("*.csv")):
        with open(path, newline="", **TEXT) as file:
            rows = csv.DictReader(file)
            try:
                if not {"picture", *names} <= set(rows.fieldnames or ()):
                    continue
                photos = photos or _Photos(folder)
                for row in rows:
                    if row["x0"]:  # a picture without a face has no points
                        numbers = " ".join(row[name] or "none" for name in names)
                        yield from photos.add(row["picture"], path, rows.line_num, numbers)
            except csv.Error as error:
                raise UserError(f"{path}, line {rows.line_num}: {error}") from None


_read_68 = functools.partial(_read_row, LANDMARKS, slice(None))
FORMATS = {
    "300W_LP": Format(_find_300w_lp, _read_300w_lp, 0, True),
    "WFLW list": Format(_find_wflw, functools.partial(_read_row, 98, WFLW_68), 0, False),
    "dlib XML": Format(_find_dlib, _read_68, 0, False),
    "300-W .pts": Format(_find_pts, _read_pts, 1, False),
    "AFLW2000-3D": Format(
        functools.partial(_find_fits, "pt3d_68"), functools.partial(_read_fit, "pt3d_68", "pts_3d"), 0, False
    ),
    "300W_LP without landmarks/": Format(
        functools.partial(_find_fits, "pt2d"), functools.partial(_read_fit, "pt2d", "pts_2d"), 0, True
    ),
    "points.csv of test_pb.py": Format(_find_csv, _read_68, 0, False),
}
