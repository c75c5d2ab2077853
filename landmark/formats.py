"""The layouts of annotated photos that --data takes: where the faces are, and what their points are."""

import csv
import functools
import io
import json
import os
import re
import sys
from collections import Counter, defaultdict, namedtuple
from pathlib import Path
from xml.etree.ElementTree import TreeBuilder
from xml.parsers import expat

import numpy as np

from landmark.cli import UserError
from landmark.mat import read_mat
from landmark.outputs import list_written
from landmark.pictures import decode_picture
from landmark.points import LANDMARK_TYPES, LANDMARKS

PLACEHOLDERS = 0, -1  # x and y of points that were not found, or cannot be seen, in some sets
MIN_POINTS = 20  # of the 68 that a face must have
ABOUT_68 = range(60, 81)  # so many points are meant to be a face, which is left out by name if they are not 68
MISCOUNTED = {2 * count for count in ABOUT_68} - {2 * LANDMARKS}
MISSING = "nan", "nan"
PICTURES = ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"
# The 98 points of WFLW that are the 68: every other one of the jaw; the upper edge of each brow; the nose; the corners
# of the eyes and the two points on each lid; the mouth.
WFLW_68 = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60)]
WFLW_68 += [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 96)]
POINT_COLUMNS = [f"{axis}{i}" for i in range(LANDMARKS) for axis in "xy"]  # of points.csv
TEST_PB_COLUMNS = {"yaw", "pitch", "roll", "score", "spread0"}  # with any of these, the points are upright

# One labelled face. points: the Row that its points are read from; photo: Path; format: a name in FORMATS; name:
# <SET>/<stem>, with #1, #2, ... for further faces of a photo; "" until all faces are known.
Annotation = namedtuple("Annotation", "points photo format name", defaults=[""])

# Where the points of a face are written down. path: of the file. In a file that lists many faces, line: from 1;
# numbers: list of str, x and y of its points; size: (width, height) of the picture that they are in, numbers or None
# each. upright: whether they are in the picture turned upright by its EXIF orientation, not in stored pixels, where the
# size fits both.
Row = namedtuple("Row", "path line numbers size upright", defaults=[None, None, (None, None), False])

# find: function of a Folder that yields (Row, photo) of each face; read: function of a Row that returns a dict of a
# landmark type to numbers [N, 2], in pixels of the photo; origin: its first pixel; variants: whether `_0`, `_1`, ... at
# the end of a name may be the same face again; rank: where two formats label one face, the lower one wins; of equal
# ones, both must have the same points.
Format = namedtuple("Format", "find read origin variants rank")


