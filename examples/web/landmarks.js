// The 68 points of faces, found and followed as landmark/inference.py does, in any JavaScript. A picture is {width,
// height, data: RGBA bytes}, as an ImageData. Points are 68 [x, y], a box four corners [x, y], from the face's top
// left clockwise, both in pixels of the picture; a face is {number, box, points, spread, score, pose}. `predict` is the
// network: an async function of a Float32Array of N crops [N, 128, 128, 3], BGR, 0..255, and of N, that returns a
// Float32Array [N, 136]; `detect` is the detector's: see detector.js.
import { BETA, IMAGE_SIZE, MIN_CUTOFF, MIN_SCORE, NUDGE, OVERLAP, QUARTERS, REFINEMENTS, SEARCH } from "./constants.js";
import { SCORE_MIDPOINT, SMALLEST, SPEED_ALPHA, STEEPNESS, SURE, UPRIGHT } from "./constants.js";
import { findBoxes } from "./detector.js";
import { apart, bounds, estimatePose, estimateTilt, mean, mix, overlap } from "./geometry.js";

const isAmong = (face, all) => all.some((other) => overlap(bounds(face.points), bounds(other.points)) > OVERLAP);
/** The box of landmark/README.md, "The crop", around the points of a face that may be tilted. */
function uprightBox({ points }) {
  const tilt = (estimateTilt(points) * Math.PI) / 180, [sine, cosine] = [Math.sin(tilt), Math.cos(tilt)];
  const [x_min, y_min, x_max, y_max] = bounds(points.map(([x, y]) => [x * cosine + y * sine, y * cosine - x * sine]));
  const [left, top] = [x_min - 0.05 * (x_max - x_min), y_min - 0.3 * (y_max - y_min)];
  const [right, bottom] = [left + 1.05 * 1.05 * (x_max - x_min), top + 1.3 * 1.05 * (y_max - y_min)];
  const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
  return corners.map(([x, y]) => [x * cosine - y * sine, y * cosine + x * sine]);
}
/** Cuts a box out of a picture into a crop of zeros, [128, 128, 3], as cv2.warpAffine with INTER_LINEAR does. */
function cutUpright({ width, height, data }, [start, right, , down], crop) {
  const [across, along] = [right, down].map((end) => end.map((place, axis) => (place - start[axis]) / IMAGE_SIZE));
  for (let pixel = 0; pixel < IMAGE_SIZE ** 2; pixel++) {
    const column = (pixel % IMAGE_SIZE) + 0.5, row = Math.floor(pixel / IMAGE_SIZE) + 0.5;
    const x = start[0] + column * across[0] + row * along[0] - 0.5, left = Math.floor(x), beside = x - left;
    const y = start[1] + column * across[1] + row * along[1] - 0.5, top = Math.floor(y), below = y - top;
    for (let corner = 0; corner < 4; corner++) {
      const place = left + (corner & 1), line = top + (corner >> 1), at = 4 * (line * width + place);
      if (place < 0 || line < 0 || place >= width || line >= height) continue;
      const share = (corner & 1 ? beside : 1 - beside) * (corner & 2 ? below : 1 - below);
      for (let channel = 0; channel < 3; channel++) crop[3 * pixel + channel] += share * data[at + 2 - channel];
    }
  }
  crop.set(crop.map((value) => Math.round(value)));
}
/** The points in each of some boxes. */
async function findLandmarks(predict, picture, boxes) {
  const size = IMAGE_SIZE * IMAGE_SIZE * 3, crops = new Float32Array(boxes.length * size);
  boxes.forEach((box, i) => cutUpright(picture, box, crops.subarray(i * size, (i + 1) * size)));
  const shares = await predict(crops, boxes.length), count = shares.length / boxes.length;
  return boxes.map(([start, right, , down], i) => Array.from({ length: count / 2 }, (_, point) => {
    const [x, y] = shares.subarray(i * count + 2 * point);
    return start.map((place, axis) => place + x * (right[axis] - place) + y * (down[axis] - place));
  }));
}
/** The face in each of some boxes, from two crops a little to either side: on a face the points stay where they are. */
async function predictTwice(predict, picture, boxes) {
  const nudged = boxes.flatMap((box) => [-NUDGE, NUDGE].map((share) =>
    box.map((corner) => corner.map((place, axis) => place + share * (box[2][axis] - box[0][axis])))));
  const found = await findLandmarks(predict, picture, nudged);
  return boxes.map((box, i) => {
    const [one, other] = found.slice(2 * i, 2 * i + 2), spread = one.map((point, j) => apart(point, other[j]));
    const score = 1 / (1 + (mean(spread) / (2 * NUDGE * apart(box[0], box[2])) / SCORE_MIDPOINT) ** STEEPNESS);
    return { box, points: one.map((point, j) => mix(point, other[j], 0.5)), spread, score };
  });
}
/** Whether a box has a face's size and its middle in the picture. */
function canHoldFace(box, { width, height }) {
  const [x, y] = mix(box[0], box[2], 0.5), sides = [apart(box[0], box[1]), apart(box[0], box[3])];
  const isSized = sides.every((side) => side >= SMALLEST && side < 2 * Math.max(width, height));
  return isSized && x > 0 && x < width && y > 0 && y < height;
}
/** The faces cut upright by their approximate points; null for one that does not fit. */
async function refine(predict, picture, faces) {
  const boxes = faces.map(uprightBox), fitting = boxes.filter((box) => canHoldFace(box, picture));
  const found = fitting.length ? await predictTwice(predict, picture, fitting) : [];
  return boxes.map((box) => found[fitting.indexOf(box)] ?? null);
}
/** The face in a box of the detector, tried in all four quarter turns unless one is sure; null if there is none. */
async function findUpright(predict, picture, box) {
  let best = null;
  for (const quarter of [0, 1, 3, 2]) {
    const turned = box.map((_, i) => box[(i - quarter + 4) % 4]);
    let face = { points: (await findLandmarks(predict, picture, [turned]))[0] };
    for (let i = 0; face && i < REFINEMENTS; i++) [face] = await refine(predict, picture, [face]);
    if (face && face.score > (best?.score ?? 0)) best = face;
    if (best?.score > SURE) break;
  }
  return best;
}
/** A picture turned anticlockwise. */
function turnQuarter({ width, height, data }) {
  const from = new Uint32Array(data.buffer, data.byteOffset, width * height), to = new Uint32Array(width * height);
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++) to[(width - 1 - x) * height + y] = from[i++];
  return { width: height, height: width, data: new Uint8ClampedArray(to.buffer) };
}
/** The detector's boxes of the faces that are tilted clockwise by about 0, 90, 180 or 270 degrees. */
async function findTurned(detect, picture, turn) {
  const widths = [];
  for (let i = 0; i < turn; i += 90, picture = turnQuarter(picture)) widths.push(picture.width);
  const back = (box) => widths.reduceRight((corners, width) => corners.map(([x, y]) => [width - y, x]), box);
  return (await findBoxes(detect, picture)).map(back);
}
/** The faces of a picture, the surest first, without those that are known. */
export async function findFaces(predict, detect, picture, known = [], turns = QUARTERS) {
  const found = [], faces = [];
  for (const turn of turns) {
    for (const box of await findTurned(detect, picture, turn)) {
      const face = canHoldFace(box, picture) && (await findUpright(predict, picture, box));
      if (face && face.score >= MIN_SCORE) found.push(face);
    }
    const tilts = found.map(({ points }) => Math.abs(((estimateTilt(points) - turn + 540) % 360) - 180));
    if (known.length || Math.min(...tilts, 180) < UPRIGHT) break;
  }
  for (const face of found.sort((one, other) => other.score - one.score)) {
    if (isAmong(face, [...known, ...faces])) continue;
    faces.push({ ...face, number: faces.length, pose: estimatePose(face.points) });
  }
  return faces;
}
/** Follows the faces of a video. For each frame call follow(), then look for faces in the turns that wanted() names, in
 * this frame or while later ones are followed, and add() them. */
