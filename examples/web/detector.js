// RetinaFace, as landmark/detectors.py runs it. `detect` is its network: an async function of one picture, a
// Float32Array [1, 3, 448, 448], BGR without MEAN_COLOUR, that returns [moves [N, 4], confidences [N, 2]].
import { CENTRE_VARIANCE, MAX_OVERLAP, MEAN_COLOUR, MIN_CONFIDENCE, RETINAFACE_CROP } from "./constants.js";
import { RETINAFACE_SIDE, SIDE_VARIANCE, STRIDES } from "./constants.js";
import { overlap } from "./geometry.js";

// The boxes that it moves: x and y of their centres, and their side.
const ANCHORS = Object.entries(STRIDES).flatMap(([stride, sides]) => {
  const cells = RETINAFACE_SIDE / stride, at = (cell) => (Math.floor(cell) + 0.5) * stride;
  return Array.from({ length: 2 * cells * cells }, (_, i) => [at((i / 2) % cells), at(i / 2 / cells), sides[i % 2]]);
});
/** What each pixel of a shrunk side is made of: [the first pixel there, its share, the next one's ...]. */
function shares(size, scale) {
  return Array.from({ length: Math.round(size * scale) }, (_, i) => {
    const low = i / scale, high = Math.min((i + 1) / scale, size), first = Math.floor(low);
    const covered = (_, pixel) => (Math.min(first + pixel + 1, high) - Math.max(first + pixel, low)) / (high - low);
    return [first, ...Array.from({ length: Math.ceil(high) - first }, covered)];
  });
}
/** A picture as the network takes it, shrunk as cv2.resize with INTER_AREA does. */
function shrink({ width, height, data }, scale) {
  const columns = shares(width, scale), planes = new Float32Array(3 * RETINAFACE_SIDE ** 2);
  shares(height, scale).forEach(([top, ...weights], row) => columns.forEach(([left, ...parts], column) => {
    const sums = [0, 0, 0];
    for (let j = 0; j < weights.length; j++) {
      for (let i = 0, at = 4 * ((top + j) * width + left); i < parts.length; i++, at += 4) {
        for (let channel = 0; channel < 3; channel++) sums[channel] += weights[j] * parts[i] * data[at + channel];
      }
    }
    MEAN_COLOUR.forEach((mean, plane) => {
      planes[(plane * RETINAFACE_SIDE + row) * RETINAFACE_SIDE + column] = Math.round(sums[2 - plane]) - mean;
    });
  }));
  return planes;
}
/** The corners of the approximate face crops that the detector sees in a picture. */
export async function findBoxes(detect, picture) {
  const scale = Math.min(1, RETINAFACE_SIDE / Math.max(picture.width, picture.height));
  const [moves, confidences] = await detect(shrink(picture, scale)), sure = (i) => confidences[2 * i + 1], boxes = [];
  for (const i of [...ANCHORS.keys()].filter((i) => sure(i) > MIN_CONFIDENCE).sort((i, j) => sure(j) - sure(i))) {
    const side = ANCHORS[i][2], sides = [2, 3].map((axis) => side * Math.exp(SIDE_VARIANCE * moves[4 * i + axis]));
    const low = [0, 1].map((axis) => ANCHORS[i][axis] + CENTRE_VARIANCE * moves[4 * i + axis] * side - sides[axis] / 2);
    const box = [...low, low[0] + sides[0], low[1] + sides[1]].map((place) => place / scale);
    if (!boxes.some((surer) => overlap(box, surer) > MAX_OVERLAP)) boxes.push(box);
  }
  return boxes.map((box) => {
    const [[left, top], [right, bottom]] = RETINAFACE_CROP.map((corner) =>
      corner.map((share, axis) => box[axis] + share * (box[axis + 2] - box[axis])));
    return [[left, top], [right, top], [right, bottom], [left, bottom]];
  });
}