class Folder:
    """The files below a folder, sorted; links to folders are followed, each real folder once. Hidden files and folders
    (names that begin with a dot) and files that a script of ours wrote (`written`) are left out.

    pictures: the picture files among them; labelled: photos that have labels so far.
    """

    def __init__(self, path):
        self.path, self.files, self.written, self.labelled, seen = Path(path), [], set(), set(), set()
        for place, folders, names in os.walk(path, followlinks=True, onerror=_report):
            real = os.path.realpath(place)
            folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
            if real not in seen:
                seen.add(real)
                self.written |= {Path(place, name) for name in list_written(Path(place), PICTURES)}
                self.files += [Path(place, name) for name in names if name[0] != "."]
        self.files = sorted({*self.files} - self.written)
        self.pictures = [path for path in self.files if path.suffix.lower() in PICTURES]

    def matching(self, pattern):
        """The files whose names match a regular expression."""
        return [path for path in self.files if re.fullmatch(pattern, path.name, re.IGNORECASE)]

    @functools.cached_property
    def _by_stem(self):
        """dict of (folder, stem) to the pictures there, in the order of PICTURES."""
        found = defaultdict(list)
        for path in sorted(self.pictures, key=lambda path: PICTURES.index(path.suffix.lower())):
            found[path.parent, path.stem].append(path)
        return found

    @functools.cached_property
    def by_end(self):
        """dict of (folder, an end of a path below it, from the name on) to the pictures there."""
        found = defaultdict(list)
        for path in self.pictures:
            for up in path.parents[: len(path.relative_to(self.path).parts)]:
                for end in _ends(path.relative_to(up).as_posix()):
                    found[up, end].append(path)
        return found

    def photos_beside(self, path):
        """The Paths of the pictures beside a file of labels, the likeliest photo first; at least one, there or not."""
        return self._by_stem.get((path.parent, path.stem), [path.with_suffix(".jpg")])

    def photo_beside(self, path):
        """The Path of the photo beside a file of points. Raises UserError: there are several, of unequal size."""
        photos = self.photos_beside(path)
        if len(photos) > 1:
            shapes = {np.shape(decode_picture(photo.read_bytes())) for photo in photos if photo.exists()} - {()}
            if len(shapes) > 1:
                names = " and ".join(photo.name for photo in photos)
                raise UserError(f"{path}: {names} beside it are of unequal size: keep the one that it labels")
        return photos[0]

    def photos(self, names):
        """The Path of each photo that lists of faces name: dict of (Path of the list, name) to it.

        A name is a path from its list, inside the folder. Lists often lie elsewhere, or come from another computer:
        where there is no such file, the photo is the nearest picture whose path ends in the name, or in what is left of
        it without its first folders, which is printed. So that no other picture takes the place of one that is gone,
        - no other listed name may end so, and there may be no more such pictures than lists with that name;
        - it may be no further from the list than the list's other photos;
        - if some names of the list are right, it must have the whole name.
        The last two hold for names that do not lead out of the list's folder.
        """
        paths = {name: _slashed(name) for _, name in names}
        inside = {name: [part for part in path.split("/") if part.strip(".")] for name, path in paths.items()}
        inside = {name: "/".join(parts or ["nameless"]) for name, parts in inside.items()}
        ends = Counter(end for path in {*inside.values()} for end in _ends(path))
        leads_out = {name for name, path in paths.items() if re.match(r"/|\w:/|\.\./", path)}
        counts, listed = Counter(source for source, _ in names), Counter(inside[name] for _, name in names)
        lists = {source: source if counts[source] > 1 else source.parent for source in counts}  # labelme's are one
        exact = {(source, name): photo for source, name in names if (photo := self.find_named(source, name))}
        depths = Counter({lists[source]: len(source.parents) for source, name in exact if name not in leads_out})
        right, found, shortened = {*depths}, {}, []

        for source, name in names - exact.keys():
            is_strict = lists[source] in right and name not in leads_out
            own = [end for end in _ends(inside[name]) if ends[end] == 1 and not (is_strict and end != inside[name])]
            if hit := self._search(source, own, listed):
                found[source, name] = hit
                if name not in leads_out:
                    depths[lists[source]] = max(depths[lists[source]], hit[2])

        photos = {(source, name): source.parent / inside[name] for source, name in names} | exact
        for (source, name), (end, photo, depth) in sorted(found.items()):
            if depth >= depths[lists[source]] or name in leads_out:
                photos[source, name] = photo
                if end != inside[name]:
                    shortened.append(f"{name} of {source} is {photo}")
        if shortened:
            print(f"{len(shortened):,} photos are found by the end of their names: {shortened[0]}")
        return photos

    def find_named(self, source, name):
        """The Path of the picture to which a name leads from its list, None if there is none inside the folder."""
        photo = Path(os.path.normpath(source.parent / _slashed(name)))
        is_there = photo.is_relative_to(self.path) and photo not in self.written and os.path.isfile(photo)
        return photo if is_there else None

    def _search(self, source, ends, listed):
        """The first of the ends that leads to a single picture nearest to a list: (end, picture, the number of folders
        above both), or None; listed: dict of a name to the number of lists that have it."""
        for end in ends:
            up = next((up for up in source.parents if (up, end) in self.by_end), self.path)
            found, all_of_them = self.by_end.get((up, end), []), self.by_end.get((self.path, end), [])
            if len(found) == 1 and len(all_of_them) <= max(1, listed[end]):
                return end, found[0], len(up.parents) + 1


def _report(error):
    print(f"cannot read {error.filename}: {error.strerror}; left out", file=sys.stderr)


def _slashed(name):
    return name.replace("\\", "/").replace("\0", "")


def _ends(path):
    """The ends of a path, a str, from all of it to its name alone: list of str."""
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def find_annotated(folder):
    """The labelled faces of a folder (Path): dict of each format it holds to a list of Annotation.

    Raises UserError: a list of faces cannot be read; the message names it.
    """
    files, found = Folder(folder), {}
    for name, form in FORMATS.items():
        try:
            found[name] = [Annotation(points, photo, name) for points, photo in form.find(files)]
            files.labelled |= {face.photo for face in found[name] if len(face.points.numbers or ()) not in MISCOUNTED}
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    return {name: annotations for name, annotations in found.items() if annotations}


