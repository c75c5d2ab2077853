"""examples/web/ in a real browser: Chromium without a window, told what to do through its DevTools pipe."""

import contextlib
import http.server
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
from conftest import REPO

import landmark.inference
import landmark.points
from landmark.inference import REFINEMENTS, predict_twice, refine_face
from landmark.points import box_corners, turn_back
from landmark.pose import AXES, estimate_tilt
from landmark.runtimes import load_session

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --remote-debugging-pipe --use-fake-ui-for-media-stream"
    " --use-fake-device-for-media-stream"
).split()


@pytest.fixture(scope="module")
def site(tmp_path_factory, request):
    """The address of a server of models/landmark.onnx, images/ and examples/web/ with its package."""
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    package = request.config.cache.mkdir("web")
    if not (package / "node_modules" / "onnxruntime-web").exists():
        if not shutil.which("npm"):
            pytest.skip("no npm: apt-get install npm")
        shutil.copy(REPO / "examples" / "web" / "package.json", package)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0", "--prefix", package]
        done = subprocess.run(npm, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no onnxruntime-web: {done.stderr.strip()}")
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(REPO / "images", root / "images")
    shutil.copytree(REPO / "examples" / "web", root / "examples" / "web", ignore=lambda *_: ["node_modules"])
    (root / "examples" / "web" / "node_modules").symlink_to(package / "node_modules")
    shutil.copy(REPO / "models" / "landmark.onnx", root)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/examples/web/"
        server.shutdown()


class Browser:
    """A page of Chromium: https://chromedevtools.github.io/devtools-protocol/, each message ended by a zero byte."""

    def __init__(self, write, read):
        self.pipes, self.number, self.session = (write, read), 0, {}
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

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
        answer = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            assert time.monotonic() < end, self.evaluate("document.body.innerText")
            time.sleep(0.05)


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
                yield Browser(to, back)
        finally:
            process.kill()


SAID = "document.querySelector('#said')?.textContent ?? ''"


def read_points(browser):
    return np.array(browser.evaluate("document.querySelector('#points').textContent").split(), float).reshape(-1, 2)


def choose(browser, picture):
    """Gives the page a picture, as a user does."""
    browser.evaluate("document.querySelector('#said').textContent = ''")
    root = browser("DOM.getDocument")["root"]["nodeId"]
    node = browser("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser("DOM.setFileInputFiles", nodeId=node, files=[str(picture)])
    browser.until(f"({SAID}).includes(' ms')")


def drag(browser, box):
    """Draws a box, in pixels of the picture, with the mouse."""
    place = "(({x, y, width}, {width: pixels}) => [x, y, width / pixels])"
    canvas = "document.querySelector('canvas')"
    x, y, scale = browser.evaluate(f"{place}({canvas}.getBoundingClientRect(), {canvas})")
    browser.evaluate("document.querySelector('#said').textContent = ''")
    for kind, corner in ("mousePressed", box[:2]), ("mouseReleased", box[2:]):
        at = {"x": x + scale * corner[0], "y": y + scale * corner[1]}
        browser("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)
    browser.until(f"({SAID}).includes(' ms')")


def find(predict, picture, box):
    """What the page does, by landmark/inference.py: the points in a box, refined."""
    face = predict_twice(predict, picture, box_corners(box))
    for _ in range(REFINEMENTS):
        face = refine_face(predict, picture, face.points)
    return face.points, np.linalg.norm(face.box[[1, 3]] - face.box[0], axis=-1)


def test_the_page_has_the_constants_of_the_python_code():
    script = (REPO / "examples" / "web" / "landmarks.js").read_text()
    numbers = dict(re.findall(r"\b([A-Z_]+) = ([\d.]+)(?=[,;])", script))
    python = vars(landmark.points) | vars(landmark.inference) | {"SIDE": landmark.points.IMAGE_SIZE}
    assert {"NO_FACE", "NUDGE", "OPENING"} <= numbers.keys()
    assert {name: float(number) for name, number in numbers.items()} == {name: python[name] for name in numbers}
    axes = re.search(r"AXES = \[(.*?)^];", script, re.DOTALL | re.MULTILINE)[1]
    axes = np.array(re.findall(r"-?[\d.]+", axes), float).reshape(AXES.shape)
    np.testing.assert_allclose(axes, 1000 * AXES, atol=0.006)


def place(face, x, y):
    """A face in a larger grey picture."""
    picture = np.full([480, 640, 3], 128, np.uint8)
    picture[y : y + face.shape[0], x : x + face.shape[1]] = face
    return picture


def test_the_page_finds_and_follows_the_points_that_python_finds(site, tmp_path):
    face = cv2.imread(str(REPO / "images" / "astronaut.jpg"))
    height, width = face.shape[:2]
    expected, sides = find(load_session(REPO / "models" / "landmark.pb"), face, (0, 0, width, height))
    small = cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    # A camera that sees the head tilt to either side.
    middle = place(small, (640 - width) // 2, (480 - height) // 2)
    turns = [cv2.getRotationMatrix2D((320, 240), 60 * np.sin(angle), 1) for angle in np.linspace(0, 2 * np.pi, 120)]
    frames = [cv2.warpAffine(middle, turn, (640, 480), borderMode=cv2.BORDER_REPLICATE) for turn in turns]
    (tmp_path / "camera.mjpeg").write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames))
    cv2.imwrite(str(tmp_path / "aside.png"), place(small, 20, 30))

    with browse(tmp_path, f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}") as browser:
        browser("Page.navigate", url=site)
        browser.until(f"({SAID}).includes(' ms')")
        np.testing.assert_allclose((read_points(browser) - expected) / sides, 0, atol=1e-3)

        choose(browser, tmp_path / "aside.png")
        assert "no face" in browser.evaluate(SAID) and not len(read_points(browser))
        drag(browser, [20, 30, 20 + width, 30 + height])
        expected, sides = expected / 2, sides / 2
        np.testing.assert_allclose((read_points(browser) - [20, 30] - expected) / sides, 0, atol=0.02)

        browser.evaluate("document.querySelector('#points').textContent = ''")
        browser.evaluate("document.querySelector('#camera').click()")
        seen = set()
        while not (seen and min(seen) < -30 and max(seen) > 30):
            browser.until("document.querySelector('#points').textContent")
            points = read_points(browser)
            tilt = round(estimate_tilt(points) - estimate_tilt(expected))
            # Without the jaw, which the grey cuts off.
            upright, still = (part[17:] - part[17:].mean(0) for part in (points @ turn_back(tilt), expected))
            assert np.abs((upright - still) / sides).max() < 0.12
            seen.add(tilt)
