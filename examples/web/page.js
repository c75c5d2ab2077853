// The page: takes a picture or the camera, has its faces found, and shows them.
import { drawFaces, openings, tableLines, tableOf } from "./outputs.js";

const MODELS = {
  landmark: "Jaw along the visible outline. Research only, no commercial use: the terms of its training photos.",
  landmark_3d: "Jaw where it is, behind a turned head's cheek. Research only, no commercial use: the same terms.",
  landmark_free: "Jaw along the visible outline. MIT licence: free to use, change and sell.",
};
const ADVICE = {
  NotAllowedError: "The camera is blocked for this page. Allow it by the icon beside the address, then start it again.",
  NotFoundError: "No camera was found. Connect one and start it again, or choose a picture.",
  NotReadableError: "Another program is using the camera. Close that program, then start the camera again.",
  HEIC: "This browser cannot open HEIC pictures. Save it as JPEG; iPhone: Settings, Camera, Formats, Most Compatible.",
  picture: "This is not a picture that the browser can open. Choose a JPEG, PNG or WebP file.",
  WebAssembly: "This browser has no WebAssembly, which runs the networks. Update it, or allow it in the settings.",
  insecure: "Browsers give the camera only to pages of https and of localhost. Open this page at such an address.",
  missing: "A file of this page is not on its server: examples/web/README.md lists them. Or the browser is too old.",
};
const MOST_LINES = 36000, TOLD_EVERY = 300; // of the camera's points.csv; milliseconds between the numbers shown

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), screen = canvas.getContext("2d"), video = document.createElement("video");
const frame = document.createElement("canvas"), pixels = frame.getContext("2d", { willReadFrequently: true });
const [finder, follower] = [0, 1].map(() => new Worker("worker.js", { type: "module" })), files = {};
let source = {}; // what is shown: {name, faces, lines of points.csv}, and of the camera {stream, facing}
let ready, following; // a promise that the finder has its model; a function that gives the follower its own, once

const failure = (name) => Object.assign(new Error(name), { name });
function fail(error) {
  $("error").textContent = ADVICE[error.name] ?? error.message;
  if ($("status").textContent.endsWith("…")) $("status").textContent = "";
}
/** The answer of a worker to a task; hands over the pixels of a picture. */
function ask(worker, task, given) {
  const { port1, port2 } = new MessageChannel(), pictures = given.picture ? [given.picture.data.buffer] : [];
  worker.postMessage({ task, given }, [port2, ...pictures]);
  return new Promise((resolve, reject) => {
    port1.onmessage = ({ data: { result, error } }) => (error ? reject(new Error(error)) : resolve(result));
  });
}
/** Downloads a file and moves the bar. */
async function download(path) {
  const response = await fetch(path), parts = [];
  if (!response.ok) throw failure("missing");
  $("bar").max += Number(response.headers.get("Content-Length"));
  for (let reader = response.body.getReader(), part; (part = (await reader.read()).value); parts.push(part)) {
    $("bar").value += part.length;
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function loadModel(name) {
  if (!globalThis.WebAssembly) throw failure("WebAssembly");
  [$("licence").textContent, $("loading").hidden] = [MODELS[name], false];
  const paths = ["runtime/ort-wasm-simd-threaded.wasm", `models/${name}.onnx`, "models/retinaface.onnx"];
  const loaded = Promise.all(paths.map((path) => (files[path] ??= download(path))));
  const [wasm, landmark, detector] = await loaded.finally(() => ($("loading").hidden = true));
  await ask(finder, "load", { wasm, landmark, detector, threads: 1 });
  const threads = crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  let loading;
  following = () => (loading ??= ask(follower, "load", { wasm, landmark, threads }));
}
const stop = () => source.stream?.getTracks().forEach((track) => track.stop());
/** Leaves what is shown for another picture or camera, or for the last frame of the camera. */
function begin(name, facing, { faces, lines } = { faces: [], lines: [] }) {
  stop();
  source = { name, facing, faces, lines };
  [$("error").textContent, $("stop").hidden, $("turn").hidden] = ["", true, true];
  return source;
}
/** The pixels of an image or of the video. */
function take(image, width, height) {
  if (frame.width !== width || frame.height !== height) Object.assign(frame, { width, height });
  pixels.drawImage(image, 0, 0);
  return { width, height, data: pixels.getImageData(0, 0, width, height).data };
}
function show(isMirrored = source.facing === "user") {
  const { width, height } = frame, parts = [...$("parts").elements].map(({ value, checked }) => [value, checked]);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.style.setProperty("--ratio", width / height);
  canvas.classList.toggle("mirrored", isMirrored);
  screen.drawImage(frame, 0, 0);
  drawFaces(screen, source.faces, Object.fromEntries(parts), width / canvas.clientWidth, isMirrored);
}
/** Says what is shown in words and numbers. */
function tell(speed) {
  const { length } = source.faces, what = `${length || "No"} ${length === 1 ? "face" : "faces"} in ${source.name}`;
  if ($("status").textContent !== what) $("status").textContent = what; // which a screen reader reads out
  $("speed").textContent = speed;
  $("numbers").textContent = source.faces.map(({ number, score, pose, points }) => {
    const [yaw, pitch, roll] = ["yaw", "pitch", "roll"].map((angle) => `${angle} ${pose[angle].toFixed(0)}°`);
    const [right, left, lips] = Object.values(openings({ points })).map((open) => open.toFixed(2));
    return `Face ${number}: score ${score.toFixed(2)}, ${yaw}, ${pitch}, ${roll}; eyes ${right} ${left}, mouth ${lips}`;
  }).join("\n");
}

async function openPicture(file, name = file.name) {
  const image = await createImageBitmap(file).catch(() => {
    throw failure(/hei[cf]/i.test(file.type + name) ? "HEIC" : "picture");
  });
  const mine = begin(name);
  take(image, image.width, image.height);
  show();
  $("status").textContent = "Looking for faces …";
  await ready;
  await findInPicture(mine);
}

async function findInPicture(mine) {
  const began = performance.now(), given = { picture: take(frame, frame.width, frame.height) };
  const { faces } = await ask(finder, "find", given);
  if (source !== mine) return;
  Object.assign(mine, { faces, lines: tableLines(mine.name, null, faces, frame) });
  show();
  tell(`${Math.round(performance.now() - began)} ms`);
  await following(); // not before the first picture is done
}

async function openCamera(facing) {
  if (!navigator.mediaDevices) throw failure("insecure");
  stop(); // a telephone may have one camera on at a time
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: 640, height: 480 } });
  const mine = Object.assign(begin("the camera", facing), { stream });
  video.srcObject = stream;
  const devices = await navigator.mediaDevices.enumerateDevices();
  $("turn").hidden = devices.filter(({ kind }) => kind === "videoinput").length < 2;
  $("stop").hidden = false;
  await Promise.all([video.play(), ready.then(() => following())]);
  await follow(mine);
}