def read_points(annotation):
    """The landmarks of a face, of each type that is known; in stored pixels of the photo, unless its Row is `upright`.

    Returns: dict of one of LANDMARK_TYPES to float64 [68, 2], x and y in pixels of the photo, whose first is 0, 0; NaN
        for a point without a label.
    Raises UserError: they cannot be read, are of another number, infinite, or fewer than MIN_POINTS.
    """
    form = FORMATS[annotation.format]
    try:
        known = form.read(annotation.points)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from None
    found, wrong = {}, None
    for landmark_type, points in known.items():
        if points.shape != (LANDMARKS, 2) or points.dtype.kind not in "fiu":
            raise UserError(f"{landmark_type} is {points.dtype} {list(points.shape)}, not numbers [{LANDMARKS}, 2]")
        if np.isinf(points).any():
            raise UserError(f"{landmark_type} holds infinite points")
        missing = np.isin(points, PLACEHOLDERS).all(-1) | np.isnan(points).any(-1)
        if LANDMARKS - missing.sum() < MIN_POINTS:
            wrong = f"{landmark_type} has {LANDMARKS - missing.sum()} points, fewer than {MIN_POINTS}"
        else:
            found[landmark_type] = np.where(missing[:, None], np.nan, points.astype(np.float64) - form.origin)
    if not found:
        raise UserError(wrong)
    return found


def source_of(annotation):
    """Where the points of a face are written down, for a message: a file; of a list also the line, or the photo."""
    row = annotation.points
    if row.line:
        return f"{row.path}, line {row.line}"
    return f"{row.path}, {annotation.photo.name}" if row.numbers else str(row.path)


def rank_of(annotation):
    """The rank of an Annotation's format: see Format."""
    return FORMATS[annotation.format].rank


# MATLAB: 300W_LP, AFLW2000-3D


def _find_300w_lp(folder):
    for path in folder.matching(r".*_pts\.mat"):
        for root in path.parents[1:]:
            if root.name == "landmarks":
                group, stem = path.parent.relative_to(root), path.name.removesuffix("_pts.mat")
                yield Row(path), root.parent / group / f"{stem}.jpg"
                break


def _read_300w_lp(row):
    mat = read_mat(row.path, LANDMARK_TYPES)
    if "pts_2d" not in mat:
        raise UserError("no pts_2d in the MAT file")
    return mat


def _find_fits(name, folder):
    """MAT files with a variable `name`, and unreadable ones beside such, of photos without other labels."""
    holds = {}
    for path in folder.matching(r".*\.mat"):
        if (photo := folder.photos_beside(path)[0]) not in folder.labelled:
            try:
                holds[path, photo] = name in read_mat(path, [name])
            except (UserError, OSError):
                holds[path, photo] = None
    folders = {path.parent for (path, photo), is_held in holds.items() if is_held and photo.exists()}
    for (path, _), is_held in holds.items():
        if is_held is not False and path.parent in folders:
            yield Row(path), folder.photo_beside(path)


def _read_fit(name, landmark_type, row):
    mat = read_mat(row.path, [name])
    if name not in mat:
        raise UserError(f"no {name} in the MAT file")
    return {landmark_type: mat[name][:2].T}  # pt3d_68 has the depth too


# 300-W


def _find_pts(folder):
    for path in folder.matching(r".*\.pts"):
        yield Row(path), folder.photo_beside(path)


def _read_pts(row):
    body = re.search(r"\{(.*)\}", _read_text(row.path), re.DOTALL)
    return _read_68(row._replace(numbers=body[1].split() if body else []))


# Lists of faces


def _with_photos(find):
    """Turns a function of a Folder that yields (Row, name of its photo) for each face into the `find` of a Format."""

    def find_with_photos(folder):
        faces = [*find(folder)]
        photos = folder.photos({(row.path, name) for row, name in faces})
        return [(row, photos[row.path, name]) for row, name in faces]

    return find_with_photos


def _read_row(count, chosen, row):
    """The chosen ones of the `count` points of a Row."""
    points = _to_numbers(row.numbers)
    if len(points) != count:
        raise UserError(f"{len(points)} points, not {count}")
    return {"pts_2d": points[chosen]}


_read_68 = functools.partial(_read_row, LANDMARKS, slice(None))


