// Finds the faces in the camera's frames and follows them, as examples/web/ does, with the same modules.
import { IMAGE_SIZE, INPUT_NAME, LINES, OUTPUT_NAME, RETINAFACE_SIDE } from "./constants.js";
import { FaceTracker, findFaces } from "./landmarks.js";

const ADDRESS = "https://example.com"; // yours, of a domain that the mini program may download from
const CROPS = 2; // that landmark2.onnx takes at a time

Page({
  data: { said: "loading" },

  async onReady() {
    wx.createSelectorQuery().select("#points").fields({ node: true, size: true }).exec(([{ node, width, height }]) => {
      Object.assign(node, { width, height });
      this.canvas = node;
    });
    try {
      const names = ["landmark2.onnx", "retinaface.onnx"];
      [this.landmark, this.detector] = await Promise.all(names.map((name) => this.open(name)));
      this.tracker = new FaceTracker((crops, count) => this.predict(crops, count));
      this.listener = wx.createCameraContext().onCameraFrame((frame) => this.look(frame));
      this.listener.start();
    } catch (error) {
      this.setData({ said: error.message ?? error.errMsg });
    }
  },

  onUnload() {
    this.listener?.stop();
    this.landmark?.destroy();
    this.detector?.destroy();
  },

  /** Downloads a model: a promise of its session. */
  open(name) {
    const filePath = `${wx.env.USER_DATA_PATH}/${name}`;
    return new Promise((resolve, fail) => {
      const load = () => {
        const choices = { precisionLevel: 4, allowNPU: false, allowQuantize: false };
        const session = wx.createInferenceSession({ model: filePath, ...choices });
        session.onError(fail);
        session.onLoad(() => resolve(session));
      };
      wx.downloadFile({ url: `${ADDRESS}/${name}`, filePath, success: load, fail });
    });
  },

  /** The landmark network, as landmarks.js wants it: any number of crops, two at a time. */
  async predict(crops, count) {
    const size = (CROPS * crops.length) / count, found = new Float32Array(Math.ceil(count / CROPS) * CROPS * 2 * 68);
    for (let i = 0; i < count; i += CROPS) {
      const pair = new Float32Array(size);
      pair.set(crops.subarray((i * size) / CROPS, ((i + CROPS) * size) / CROPS));
      const tensor = { type: "float32", data: pair.buffer, shape: [CROPS, IMAGE_SIZE, IMAGE_SIZE, 3] };
      const outputs = await this.landmark.run({ [INPUT_NAME]: tensor });
      found.set(new Float32Array(outputs[OUTPUT_NAME].data), i * 2 * 68);
    }
    return found.subarray(0, count * 2 * 68);
  },

  /** The detector, as detector.js wants it. */
  async detect(picture) {
    const tensor = { type: "float32", data: picture.buffer, shape: [1, 3, RETINAFACE_SIDE, RETINAFACE_SIDE] };
    const outputs = await this.detector.run({ input: tensor });
    return ["loc", "conf"].map((name) => new Float32Array(outputs[name].data));
  },

  async look({ width, height, data }) {
    if (this.busy) return; // a frame that comes too early is left out
    this.busy = true;
    try {
      const began = Date.now(), picture = { width, height, data: new Uint8ClampedArray(data) };
      const faces = await this.tracker.follow(picture), turns = this.tracker.wanted();
      if (turns) {
        const [predict, detect] = [this.tracker.predict, (input) => this.detect(input)];
        faces.push(...this.tracker.add(await findFaces(predict, detect, picture, faces, turns)));
      }
      this.draw(faces, width, height);
      this.setData({ said: `${faces.length} faces, ${Date.now() - began} ms` });
    } catch (error) {
      this.setData({ said: error.message ?? error.errMsg });
    } finally {
      this.busy = false;
    }
  },

  /** Draws into the canvas over the camera, which shows the middle of a frame as large as fits all of the screen. */
  draw(faces, width, height) {
    const context = this.canvas.getContext("2d");
    const scale = Math.max(this.canvas.width / width, this.canvas.height / height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.translate((this.canvas.width - scale * width) / 2, (this.canvas.height - scale * height) / 2);
    context.scale(scale, scale);
    context.strokeStyle = "lime";
    for (const { points } of faces) {
      for (const line of LINES) {
        context.beginPath();
        line.forEach((i) => context.lineTo(...points[i]));
        context.stroke();
      }
    }
  },
});
