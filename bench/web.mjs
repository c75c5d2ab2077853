// Measures the page of examples/web in Chromium, and an ONNX file in ONNX Runtime Web.
//
//     bash examples/web/build.sh site && node bench/web.mjs site     # takes two minutes
//     node bench/web.mjs landmark.onnx 32
//
// The first prints the seconds from opening the page to its first points, and the frames a second with one and with
// four faces before a camera of 640x480 (a canvas that moves), in one thread and, with the headers that allow them, in
// all. The second, which bench/speed.py starts, prints the milliseconds of one crop, and crops a second in batches of
// 32, in one thread, in Node, whose engine is Chromium's.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";

const FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
  + " --disable-component-update --disable-sync --remote-debugging-pipe --autoplay-policy=no-user-gesture-required";
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript" };
const THREADS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const SECONDS = 8, ROUNDS = 3;
// In place of the camera: the astronaut in so many places, swaying. The page's own drawing is not left out.
const CAMERA = (faces) => `navigator.mediaDevices.getUserMedia = async () => {
  const photo = await createImageBitmap(await (await fetch("astronaut.jpg")).blob(), 60, 0, 340, 330);
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const context = canvas.getContext("2d"), side = ${faces > 1 ? 240 : 440};
  setInterval(() => {
    context.fillRect(0, 0, 640, 480);
    for (let i = 0; i < ${faces}; i++) {
      const sway = 12 * Math.sin(performance.now() / 500 + i);
      context.drawImage(photo, 40 + sway + 300 * (i % 2), 240 * (i >> 1), side, side);
    }
  }, 33);
  return canvas.captureStream(30);
}`;

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];

async function timeCrops(file, batch) {
  const ort = await import("../examples/web/node_modules/onnxruntime-web/dist/ort.node.min.mjs");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(readFileSync(file)), results = [];
  for (const count of [1, batch]) {
    const crops = new ort.Tensor("float32", new Float32Array(count * 128 * 128 * 3).fill(100), [count, 128, 128, 3]);
    const times = [];
    for (let i = 0; i < 40; i++) {
      const began = performance.now();
      await session.run({ "Placeholder:0": crops });
      if (i >= 10) times.push(performance.now() - began);
    }
    results.push(median(times));
  }
  console.log(results[0], (1000 * batch) / results[1]);
}

/** A server of a folder: its address, and a function that ends it. */
async function serve(folder, headers) {
  const server = createServer(({ url }, response) => {
    const path = join(folder, url === "/" ? "index.html" : url);
    const content = statSync(path, { throwIfNoEntry: false })?.isFile() ? readFileSync(path) : null;
    const type = { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" };
    const length = { "Content-Length": content?.length ?? 0 };
    response.writeHead(content ? 200 : 404, { ...headers, ...type, ...length }).end(content);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return [`http://127.0.0.1:${server.address().port}/`, () => server.close()];
}

/** A page of a fresh Chromium: a function of a DevTools method and its parameters; and one that ends it. */
async function browse() {
  const profile = mkdtempSync(join(tmpdir(), "page-"));
  const chromium = spawn("chromium", [...FLAGS.split(" "), `--user-data-dir=${profile}`], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  });
  const waiting = new Map();
  let text = "", number = 0, sessionId;
  chromium.stdio[4].on("data", (data) => {
    const messages = (text + data).split("\0");
    text = messages.pop();
    messages.map((message) => JSON.parse(message)).forEach(({ id, result }) => waiting.get(id)?.(result));
  });
  const send = (method, params) => new Promise((resolve) => {
    waiting.set(++number, resolve);
    chromium.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
  });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  ({ sessionId } = await send("Target.attachToTarget", { targetId, flatten: true }));
  return [send, () => chromium.kill()];
}

/** Opens the page and starts the camera: {first, frames a second, faces}. */
async function measure(address, faces) {
  const [send, end] = await browse(), rates = [];
  const run = (expression) => send("Runtime.evaluate", { expression, awaitPromise: true });
  const evaluate = async (expression) => (await run(expression)).result.value;
  const read = (id) => evaluate(`document.getElementById("${id}")?.textContent ?? ""`);
  const began = performance.now();
  await send("Page.navigate", { url: address });
  while (!/^\d+ face/.test(await read("status"))) await sleep(10);
  const first = (performance.now() - began) / 1000;
  await sleep(2000); // while the other worker loads
  await evaluate(`${CAMERA(faces)}; document.getElementById("camera").click()`);
  while (!(await read("status")).startsWith(`${faces} face`) || !/camera/.test(await read("status"))) await sleep(50);
  for (let i = 0; i < 2 * SECONDS; i++) {
    await sleep(500);
    rates.push(parseFloat(await read("speed")));
  }
  end();
  return { first, rate: median(rates), slowest: Math.min(...rates) };
}

async function measurePage(folder) {
  console.log("| | first points, s | frames/s, one face | slowest | four faces | slowest |\n|---|---|---|---|---|---|");
  for (const [name, headers] of [["one thread", {}], ["all threads", THREADS]]) {
    const [address, close] = await serve(folder, headers), one = [], four = [];
    for (let i = 0; i < ROUNDS; i++) one.push(await measure(address, 1));
    four.push(await measure(address, 4));
    const first = median(one.map((each) => each.first)), rate = median(one.map((each) => each.rate));
    const slowest = Math.min(...one.map((each) => each.slowest));
    console.log(`| ${name} | ${first.toFixed(2)} | ${rate} | ${slowest} | ${four[0].rate} | ${four[0].slowest} |`);
    close();
  }
  process.exit();
}

const [what, batch] = process.argv.slice(2);
await (statSync(what).isDirectory() ? measurePage(what) : timeCrops(what, Number(batch)));