def _to_numbers(words):
    try:
        return np.array(words, np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        raise UserError("the points are not pairs of numbers") from None


def _read_text(path):
    """A file's text, in UTF-8 or UTF-16, as its first bytes say; names in it may be any bytes."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if b"\0" in data[:2]:  # without a byte order mark
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


@_with_photos
def _find_wflw(folder):
    for path in folder.matching(r"list_98pt_.*\.txt"):
        for line, text in enumerate(_read_text(path).splitlines(), 1):
            if words := text.split(maxsplit=196):
                name = re.sub(r"^(\d+\s+){10}", "", words[-1])  # the face's box and attributes, in some of the lists
                yield Row(path, line, words[:-1]), name.strip()


@_with_photos
def _find_xml(folder):
    for path in folder.matching(r".*\.xml"):
        root = _parse_xml(path)
        if any(root.find(f"track/{shape}") is not None for shape in ("points", "skeleton")):
            raise UserError(f"{path}: CVAT's format for videos: export the task as CVAT for images")
        for image in root.iter("image"):
            is_cvat = "name" in image.keys()  # which shows photos upright, as imglab does not
            for group in image.iter():
                for words in _from_xml(group):
                    row = Row(path, group.get("line"), words, _size_of(image), is_cvat)
                    yield row, image.get("file", image.get("name", ""))


def _parse_xml(path):
    """The root Element of an XML file; each has the attribute `line`, an int, where it starts."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def start(tag, attributes):
        builder.start(tag, attributes | {"line": parser.CurrentLineNumber})

    def refuse(*_):  # entities can grow without end
        raise ValueError("it defines entities")

    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = start, builder.end, refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise UserError(f"{path}: not a readable XML file: {error}") from None
    return builder.close()


def _from_xml(group):
    """The words of the faces right below an Element: of dlib and imglab (<box> of <part name x y>), or of CVAT (<points
    points="x,y;...">, or a <skeleton> or the points of one group_id, of <points label="0">)."""
    faces, groups = [], {}
    for part in group.findall("part") if group.get("ignore", "0") == "0" else ():
        _add(groups, None, part.get("name", ""), [part.get("x"), part.get("y")])
    for points in group.findall("points"):
        places = [place.split(",") for place in points.get("points", "").split(";")]
        if len(places) > 1:
            faces.append(_words(places))
        else:
            place = places[0] if points.get("outside", "0") == "0" else MISSING
            _add(groups, points.get("group_id"), points.get("label", ""), place)
    return [*map(_in_order, groups.values()), *faces]


def _add(groups, key, name, place):
    """Adds a point to the dict `groups[key]`, for _in_order; keeps both of a repeated name, so that it is refused."""
    parts = groups.setdefault(key, {})
    parts[name + "+" * (name in parts)] = place


def _in_order(parts):
    """The words of a face's points, from a dict of each point's name, a number from 0 or from 1, to its two words.

    A missing point is "nan"; if the names do not number the points, there are too few words, which _read_68 refuses.
    """
    numbered = {int(name) if str(name).isdecimal() else name: words for name, words in parts.items()}
    first = 0 if 0 in numbered else 1
    is_told = first == 0 or {1, LANDMARKS} <= numbered.keys()
    if is_told and numbered.keys() <= {*range(first, first + LANDMARKS)}:
        return _words(numbered.get(i, MISSING) for i in range(first, first + LANDMARKS))
    return _words(numbered.values())[: 2 * LANDMARKS - 2]


def _words(places):
    return [word for place in places for word in place]


def _size_of(values):
    """(width, height) of a photo, numbers or None each, as a list gives them."""
    sizes = []
    for key in "width", "height":
        try:
            sizes.append(float(str(values.get(key) or "").strip()))
        except ValueError:
            sizes.append(None)
    return tuple(sizes)


@_with_photos
def _find_csv(folder):
    for path in folder.matching(r".*\.(csv|tsv|txt)"):
        lines = [*_read_text(path).splitlines(), ""]
        first = next((i for i, line in enumerate(lines) if line.strip()), 0)
        marked = re.fullmatch(r'"?sep=(.)"?', lines[first], re.IGNORECASE)  # Excel's own mark
        first += bool(marked)
        head = lines[first]
        if len({*POINT_COLUMNS} & {*re.findall(r"\w+", head.lower())}) < MIN_POINTS:
            if path.name.lower() == "points.csv" and max(map(head.count, ",;\t|")) >= 2 * LANDMARKS:
                raise UserError(f"{path}: its first line does not name the columns picture and x0 y0 ... x67 y67")
            continue
        separator = marked[1] if marked else max(",;\t|", key=head.count)
        rows = csv.DictReader(io.StringIO("\n".join(lines[first:])), delimiter=separator, strict=True)
        try:
            rows.fieldnames = [name.strip().lower() for name in rows.fieldnames]
            if missing := [name for name in ("picture", *POINT_COLUMNS) if name not in rows.fieldnames]:
                raise UserError(f"{path}: no column {missing[0]}; points.csv has picture and x0 y0 ... x67 y67")
            upright = not TEST_PB_COLUMNS.isdisjoint(rows.fieldnames)
            for row in rows:
                line = rows.line_num + first
                if any(row.get(None, ())):
                    raise UserError(f"{path}, line {line}: more cells than columns: put decimal commas in quotes")
                words = [(row[name] or "").strip().replace(",", ".") for name in POINT_COLUMNS]
                if any(words) and not row.get("seconds"):  # else a picture without a face, or a frame of a video
                    found = Row(path, line, [word or "nan" for word in words], _size_of(row), upright)
                    yield found, row["picture"] or ""
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num + first}: {error}") from None


