"""examples/web/ in a real browser: Chromium without a window, told what to do through its DevTools pipe."""

import contextlib
import csv
import fcntl
import http.server
import importlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from functools import partial

import cv2
import numpy as np
import pytest
from conftest import REPO, call

from landmark import load_model
from landmark.export import FORMATS
from landmark.points import OPENINGS
from landmark.pose import estimate_pose

WEB = REPO / "examples" / "web"
CHROMIUM = shutil.which("chromium")
INSTALLED = "node_modules/.package-lock.json"  # what npm writes last
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --remote-debugging-pipe --window-size=1280,800"
).split()
CAMERA = "--use-fake-device-for-media-stream"
TEXT = "document.getElementById({!r}).textContent".format
DONE = f"{TEXT('error')} || / in /.test({TEXT('status')}) && {TEXT('status')}"


@pytest.fixture(scope="module")
def site(tmp_path_factory, request):
    """The folder that examples/web/build.sh fills."""
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    package = request.config.cache.mkdir("web")
    with (package / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other worker may be installing it
        if not (package / INSTALLED).exists():
            if not shutil.which("npm"):
                pytest.skip("no npm: apt-get install npm")
            shutil.copy(WEB / "package.json", package)
            npm = "npm install --no-audit --no-fund --fetch-retries=0 --fetch-timeout=60000 --prefix".split()
            done = subprocess.run([*npm, package], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no onnxruntime-web: {done.stderr.strip()}")
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(WEB, root / "examples" / "web", ignore=lambda *_: ["node_modules"])
    (root / "examples" / "web" / "node_modules").symlink_to(package / "node_modules")
    (root / "examples" / "photos").symlink_to(REPO / "examples" / "photos")
    (root / "models").symlink_to(REPO / "models")
    build = ["bash", root / "examples" / "web" / "build.sh", root / "site"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "site"


@contextlib.contextmanager
def serve(folder):
    """The address of a server of a folder, as any static server."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Browser:
    """A page of Chromium: https://chromedevtools.github.io/devtools-protocol/, each message ended by a zero byte."""

    def __init__(self, write, read, folder):
        self.pipes, self.number, self.session, self.folder = (write, read), 0, {}, folder
        self("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self("Page.enable")

    def __call__(self, method, **params):
        write, read = self.pipes
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | self.session
        write.write(json.dumps(message).encode() + b"\0")
        write.flush()
        while True:
            answer = json.loads(b"".join(iter(lambda: read.read(1), b"\0")))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression):
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition, seconds=25):
        end = time.monotonic() + seconds
        while not (value := self.evaluate(condition)):
            assert time.monotonic() < end, self.evaluate("document.body.innerText")
            time.sleep(0.05)
        return value

    def open(self, address):
        """Opens the page: what it says of its first picture."""
        self("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && !!document.getElementById('status')")
        return self.until(DONE)

    def click(self, name):
        self.evaluate(f"document.getElementById({name!r}).click()")

    def choose(self, picture):
        """Gives the page a picture, as a user does: what it says then."""
        self.evaluate(f"{TEXT('status')} = ''")
        self.evaluate(f"{TEXT('error')} = document.getElementById('file').value = ''")
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(picture)])
        return self.until(DONE)

    def save(self, button, name):
        """The Path of the file that a button downloads."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        self.click(button)
        end = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < end, name
            time.sleep(0.05)
        return path


@contextlib.contextmanager
def browse(folder, *flags):
    (theirs_in, write), (read, theirs_out) = os.pipe(), os.pipe()
    # Chromium reads from 3 and writes to 4.
    command = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
    arguments = ["bash", "-c", command, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    with subprocess.Popen(arguments, pass_fds=[theirs_in, theirs_out], stderr=subprocess.DEVNULL) as process:
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            with open(write, "wb") as to, open(read, "rb") as back:
                yield Browser(to, back, folder)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def page(site, tmp_path_factory):
    """A Browser with the page open, its first picture done."""
    with serve(site) as address, browse(tmp_path_factory.mktemp("browser")) as browser:
        assert browser.open(address) == "1 face in astronaut.jpg"
        yield browser


PHOTO = REPO / "examples" / "photos" / "astronaut.jpg"


def paste(picture, photo, centre, degrees, side):
    """Lays the photo of the astronaut, turned clockwise, into a picture, in place."""
    height, width = photo.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, side / height)
    matrix[:, 2] += centre - np.array([width / 2, height / 2])
    size = picture.shape[1::-1]
    mask = cv2.warpAffine(np.full([height, width], 255, np.uint8), matrix, size)
    picture[mask > 127] = cv2.warpAffine(photo, matrix, size)[mask > 127]


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """The Path of a picture with five faces, tilted by up to 30 degrees."""
    photo, picture = cv2.imread(str(PHOTO))[:330, 60:400], np.full([560, 900, 3], 150, np.uint8)
    places = [(180, 190, 0, 330), (450, 400, -20, 260), (700, 170, 30, 300), (110, 450, -10, 200), (760, 450, 0, 200)]
    for i, (x, y, degrees, side) in enumerate(places):
        paste(picture, photo[:, :: 1 - 2 * (i % 2)], (x, y), degrees, side)
    path = tmp_path_factory.mktemp("group") / "group, all.png"
    cv2.imwrite(str(path), picture)
    return path


def read_table(path):
    """The rows of a points.csv: list of dicts; its header, list."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        return [*rows], rows.fieldnames


