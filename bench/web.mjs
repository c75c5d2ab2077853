// Times an ONNX file in ONNX Runtime Web: WebAssembly in one thread, in Node, whose engine is Chromium's.
//
//     npm install --prefix examples/web && node bench/web.mjs landmark.onnx 32
//
// Prints the milliseconds of one crop and the crops a second in batches of 32.
import { readFileSync } from "node:fs";
import * as ort from "../examples/web/node_modules/onnxruntime-web/dist/ort.node.min.mjs";

const [file, batch] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(file));

async function time(count) {
  const shape = [count, 128, 128, 3], times = [];
  const crops = new ort.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b)).fill(100), shape);
  for (let i = 0; i < 40; i++) {
    const began = performance.now();
    await session.run({ "Placeholder:0": crops });
    times.push(performance.now() - began);
  }
  return times.slice(10).sort((a, b) => a - b)[15];
}

console.log(await time(1), (1000 * batch) / await time(Number(batch)));