@_with_photos
def _find_json(folder):
    for path in folder.matching(r".*\.json"):
        text = _read_text(path)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            if re.search(r'"(keypoints|shapes)"', text):
                raise UserError(f"{path}: not readable JSON: {error}") from None
            continue
        try:
            faces = [*_from_coco(content), *_from_labelme(content)] if isinstance(content, dict) else []
            for name, *_ in faces:
                os.fsencode(name)  # fails unless it can be the name of a file
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise UserError(f"{path}: not the JSON of COCO or labelme: {error!r}") from None
        for name, words, size, is_labelme in faces:
            yield Row(path, None, words, size, is_labelme), _beside(folder, path, name) if is_labelme else name


def _beside(folder, path, name):
    """The name of the photo of a labelme file: `name`, its imagePath; if there is no such file, of the photo beside it.

    Raises UserError: it may be either. Files that were renamed together still hold the old names; a picture of the same
    stem may be a mask.
    """
    there, said = folder.find_named(path, name), Path(_slashed(name))
    if there and said.stem == path.stem or not (beside := folder.photo_beside(path)).exists():
        return name
    if there or said.stem == path.stem and (folder.path, said.name) in folder.by_end:
        raise UserError(f"{path}: its imagePath is {name}, but {beside.name} lies beside it: correct the imagePath")
    return beside.name


def _from_coco(content):
    """Yields (photo's name, words, size, False) of the faces of COCO: keypoints x, y, and v, 0 if not labelled.

    Only of categories in which some face has about 68 keypoints.
    """
    annotations = content.get("annotations") if content.get("images") else None
    labelled = [face for face in annotations or () if face.get("keypoints")]
    categories = {face.get("category_id") for face in labelled if len(face["keypoints"]) // 3 in ABOUT_68}
    faces = [face for face in labelled if face.get("category_id") in categories]
    images, used = {}, {face["image_id"] for face in faces}
    for image in content["images"] if faces else ():
        if image["id"] in used and images.setdefault(image["id"], image)["file_name"] != image["file_name"]:
            raise ValueError(f"two images have the id {image['id']}")
    for face in faces:
        if not (image := images.get(face["image_id"])):
            raise ValueError(f"no image has the id {face['image_id']} of an annotation")
        x, y, seen = (face["keypoints"][i::3] for i in range(3))
        places = [place if is_seen else MISSING for *place, is_seen in zip(x, y, seen, strict=True)]
        yield image["file_name"], _words(places), _size_of(image), False


def _from_labelme(content):
    """Yields (photo's name, words, size, True) of the faces of labelme, which shows photos upright: a shape of many
    points, or the numbered points of one group_id. Polygons are faces only if they have about 68 points."""
    if not {"shapes", "imagePath"} <= content.keys():
        return
    size = _size_of({"width": content.get("imageWidth"), "height": content.get("imageHeight")})
    groups = {}
    for shape in content["shapes"]:
        points, label = shape["points"], str(shape.get("label"))
        if len(points) in ABOUT_68 or len(points) >= MIN_POINTS and shape.get("shape_type") != "polygon":
            yield content["imagePath"], _words(points), size, True
        elif len(points) == 1:
            _add(groups, shape.get("group_id"), label, points[0])
    for parts in groups.values():
        if len(parts) >= MIN_POINTS:
            yield content["imagePath"], _in_order(parts), size, True


FITS = functools.partial(_find_fits, "pt3d_68"), functools.partial(_find_fits, "pt2d")
FORMATS = {
    "300W_LP": Format(_find_300w_lp, _read_300w_lp, 0, True, 1),
    "WFLW list": Format(_find_wflw, functools.partial(_read_row, 98, WFLW_68), 0, False, 1),
    "dlib or CVAT XML": Format(_find_xml, _read_68, 0, False, 1),
    "300-W .pts": Format(_find_pts, _read_pts, 1, False, 1),
    "COCO or labelme JSON": Format(_find_json, _read_68, 0, False, 1),
    "AFLW2000-3D": Format(FITS[0], functools.partial(_read_fit, "pt3d_68", "pts_3d"), 0, False, 2),
    "300W_LP without landmarks/": Format(FITS[1], functools.partial(_read_fit, "pt2d", "pts_2d"), 0, True, 3),
    "points.csv of test_pb.py": Format(_find_csv, _read_68, 0, False, 0),
}