const nextFrame = () => new Promise((seen) => (video.requestVideoFrameCallback?.(seen) ?? requestAnimationFrame(seen)));

async function follow(mine) {
  let arrived = nextFrame(), canLook = true, found = [], told = performance.now(), before = 0;
  for (let count = 0, began = told; source === mine; count++) {
    await arrived;
    arrived = nextFrame();
    const now = performance.now(), seen = take(video, video.videoWidth, video.videoHeight);
    const given = { picture: seen, isFirst: !count, found, canLook };
    found = []; // before the wait, in which more may come
    const { faces, turns, picture } = await ask(follower, "follow", given);
    if (source !== mine) return;
    if (turns) {
      canLook = false;
      const looked = ask(finder, "find", { picture, known: faces, turns });
      looked.then((more) => ([found, canLook] = [more.faces, true]), fail);
    }
    mine.faces = faces;
    mine.lines.push(...tableLines(String(count), (now - began) / 1000, faces, frame));
    mine.lines.splice(0, mine.lines.length - MOST_LINES);
    show();
    if (now - told < TOLD_EVERY) continue;
    tell(`${((1000 * (count - before)) / (now - told)).toFixed(0)} frames a second`);
    [told, before] = [now, count];
  }
}

function save(content, download) {
  const href = URL.createObjectURL(content);
  Object.assign(document.createElement("a"), { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

const run = (action) => (event) => Promise.resolve(action(event)).catch(fail);
const openFirst = ([file]) => file && openPicture(file);
$("choose").onclick = () => Object.assign($("file"), { value: "" }).click();
$("file").onchange = run(() => openFirst($("file").files));
$("camera").onclick = run(() => openCamera("user"));
$("turn").onclick = run(() => openCamera(source.facing === "user" ? "environment" : "user"));
$("stop").onclick = () => begin(source.name, source.facing, source);
$("csv").onclick = () => save(new Blob([tableOf(source.lines)], { type: "text/csv" }), "points.csv");
$("drawing").onclick = () => {
  show(false);
  canvas.toBlob((drawing) => save(drawing, `${source.name.replace(/\.\w+$/, "")} drawn.jpg`), "image/jpeg", 0.92);
  show();
};
$("parts").onchange = () => show();
$("model").onchange = run(async () => {
  await (ready = loadModel($("model").value));
  if (!source.stream) await findInPicture(source);
});
document.ondragover = (event) => event.preventDefault();
document.ondrop = run((event) => (event.preventDefault(), openFirst(event.dataTransfer.files)));
document.onpaste = run((event) => openFirst(event.clipboardData.files));
finder.onerror = follower.onerror = () => fail(failure("missing"));
run(async () => {
  const first = $("model").value;
  ready = loadModel(first);
  ready.catch(() => {}); // shown by the picture that waits for it
  await openPicture(await (await fetch("astronaut.jpg")).blob(), "astronaut.jpg");
  for (const name of Object.keys(MODELS).filter((name) => name !== first)) {
    const { ok } = await fetch(`models/${name}.onnx`, { method: "HEAD" }).catch(() => ({}));
    if (ok) $("model").add(new Option(name));
  }
  await navigator.serviceWorker?.register("offline.js");
})();
