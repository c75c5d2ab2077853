// The 68 points of a face, found and followed as landmark/points.py and landmark/inference.py do, in any JavaScript.
//
// A picture is an ImageData or the like: {width, height, data: RGBA bytes}. A box is [x_min, y_min, x_max, y_max],
// points are 68 [x, y], both in pixels of the picture. `run` is the network: an async function of a
// Float32Array of two crops [2, 128, 128, 3], BGR, 0..255, that returns their outputs [2, 136].

export const SIDE = 128, LANDMARKS = 68;
// The parts of a face as lines through the points.
export const LINES = [
  [0, 16], [17, 21], [22, 26], [27, 30], [31, 35], [36, 41, 36], [42, 47, 42], [48, 59, 48], [60, 67, 60],
].map(([first, last, ...closed]) => [...Array.from({ length: last - first + 1 }, (_, i) => first + i), ...closed]);
// As in landmark/inference.py and landmark/pose.py: of the landmarks TILT_FROM, what the head's axes are in a
// picture, times 1,000.
const NUDGE = 0.05, NO_FACE = 0.27, SMALLEST = 8, REFINEMENTS = 3;
const SLOWEST = 0.02, OPENING = 20, SPEED_SHARE = 0.2;
const TILT_FROM = [...Array.from({ length: 19 }, (_, i) => 17 + i), 36, 39, 42, 45];
const AXES = [
  [
    -28.13, -23.69, -17.76, -11.84, -5.92, 5.92, 11.84, 17.76, 23.69, 28.13, 0, 0, 0, 0, -7.16, -3.7, 0, 3.7,
    7.16, -22.21, -8.14, 8.14, 22.21,
  ],
  [
    9.92, -12.79, -24.93, -28.44, -27.05, -27.05, -28.44, -24.93, -12.79, 9.92, -9.57, -6.16, -3.26, 0.14, 26.2,
    22.69, 22.42, 22.69, 26.2, 19.03, 13.59, 13.59, 19.03,
  ],
  [
    62.91, 9.36, -22.89, -37.9, -41.78, -41.78, -37.9, -22.89, 9.36, 62.91, -16.18, -26.88, -39.08, -49.78, 10.37,
    -4.64, -8.61, -4.64, 10.37, 56.95, 37.89, 37.89, 56.95,
  ],
];

/** The corners of a box, clockwise from [x_min, y_min]. */
function boxCorners([x_min, y_min, x_max, y_max]) {
  return [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]];
}

/** The crop of landmark/README.md, "The crop" (landmark/README.md) around the points of a face that may be tilted: its corners, from the
 * face's top left on. */
function uprightBox(points) {
  const [x, y] = [0, 1].map((axis) =>
    AXES.map((weights) => TILT_FROM.reduce((sum, point, i) => sum + weights[i] * points[point][axis], 0)));
  const dot = (one, other) => one.reduce((sum, part, i) => sum + part * other[i], 0);
  const [xx, xy, yy] = [dot(x, x), dot(x, y), dot(y, y)], root = Math.sqrt(Math.max(xx * yy - xy * xy, 0));
  const down = [(yy + root) * x[1] - xy * y[1], (xx + root) * y[1] - xy * x[1]];
  const length = Math.hypot(...down), [sine, cosine] = [-down[0] / length, down[1] / length];
  const turned = points.map(([x, y]) => [x * cosine + y * sine, y * cosine - x * sine]);
  const [low, high] = [Math.min, Math.max].map((end) => [0, 1].map((axis) => end(...turned.map((at) => at[axis]))));
  const [width, height] = [high[0] - low[0], high[1] - low[1]];
  const [left, top] = [low[0] - 0.05 * width, low[1] - 0.30 * height];
  const box = boxCorners([left, top, left + 1.05 * 1.05 * width, top + 1.30 * 1.05 * height]);
  return box.map(([x, y]) => [x * cosine - y * sine, y * cosine + x * sine]);
}

/** Cuts a tilted box out of a picture, black where it leaves it, into a Float32Array [128, 128, 3], BGR: as
 * cv2.warpAffine with INTER_LINEAR, which no canvas does. */