def points_of(row):
    return np.array([[float(row[f"{axis}{i}"]) for axis in "xy"] for i in range(68)])


def by_place(faces):
    """Faces from left to right: their scores are too close to say which is first."""
    return sorted(faces, key=lambda face: (points_of(face) if isinstance(face, dict) else face.points)[30, 0])


def differences(rows, faces):
    """How far the points of points.csv are from some Faces, in sides of the crop: float64 [N, 68, 2]."""
    assert len(rows) == len(faces)
    sides = [np.linalg.norm(face.box[[1, 3]] - face.box[0], axis=-1) for face in by_place(faces)]
    pairs = zip(by_place(rows), by_place(faces), sides, strict=True)
    return np.array([(points_of(row) - face.points) / size for row, face, size in pairs])


def test_the_constants_are_those_of_the_python_code(monkeypatch):
    monkeypatch.syspath_prepend(WEB)
    assert importlib.import_module("constants").constants() == (WEB / "constants.js").read_text()


@pytest.mark.parametrize("model", sorted((REPO / "models").glob("landmark*.onnx")), ids=lambda path: path.stem)
def test_the_models_are_those_that_freeze_graph_writes(model, tmp_path):
    pytest.importorskip("tf2onnx")
    FORMATS["onnx"].convert(model.with_suffix(".pb"), tmp_path / "again.onnx", None)
    assert (tmp_path / "again.onnx").read_bytes() == model.read_bytes()


def test_the_page_is_small():
    """Its code without comments, and without what constants.py writes."""
    files = [path for path in WEB.iterdir() if path.suffix in (".js", ".html", ".css") and path.name != "constants.js"]
    lines = [line.strip() for path in files for line in path.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith(("//", "/**", "* "))]) < 600


def test_every_face_of_a_group_has_pythons_points(page, group):
    assert page.choose(group) == f"5 faces in {group.name}"
    rows, _ = read_table(page.save("csv", "points.csv"))
    faces = load_model()(cv2.imread(str(group)))
    assert np.abs(differences(rows, faces)).max() < 1e-3
    for row, face in zip(by_place(rows), by_place(faces), strict=True):
        angles = [float(row[name]) for name in face.pose._fields]
        np.testing.assert_allclose(angles, face.pose, atol=0.5)
        assert abs(float(row["score"]) - face.score) < 0.02


def test_a_picture_on_its_side_or_head_is_searched_in_all_turns(page, tmp_path):
    for turn in cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE:
        picture = cv2.rotate(cv2.imread(str(PHOTO))[:400], turn)
        cv2.imwrite(str(tmp_path / "turned.png"), picture)
        assert page.choose(tmp_path / "turned.png") == "1 face in turned.png"
        rows, _ = read_table(page.save("csv", "points.csv"))
        assert np.abs(differences(rows, load_model()(picture))).max() < 1e-3