export class FaceTracker {
  /** every: frames after which it looks for faces that came in; test_pb.py does not while it has all. */
  constructor(predict, every = Infinity) {
    Object.assign(this, { predict, every, tracks: [], missing: 0, search: 0, since: 0, looks: 0, count: 0 });
  }
  /** The faces of the frame before, steadied, with their numbers. */
  async follow(picture) {
    const tracks = [], faces = [], refined = await refine(this.predict, picture, this.tracks);
    this.tracks.forEach((track, i) => {
      const face = refined[i];
      if (!face || face.score < MIN_SCORE || isAmong(face, faces)) return;
      const { steady, speed } = oneEuro(face.points, track, apart(face.box[0], face.box[1]));
      tracks.push({ number: track.number, points: face.points, steady, speed });
      faces.push({ ...face, number: track.number, points: steady, pose: estimatePose(steady) });
    });
    const lost = this.tracks.length - tracks.length;
    this.search = lost ? SEARCH : this.search - 1;
    this.missing = lost + (this.search > 0 ? this.missing : 0);
    this.tracks = tracks;
    return faces;
  }
  /** The turns in which to look for further faces now; null for not at all. */
  wanted() {
    const isShort = this.missing > 0 || !this.tracks.length;
    if (!isShort && ++this.since < this.every) return null;
    this.since = 0;
    const look = this.looks++, turns = [0, QUARTERS[1 + (look % 3)]];
    return isShort ? turns : [turns[look % 2]];
  }
  /** Follows these faces too, but those that it does already; returns them with their numbers. */
  add(found) {
    return found.filter((face) => !isAmong(face, this.tracks)).map((face) => {
      const number = this.count++, { points } = face;
      this.tracks.push({ number, points, steady: points, speed: points.map(() => [0, 0]) });
      this.missing = Math.max(this.missing - 1, 0);
      return { ...face, number };
    });
  }
}
/** One frame of a One Euro filter (Casiez, Roussel, Vogel, CHI 2012) on points; side: of the face in pixels. */
function oneEuro(points, before, side) {
  const moved = points.map((point, i) => point.map((place, axis) => (place - before.steady[i][axis]) / side));
  const speed = before.speed.map((was, i) => mix(was, moved[i], SPEED_ALPHA));
  const cutoffs = speed.map((each) => 2 * Math.PI * (MIN_CUTOFF + BETA * Math.hypot(...each)));
  return { speed, steady: before.steady.map((was, i) => mix(was, points[i], 1 / (1 + 1 / cutoffs[i]))) };
}