function cutUpright({ width, height, data }, [start, right, , down], crop) {
  const [across, along] = [right, down].map((end) => end.map((place, axis) => (place - start[axis]) / SIDE));
  const value = (x, y, channel) =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : data[4 * (y * width + x) + channel];
  let at = 0;
  for (let row = 0; row < SIDE; row++) {
    for (let column = 0; column < SIDE; column++) {
      const x = start[0] + (column + 0.5) * across[0] + (row + 0.5) * along[0] - 0.5;
      const y = start[1] + (column + 0.5) * across[1] + (row + 0.5) * along[1] - 0.5;
      const left = Math.floor(x), top = Math.floor(y), beside = x - left, below = y - top;
      for (let channel = 2; channel >= 0; channel--) {
        const first = value(left, top, channel) * (1 - beside) + value(left + 1, top, channel) * beside;
        const second = value(left, top + 1, channel) * (1 - beside) + value(left + 1, top + 1, channel) * beside;
        crop[at++] = Math.round(first * (1 - below) + second * below);
      }
    }
  }
}

/** The face in a box, corners: the mean of two looks, a nudge to either side, and how far its points follow the nudge,
 * as a share of it: little where there is a face. */
async function look(run, picture, corners) {
  const nudge = [0, 1].map((axis) => NUDGE * (corners[2][axis] - corners[0][axis]));
  const crops = new Float32Array(2 * SIDE * SIDE * 3);
  const boxes = [-1, 1].map((sign) => corners.map((corner) => corner.map((place, axis) => place + sign * nudge[axis])));
  boxes.forEach((box, i) => cutUpright(picture, box, crops.subarray((i * crops.length) / 2)));
  const shares = await run(crops);
  const [one, other] = boxes.map(([start, right, , down], i) => Array.from({ length: LANDMARKS }, (_, point) => {
    const [x, y] = [0, 1].map((axis) => shares[2 * (i * LANDMARKS + point) + axis]);
    return start.map((place, axis) => place + x * (right[axis] - place) + y * (down[axis] - place));
  }));
  const spread = one.reduce((sum, [x, y], i) => sum + Math.hypot(x - other[i][0], y - other[i][1]), 0) / LANDMARKS;
  const points = one.map(([x, y], i) => [(x + other[i][0]) / 2, (y + other[i][1]) / 2]);
  return { points, moved: spread / (2 * Math.hypot(...nudge)) };
}

/** The face whose points are about there, as in the frame before; null where the picture has no room for one. */
async function refine(run, picture, points) {
  const corners = uprightBox(points), frame = [picture.width, picture.height];
  const sides = [1, 3].map((i) => Math.hypot(corners[i][0] - corners[0][0], corners[i][1] - corners[0][1]));
  const held = frame.every((length, axis) => {
    const middle = (corners[0][axis] + corners[2][axis]) / 2;
    return middle > 0 && middle < length && sides[axis] >= SMALLEST && sides[axis] < 2 * Math.max(...frame);
  });
  return held ? look(run, picture, corners) : null;
}

/** The points of the face in a photo that is about where a box is, and not on its side; null where there is none. */
export async function find(run, picture, box) {
  let face = await look(run, picture, boxCorners(box));
  for (let i = 0; face && i < REFINEMENTS; i++) face = await refine(run, picture, face.points);
  return pointsOf(face);
}

/** The points of what look and refine find, or null where it is no face. */
function pointsOf(face) {
  return face && face.moved < NO_FACE ? face.points : null;
}

/** Follows a face through a video that starts out in a frame of it, a box: an object whose next(picture) returns its
 * points, steadied by a One Euro filter (Casiez, Roussel, Vogel, CHI 2012), or null where it is lost. */
export function follow(run, box) {
  let found = null, before, speeds;
  return {
    async next(picture) {
      const known = found;
      found = known ? pointsOf(await refine(run, picture, known)) : await find(run, picture, box);
      if (!found) return null;
      if (!known) [before, speeds] = [found, found.map(() => [0, 0])];
      const [start, right] = uprightBox(known ?? found), side = Math.hypot(right[0] - start[0], right[1] - start[1]);
      speeds = speeds.map((speed, i) => speed.map((was, axis) =>
        was + SPEED_SHARE * ((found[i][axis] - before[i][axis]) / side - was)));
      before = before.map((point, i) => {
        const cutoff = SLOWEST + OPENING * Math.hypot(...speeds[i]);
        const share = 1 / (1 + 1 / (2 * Math.PI * cutoff));
        return point.map((was, axis) => was + share * (found[i][axis] - was));
      });
      return before;
    },
  };
}
