// Runs the networks beside the page, so that it never waits: of two such workers, one finds faces, one follows them.
import { IMAGE_SIZE, INPUT_NAME, OUTPUT_NAME, RETINAFACE_SIDE } from "./constants.js";
import { FaceTracker, findFaces } from "./landmarks.js";
import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

const LOOK_EVERY = 10; // frames, to look for faces that came in
let predict, detect, tracker;
/** An ONNX file as a function of one input that returns the numbers of some outputs. */
async function open(file, input, outputs) {
  const session = await ort.InferenceSession.create(file);
  return async (numbers, shape) => {
    const found = await session.run({ [input]: new ort.Tensor("float32", numbers, shape) }, outputs);
    return outputs.map((name) => found[name].data);
  };
}

const tasks = {
  async load({ wasm, threads, landmark, detector }) {
    Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: threads });
    const network = await open(landmark, INPUT_NAME, [OUTPUT_NAME]);
    predict = async (crops, count) => (await network(crops, [count, IMAGE_SIZE, IMAGE_SIZE, 3]))[0];
    const finder = detector && (await open(detector, "input", ["loc", "conf"]));
    detect = (picture) => finder(picture, [1, 3, RETINAFACE_SIDE, RETINAFACE_SIDE]);
  },
  find: async ({ picture, known, turns }) => ({ faces: await findFaces(predict, detect, picture, known, turns) }),
  /** isFirst: of a video; found: faces of an earlier frame; canLook: whether a worker is free to look for more. */
  async follow({ picture, isFirst, found, canLook }) {
    if (isFirst) tracker = new FaceTracker(predict, LOOK_EVERY);
    tracker.add(found);
    return { faces: await tracker.follow(picture), turns: canLook ? tracker.wanted() : null, picture };
  },
};

onmessage = ({ data: { task, given }, ports: [port] }) => tasks[task](given).then(
  (result) => port.postMessage({ result }, result?.picture ? [result.picture.data.buffer] : []),
  (error) => port.postMessage({ error: error.message ?? String(error) }));
