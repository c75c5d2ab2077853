// Follows the face in the camera's frames, as examples/web/index.html does.
import { LINES, SIDE, follow } from "./landmarks.js";

const MODEL_URL = "https://example.com/landmark2.onnx"; // yours, of a domain that the mini program may download from
const MODEL = `${wx.env.USER_DATA_PATH}/landmark2.onnx`;

Page({
  data: { said: "loading" },

  onReady() {
    wx.createSelectorQuery().select("#points").fields({ node: true, size: true }).exec(([{ node, width, height }]) => {
      Object.assign(node, { width, height });
      this.canvas = node;
    });
    wx.downloadFile({
      url: MODEL_URL,
      filePath: MODEL,
      success: () => this.open(),
      fail: ({ errMsg }) => this.setData({ said: errMsg }),
    });
  },

  onUnload() {
    this.listener?.stop();
    this.session?.destroy();
  },

  open() {
    this.session = wx.createInferenceSession({ model: MODEL, precisionLevel: 4, allowNPU: false, allowQuantize: false });
    this.session.onError(({ errMsg }) => this.setData({ said: errMsg }));
    this.session.onLoad(() => {
      this.listener = wx.createCameraContext().onCameraFrame((frame) => this.look(frame));
      this.listener.start();
    });
  },

  /** The network, as landmarks.js wants it. */
  async run(crops) {
    const tensor = { type: "float32", data: crops.buffer, shape: [2, SIDE, SIDE, 3] };
    const outputs = await this.session.run({ "Placeholder:0": tensor });
    return new Float32Array(outputs["fully_connected_9/Relu:0"].data);
  },

  async look({ width, height, data }) {
    if (this.busy) return; // a frame that comes too early is left out
    this.busy = true;
    try {
      const began = Date.now(), half = 0.35 * Math.min(width, height);
      const box = [width / 2 - 0.8 * half, height / 2 - half, width / 2 + 0.8 * half, height / 2 + half].map(Math.round);
      this.followed ??= follow((crops) => this.run(crops), box);
      const points = await this.followed.next({ width, height, data: new Uint8Array(data) });
      this.draw(points, box, width, height);
      this.setData({ said: `${points ? "a face" : "no face in the frame"}, ${Date.now() - began} ms` });
    } catch (error) {
      this.setData({ said: error.message ?? error.errMsg });
    } finally {
      this.busy = false;
    }
  },

  /** Draws into the canvas over the camera, which shows the middle of a frame as large as fits all of the screen. */
  draw(points, box, width, height) {
    const context = this.canvas.getContext("2d");
    const scale = Math.max(this.canvas.width / width, this.canvas.height / height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.translate((this.canvas.width - scale * width) / 2, (this.canvas.height - scale * height) / 2);
    context.scale(scale, scale);
    context.strokeStyle = "lime";
    if (!points) return context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    for (const line of LINES) {
      context.beginPath();
      line.forEach((i) => context.lineTo(...points[i]));
      context.stroke();
    }
  },
});
