// Boxes, distances, and how a head is turned: as landmark/points.py and landmark/pose.py have it.
import { AXES, AXES_LENGTH, CAMERA, POSE_LANDMARKS, POSE_MODEL } from "./constants.js";

const STEPS = 20, CLOSE = 1e-6; // of the fit of a pose: its steps at most, and the radians of the last
const cross = ([a, b, c], [x, y, z]) => [b * z - c * y, c * x - a * z, a * y - b * x];
const dot = (one, other) => one.reduce((sum, part, i) => sum + part * other[i], 0);
const unit = (vector) => vector.map((part) => part / Math.hypot(...vector));
const degrees = (radians) => (radians * 180) / Math.PI;
export const apart = ([x, y], [left, top]) => Math.hypot(x - left, y - top);
export const mix = (one, other, share) => one.map((part, i) => part + share * (other[i] - part));
export const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
/** [x_min, y_min, x_max, y_max] around points. */
export function bounds(points) {
  return [Math.min, Math.max].flatMap((end) => [0, 1].map((axis) => end(...points.map((point) => point[axis]))));
}
/** Intersection over union of two boxes [x_min, y_min, x_max, y_max]. */
export function overlap(box, other) {
  const shared = (i) => Math.max(Math.min(box[i + 2], other[i + 2]) - Math.max(box[i], other[i]), 0);
  const [area, others] = [box, other].map(([left, top, right, bottom]) => (right - left) * (bottom - top));
  return (shared(0) * shared(1)) / (area + others - shared(0) * shared(1));
}
/** What the head's three axes are in a picture along x, and along y, were it seen from afar. */
function flatAxes(points) {
  return [0, 1].map((axis) => AXES.map((weights) => dot(weights, POSE_LANDMARKS.map((i) => points[i][axis]))));
}
/** The degrees by which the line from a face's chin to its brow is turned clockwise in the picture. */
export function estimateTilt(points) {
  const [x, y] = flatAxes(points), [xx, xy, yy] = [dot(x, x), dot(x, y), dot(y, y)];
  const root = Math.sqrt(Math.max(xx * yy - xy * xy, 0));
  return degrees(Math.atan2(xy * y[1] - (yy + root) * x[1], (xx + root) * y[1] - xy * x[1])) || 0;
}
/** One Gauss-Newton step towards the least squares of cv2's SQPNP. seen: points, x y over the focal length; columns: of
 * the head's rotation; shift: where its origin is. Returns them improved, and the radians between. */
function improve(seen, [columns, shift]) {
  const sums = Array.from({ length: 6 }, () => [0, 0, 0, 0, 0, 0, 0]); // J'J and J'r
  POSE_MODEL.forEach((place, i) => {
    const [x, y, z] = [0, 1, 2].map((row) => dot(place, columns.map((column) => column[row])));
    const [u, v] = seen[i], [left, down, depth] = shift;
    const rows = [[-u * y, z + u * x, -y, 1, 0, -u, u * (z + depth) - x - left]];
    rows.push([-z - v * y, v * x, x, 0, 1, -v, v * (z + depth) - y - down]);
    for (const row of rows) for (let j = 0; j < 6; j++) for (let k = 0; k < 7; k++) sums[j][k] += row[j] * row[k];
  });
  sums.forEach((pivot, i) => sums.forEach((row, j) => {
    if (j !== i) for (let k = 6, share = row[i] / pivot[i]; k >= i; k--) row[k] -= share * pivot[k];
  }));
  const step = sums.map((row, i) => row[6] / row[i]), turn = step.slice(0, 3), angle = Math.hypot(...turn) || 1;
  const turned = columns.map((column) => { // Rodrigues
    const beside = cross(turn, column), inward = cross(turn, beside), share = (1 - Math.cos(angle)) / angle ** 2;
    return column.map((part, i) => part + (Math.sin(angle) / angle) * beside[i] + share * inward[i]);
  });
  return [turned, shift.map((part, i) => part + step[3 + i]), Math.hypot(...turn)];
}
/** 300W_LP's angles of a head in degrees: yaw to the picture's left, pitch up, roll clockwise; and its axes, to its
 * left, down and ahead, in sides of the face. */
export function estimatePose(points) {
  const seen = POSE_LANDMARKS.map((i) => points[i]), [left, top, right, bottom] = bounds(seen);
  const focal = CAMERA * Math.max(right - left, bottom - top), [x, y] = flatAxes(points);
  const beside = unit(x), back = unit(cross(x, y)), rows = [beside, cross(back, beside), back];
  let centre = [0, 1].map((axis) => mean(seen.map((point) => point[axis])));
  let fit = [[0, 1, 2].map((axis) => rows.map((row) => row[axis])), [0, 0, focal / Math.hypot(...x)]];
  for (let round = 0; round < 2; round++) { // the camera looks at the middle of the head
    const scaled = seen.map((point) => point.map((place, axis) => (place - centre[axis]) / focal));
    for (let i = 0; i < STEPS && !(fit[2] < CLOSE); i++) fit = improve(scaled, fit);
    centre = centre.map((place, axis) => place + (focal * fit[1][axis]) / fit[1][2]);
    fit = [fit[0], [0, 0, fit[1][2]]];
  }
  const [[a, d], [b, e], [c, f, g]] = fit[0];
  const [yaw, pitch, roll] = [Math.atan2(c, Math.hypot(a, b)), Math.atan2(f, g), Math.atan2(-b, a)].map(degrees);
  return { yaw, pitch, roll, axes: [[a, d], [b, e], [-c, -f]].map((axis) => axis.map((part) => AXES_LENGTH * part)) };
}
