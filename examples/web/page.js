// The page: takes a picture or the camera, has its faces found, and shows them.
import { drawFaces, openings, tableLines, tableOf } from "./outputs.js";

const RESEARCH = "For research only, not for commercial use, as the photos it was trained on.";
const MODELS = {
  landmark: `The jaw on the outline that one sees. ${RESEARCH}`,
  landmark_3d: `The jaw where it is, behind the cheek of a turned head. ${RESEARCH}`,
  landmark_free: "The jaw on the outline that one sees. MIT licence: free to use, change and sell.",
};
const ADVICE = {
  NotAllowedError: "The camera is blocked for this page. Allow it by the icon beside the address, then start it again.",
  NotFoundError: "No camera was found. Connect one and start it again, or choose a picture.",
  NotReadableError: "Another program is using the camera. Close that program, then start the camera again.",
  HEIC: "This browser cannot open HEIC pictures. Save it as JPEG; iPhone: Settings, Camera, Formats, Most Compatible.",
  picture: "This is not a picture that the browser can open. Choose a JPEG, PNG or WebP file.",
  WebAssembly: "This browser has no WebAssembly, which runs the networks. Update it, or allow it in the settings.",
  insecure: "Browsers give the camera only to pages of https and of localhost. Open this page at such an address.",
  missing: "A file of this page is not on its server. examples/web/README.md says which files to lay there.",
  worker: "A part of this page did not start. Reload it, or update the browser.",
};
const MOST_LINES = 36000; // of the camera's points.csv: half an hour of one face
const TOLD_EVERY = 300; // milliseconds between changes of the numbers under the camera's picture

const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), screen = canvas.getContext("2d"), video = document.createElement("video");
const frame = document.createElement("canvas"), pixels = frame.getContext("2d", { willReadFrequently: true });
const [finder, follower] = [0, 1].map(() => new Worker("worker.js", { type: "module" })), files = {};
let source = {}; // what is shown: {name, faces, lines of points.csv}, and of the camera {stream, facing}
let ready, following; // promises that the workers have their models

const failure = (name) => Object.assign(new Error(name), { name });
const fail = (error) => ([$("error").textContent, $("status").textContent] = [ADVICE[error.name] ?? error.message, ""]);

/** The answer of a worker to a task; hands over the pixels of a picture. */
function ask(worker, task, given) {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage({ task, given }, [port2, ...(given.picture ? [given.picture.data.buffer] : [])]);
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
  following = ask(follower, "load", { wasm, landmark, threads: crossOriginIsolated ? navigator.hardwareConcurrency : 1 });
}

/** Leaves what is shown for another picture or camera. */
function begin(name, facing) {
  source.stream?.getTracks().forEach((track) => track.stop());
  source = { name, facing, faces: [], lines: [] };
  $("error").textContent = "";
  $("stop").hidden = $("turn").hidden = true;
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
    const [right, left, mouth] = Object.values(openings({ points })).map((open) => open.toFixed(2));
    return `Face ${number}: score ${score.toFixed(2)}, ${yaw}, ${pitch}, ${roll}; eyes ${right} ${left}, mouth ${mouth}`;
  }).join("\n");
}

async function openPicture(file, name = file.name) {
  const mine = begin(name), image = await createImageBitmap(file).catch(() => {
    throw failure(/hei[cf]/i.test(file.type + name) ? "HEIC" : "picture");
  });
  take(image, image.width, image.height);
  show();
  $("status").textContent = "Looking for faces …";
  await ready;
  await findInPicture(mine);
}

async function findInPicture(mine) {
  const began = performance.now(), picture = take(frame, frame.width, frame.height);
  const { faces } = await ask(finder, "find", { picture });
  if (source !== mine) return;
  Object.assign(mine, { faces, lines: tableLines(mine.name, null, faces, frame) });
  show();
  tell(`${Math.round(performance.now() - began)} ms`);
}

async function openCamera(facing) {
  const mine = begin("the camera", facing);
  if (!navigator.mediaDevices) throw failure("insecure");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: 640, height: 480 } });
  if (source !== mine) return stream.getTracks().forEach((track) => track.stop());
  mine.stream = video.srcObject = stream;
  const devices = await navigator.mediaDevices.enumerateDevices();
  $("turn").hidden = devices.filter(({ kind }) => kind === "videoinput").length < 2;
  $("stop").hidden = false;
  await Promise.all([video.play(), ready.then(() => following)]);
  await follow(mine);
}

const nextFrame = () => new Promise((resolve) =>
  video.requestVideoFrameCallback ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve));

async function follow(mine) {
  let arrived = nextFrame(), canLook = true, found = [], told = performance.now(), before = 0;
  for (let count = 0, began = told; source === mine; count++) {
    await arrived;
    arrived = nextFrame();
    const now = performance.now(), taken = take(video, video.videoWidth, video.videoHeight);
    const given = { picture: taken, isFirst: !count, found, canLook };
    found = []; // before the wait, in which more may come
    const { faces, turns, picture } = await ask(follower, "follow", given);
    if (source !== mine) return;
    if (turns) {
      canLook = false;
      ask(finder, "find", { picture, known: faces, turns }).then((more) => ([found, canLook] = [more.faces, true]), fail);
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

function save(content, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const run = (action) => (event) => Promise.resolve(action(event)).catch(fail);
const openFirst = ([file]) => file && openPicture(file);
$("choose").onclick = () => Object.assign($("file"), { value: "" }).click();
$("file").onchange = run(() => openFirst($("file").files));
$("camera").onclick = run(() => openCamera("user"));
$("turn").onclick = run(() => openCamera(source.facing === "user" ? "environment" : "user"));
$("stop").onclick = () => {
  const { name, facing, faces, lines } = source; // which can still be saved
  Object.assign(begin(name, facing), { faces, lines });
};
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
finder.onerror = follower.onerror = () => fail(failure("worker"));
run(async () => {
  ready = loadModel("landmark");
  ready.catch(() => {}); // shown by the picture that waits for it
  await openPicture(await (await fetch("astronaut.jpg")).blob(), "astronaut.jpg");
  for (const name of Object.keys(MODELS).slice(1)) {
    const { ok } = await fetch(`models/${name}.onnx`, { method: "HEAD" }).catch(() => ({}));
    if (ok) $("model").add(new Option(name));
  }
  await navigator.serviceWorker?.register("offline.js");
})();