def test_points_csv_is_that_of_test_pb_and_is_taken_as_labels(page, group, small_set, tmp_path, read_records):
    page.choose(group)
    saved = page.save("csv", "points.csv")
    call("test_pb", "--detect", "--images", group, "--output", tmp_path / "drawn")
    (theirs, header), (ours, columns) = read_table(tmp_path / "drawn" / "points.csv"), read_table(saved)
    assert columns == header
    assert saved.read_bytes().count(b"\r\n") == 6

    def form(row):  # of a number, its decimals: angles are written as short as they are
        return {name: re.sub(r"-?\d+(\.\d+)?", lambda found: str(len(found[1] or "")), row[name]) for name in header}

    for one, other in zip(by_place(ours), by_place(theirs), strict=True):
        openings = [[float(row[name]) for name in OPENINGS] for row in (one, other)]
        np.testing.assert_allclose(*openings, atol=2e-3)
        blank = dict.fromkeys(["yaw", "pitch", "roll", "face", *OPENINGS], "")
        one, other = (form(row) | blank for row in (one, other))
        assert one == other
        assert one["picture"] == other["picture"]

    labelled = tmp_path / "labelled"
    labelled.mkdir()
    shutil.copy(group, labelled)
    shutil.copy(saved, labelled)
    call("prepare_tfrecords", "--data", labelled, "--data", small_set, "--out", tmp_path / "records")
    records = [record for path in (tmp_path / "records").glob("*.tfrecords") for record in read_records(path)]
    assert sum(group.stem in name for name, *_ in records) == 5


def test_eyes_and_mouth_are_heights_over_widths(page):
    page.choose(PHOTO)
    (row,), _ = read_table(page.save("csv", "points.csv"))
    p = points_of(row)

    def span(i, j):
        return np.linalg.norm(p[i] - p[j])

    eyes = [(span(i + 1, i + 5) + span(i + 2, i + 4)) / (2 * span(i, i + 3)) for i in (36, 42)]
    expected = [*eyes, (span(61, 67) + span(62, 66) + span(63, 65)) / (3 * span(60, 64))]
    cells = [row[name] for name in ("eye_open_right", "eye_open_left", "mouth_open")]
    np.testing.assert_allclose([*map(float, cells)], expected, atol=2e-3)
    assert cells == [str(round(float(cell), 4)) for cell in cells]  # as Python writes them


def test_the_drawn_picture_shows_what_is_ticked(page):
    page.choose(PHOTO)
    original = cv2.imread(str(PHOTO)).astype(int)
    changed, parts = {}, "document.getElementById('parts').elements"
    for part in "points", "box", "pose", "score", "openings":
        page.evaluate(f"for (const box of {parts}) box.checked = box.value === {part!r}")
        page.evaluate("document.getElementById('parts').onchange()")
        drawn = cv2.imread(str(page.save("drawing", "astronaut drawn.jpg"))).astype(int)
        assert drawn.shape == original.shape
        changed[part] = int((np.abs(drawn - original).max(-1) > 60).sum())
        (page.folder / "astronaut drawn.jpg").rename(page.folder / f"{part}.jpg")
    assert min(changed.values()) > 200, changed
    page.evaluate(f"for (const box of {parts}) box.checked = box.value === 'points'")


def test_another_model_can_be_chosen_and_says_its_licence(page):
    page.choose(PHOTO)
    there = {path.stem for path in (REPO / "models").glob("landmark*.onnx")}
    page.until(f"document.querySelectorAll('option').length === {len(there)}")
    assert {*page.evaluate("[...document.querySelectorAll('option')].map(({ text }) => text)")} == there
    assert "Research only" in page.evaluate(TEXT("licence"))
    page.evaluate("document.getElementById('speed').textContent = ''")
    page.evaluate("Object.assign(document.getElementById('model'), { value: 'landmark_3d' }).onchange()")
    page.until(TEXT("speed"))
    (row,), _ = read_table(page.save("csv", "points.csv"))
    faces = load_model(REPO / "models" / "landmark_3d.pb")(cv2.imread(str(PHOTO)))
    assert np.abs(differences([row], faces)).max() < 2e-3  # browsers decode JPEG a little differently
    assert "cheek" in page.evaluate(TEXT("licence"))
    page.evaluate("Object.assign(document.getElementById('model'), { value: 'landmark' }).onchange()")


def test_the_page_fits_a_telephone_and_has_names_for_all_controls(page):
    try:
        page("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=3, mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        narrow = "[...document.querySelectorAll('button:not([hidden]), select, fieldset label')]"
        assert page.evaluate(f"Math.min(...{narrow}.map((each) => each.getBoundingClientRect().height))") >= 44
    finally:
        page("Emulation.clearDeviceMetricsOverride")
    nodes = page("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "combobox", "progressbar", "image"}
    unnamed = [node for node in nodes if node["role"]["value"] in roles and not node.get("name", {}).get("value")]
    assert not unnamed
    named = {node["name"]["value"] for node in nodes if node["role"]["value"] == "button"}
    assert {"Choose a picture", "Start the camera", "Save points.csv"} <= named


def test_pictures_that_cannot_be_opened_say_what_to_do(page, tmp_path):
    for name, words in {"a.heic": "iPhone", "b.jpg": "JPEG, PNG or WebP"}.items():
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic and more")
        assert words in page.choose(tmp_path / name)
    assert page.choose(PHOTO) == "1 face in astronaut.jpg" and not page.evaluate(TEXT("error"))


@pytest.mark.parametrize(
    "event", ["DragEvent('drop', { dataTransfer: held })", "ClipboardEvent('paste', { clipboardData: held })"]
)
def test_a_picture_can_be_dropped_and_pasted(event, page):
    page.evaluate(f"{TEXT('status')} = ''")
    page.evaluate(f"""(async () => {{
        const photo = await (await fetch("astronaut.jpg")).blob(), held = new DataTransfer();
        held.items.add(new File([photo], "mine.jpg", {{ type: "image/jpeg" }}));
        document.dispatchEvent(new {event});
    }})()""")
    assert page.until(DONE) == "1 face in mine.jpg"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A video file for Chromium's camera: a face that lies down from the first second to the fourth, and another that
    comes in from the right in the third."""
    photo, frames = cv2.imread(str(PHOTO))[:330, 60:400], []
    for seconds in np.arange(0, 14, 1 / 30):
        frame = np.full([480, 640, 3], 150, np.uint8)
        paste(frame, photo, (200, 260), 90 * np.clip((seconds - 1) / 3, 0, 1), 300)
        paste(frame, photo[:, ::-1], (780 - 280 * np.clip((seconds - 3) / 1.5, 0, 1), 200), 0, 240)
        frames.append(cv2.imencode(".jpg", frame)[1].tobytes())
    path = tmp_path_factory.mktemp("film") / "camera.mjpeg"
    path.write_bytes(b"".join(frames))
    return path


def test_faces_keep_their_numbers_as_they_tilt_and_come_in(site, film, tmp_path):
    flags = CAMERA, f"--use-file-for-fake-video-capture={film}", "--use-fake-ui-for-media-stream"
    with serve(site) as address, browse(tmp_path, *flags) as browser:
        browser.open(address)
        browser.click("camera")
        browser.until(rf"/Face 0:.* roll (8\d|9\d)°.*\nFace \d/.test({TEXT('numbers')})", 30)
        rows, _ = read_table(browser.save("csv", "points.csv"))
        browser.click("stop")
    first = [row for row in rows if row["face"] == "0"]
    number = rows[-1]["face"]  # of the one that came in: half a face at the edge may have been found, and lost again
    assert number > "0"
    assert [int(row["picture"]) for row in first] == [*range(int(first[0]["picture"]), int(rows[-1]["picture"]) + 1)]
    later = [int(row["picture"]) for row in rows if row["face"] == number]
    assert later == [*range(later[0], later[-1] + 1)] and later[-1] == int(rows[-1]["picture"])
    assert min(float(row["roll"]) for row in first) < 10 and max(float(row["roll"]) for row in first) > 80
    angles = estimate_pose(points_of(first[-1]))
    assert abs(angles.roll - float(first[-1]["roll"])) < 1
    seconds = [float(row["seconds"]) for row in first]
    assert seconds == sorted(seconds) and (first[0]["width"], first[0]["height"]) == ("640", "480")


def test_what_the_camera_lacks_is_said(site, tmp_path):
    with serve(site) as address:
        port = address.rstrip("/").rpartition(":")[2]
        with browse(tmp_path, "--host-resolver-rules=MAP page.test 127.0.0.1") as browser:
            browser.open(f"http://page.test:{port}/")
            browser.click("camera")
            assert "https" in browser.until(TEXT("error"))
            browser.open(address)
            browser("Browser.grantPermissions", permissions=["videoCapture"])
            browser.click("camera")
            assert "No camera was found" in browser.until(TEXT("error"))
            assert browser.choose(PHOTO) == "1 face in astronaut.jpg"
            refuse = "async () => { throw new DOMException('', 'NotReadableError') }"
            browser.evaluate(f"navigator.mediaDevices.getUserMedia = {refuse}")
            browser.click("camera")
            assert "Another program" in browser.until(TEXT("error"))
        with browse(tmp_path, CAMERA) as browser:
            browser.open(address)
            browser("Browser.setPermission", permission={"name": "camera"}, setting="denied", origin=address)
            browser.click("camera")
            assert "Allow it" in browser.until(TEXT("error"))


def test_a_page_that_lacks_something_says_what(site, tmp_path):
    with serve(site) as address, browse(tmp_path) as browser:
        script = browser("Page.addScriptToEvaluateOnNewDocument", source="delete globalThis.WebAssembly")
        assert "no WebAssembly" in browser.open(address)
        browser("Page.removeScriptToEvaluateOnNewDocument", **script)
    shutil.copytree(site, tmp_path / "less")
    (tmp_path / "less" / "models" / "retinaface.onnx").unlink()
    with serve(tmp_path / "less") as address, browse(tmp_path / "other") as browser:
        assert "not on its server" in browser.open(address)


def test_a_product_can_keep_the_free_model_alone(site, tmp_path):
    """As examples/web/README.md says it."""
    shutil.copytree(site, tmp_path / "free")
    for name in "landmark", "landmark_3d":
        (tmp_path / "free" / "models" / f"{name}.onnx").unlink()
    for name, before, after in ("index.html", ">", "<"), ("offline.js", "models/", ".onnx"):
        path = tmp_path / "free" / name
        path.write_text(path.read_text().replace(f"{before}landmark{after}", f"{before}landmark_free{after}"))
    with serve(tmp_path / "free") as address, browse(tmp_path) as browser:
        assert browser.open(address) == "1 face in astronaut.jpg"
        browser.until("navigator.serviceWorker.controller?.state === 'activated'")  # all of its files are there
        assert browser.evaluate("[...document.getElementById('model').options].map(({text}) => text)") == [
            "landmark_free"
        ]


def test_it_opens_without_a_network_and_nothing_leaves_the_host(site, tmp_path):
    log = tmp_path / "net.json"
    with browse(tmp_path, f"--log-net-log={log}") as browser:
        with serve(site) as address:
            browser.open(address)
            assert not browser.evaluate("crossOriginIsolated")
            browser.until("navigator.serviceWorker.controller?.state === 'activated'")
        browser.evaluate(f"{TEXT('status')} = ''")
        browser("Page.reload")
        assert browser.until(f"document.readyState === 'complete' && ({DONE})") == "1 face in astronaut.jpg"
        assert browser.evaluate("crossOriginIsolated")  # so the runtime has threads
        browser("Browser.close")
    events = [line for line in log.read_text().splitlines() if '"initiator":"http' in line]
    requests = [json.loads(line.rstrip(","))["params"]["url"] for line in events]  # Chromium's own have no initiator
    assert len(requests) > 20 and {url.startswith((address, f"blob:{address}")) for url in requests} == {True}, requests
