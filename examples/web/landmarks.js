// The 68 points of a face, found and followed as landmark/points.py and landmark/find.py do, in any JavaScript; but a
// tilted face is not turned upright first.
//
// A picture is an ImageData or the like: {width, height, data: RGBA bytes}. A box is [x_min, y_min, x_max, y_max],
// integers, points are 68 [x, y], both in pixels of the picture. `run` is the network: an async function of a
// Float32Array of two crops [2, 128, 128, 3], BGR, 0..255, that returns their outputs [2, 136].

export const SIDE = 128, LANDMARKS = 68;
// The parts of a face as lines through the points.
export const LINES = [
  [0, 16], [17, 21], [22, 26], [27, 30], [31, 35], [36, 41, 36], [42, 47, 42], [48, 59, 48], [60, 67, 60],
].map(([first, last, ...closed]) => [...Array.from({ length: last - first + 1 }, (_, i) => first + i), ...closed]);
const NUDGE = 0.05, NO_FACE = 0.32, SMALLEST = 8, REFINEMENTS = 3;
const SLOWEST = 0.02, OPENING = 20, SPEED_SHARE = 0.2;

/** The box that contract 2 (landmark/README.md) cuts around points. */
export function cropBox(points) {
  const [x, y] = [0, 1].map((axis) => points.map((point) => point[axis]));
  let [x_min, y_min, x_max, y_max] = [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)].map(Math.trunc);
  y_min = Math.trunc(y_min - 0.30 * (y_max - y_min));
  y_max = Math.trunc(y_max + 0.05 * (y_max - y_min));
  x_min = Math.trunc(x_min - 0.05 * (x_max - x_min));
  x_max = Math.trunc(x_max + 0.05 * (x_max - x_min));
  return [x_min, y_min, x_max, y_max];
}

/** Cuts a box out of a picture, black where it leaves it, into a Float32Array [128, 128, 3], BGR: as cv2.resize with
 * INTER_LINEAR, which no canvas does. */
export function cropFace({ width, height, data }, [x_min, y_min, x_max, y_max], crop) {
  const columns = steps(x_min, x_max), rows = steps(y_min, y_max);
  const value = (x, y, channel) =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : data[4 * (y * width + x) + channel];
  let at = 0;
  for (let row = 0; row < SIDE; row++) {
    const top = rows.first[row], bottom = rows.second[row], down = rows.share[row];
    for (let column = 0; column < SIDE; column++) {
      const left = columns.first[column], right = columns.second[column], along = columns.share[column];
      for (let channel = 2; channel >= 0; channel--) {
        const above = value(left, top, channel) * (1 - along) + value(right, top, channel) * along;
        const below = value(left, bottom, channel) * (1 - along) + value(right, bottom, channel) * along;
        crop[at++] = Math.round(above * (1 - down) + below * down);
      }
    }
  }
}

/** For each of the 128 pixels of a side from low to high: the two it lies between, and how far from the first. */
function steps(low, high) {
  const first = new Int32Array(SIDE), second = new Int32Array(SIDE), share = new Float32Array(SIDE);
  for (let i = 0; i < SIDE; i++) {
    const at = Math.min(Math.max(((i + 0.5) * (high - low)) / SIDE - 0.5, 0), high - low - 1);
    first[i] = low + Math.floor(at);
    second[i] = Math.min(first[i] + 1, high - 1);
    share[i] = at % 1;
  }
  return { first, second, share };
}

/** The points of the face in a box: the mean of two looks, a nudge to either side; null where they follow the nudge,
 * as they do where there is no face. */
export async function look(run, picture, [x_min, y_min, x_max, y_max]) {
  const nudge = [x_max - x_min, y_max - y_min].map((side) => Math.ceil(NUDGE * side));
  const crops = new Float32Array(2 * SIDE * SIDE * 3);
  const boxes = [-1, 1].map((sign) => [x_min, y_min, x_max, y_max].map((edge, i) => edge + sign * nudge[i % 2]));
  boxes.forEach((box, i) => cropFace(picture, box, crops.subarray((i * crops.length) / 2)));
  const shares = await run(crops);
  const [one, other] = boxes.map((box, i) => Array.from({ length: LANDMARKS }, (_, point) =>
    [0, 1].map((axis) => box[axis] + shares[2 * (i * LANDMARKS + point) + axis] * (box[axis + 2] - box[axis]))));
  const moved = one.reduce((sum, [x, y], i) => sum + Math.hypot(x - other[i][0], y - other[i][1]), 0) / LANDMARKS;
  if (moved > NO_FACE * 2 * Math.hypot(...nudge)) return null;
  return one.map(([x, y], i) => [(x + other[i][0]) / 2, (y + other[i][1]) / 2]);
}

/** The points of a face from where they about are, as in the frame before; null where there is no face. */
export async function refine(run, picture, points) {
  const box = cropBox(points), frame = [picture.width, picture.height];
  const held = frame.every((length, axis) => {
    const middle = (box[axis] + box[axis + 2]) / 2, side = box[axis + 2] - box[axis];
    return middle > 0 && middle < length && side >= SMALLEST && side < 2 * Math.max(...frame);
  });
  return held ? look(run, picture, box) : null;
}

/** The points of the face in a photo that is about where a box is; null where there is none. */
export async function find(run, picture, box) {
  let points = await look(run, picture, box);
  for (let i = 0; points && i < REFINEMENTS; i++) points = await refine(run, picture, points);
  return points;
}

/** Follows a face through a video that starts out in a frame of it, a box: an object whose next(picture) returns its
 * points, steadied by a One Euro filter (Casiez, Roussel, Vogel, CHI 2012), or null where it is lost. */
export function follow(run, box) {
  let found = null, before, speeds;
  return {
    async next(picture) {
      const known = found;
      found = known ? await refine(run, picture, known) : await find(run, picture, box);
      if (!found) return null;
      if (!known) [before, speeds] = [found, found.map(() => [0, 0])];
      const [x_min, , x_max] = cropBox(known ?? found);
      speeds = speeds.map((speed, i) => speed.map((was, axis) =>
        was + SPEED_SHARE * ((found[i][axis] - before[i][axis]) / (x_max - x_min) - was)));
      before = before.map((point, i) => {
        const cutoff = SLOWEST + OPENING * Math.hypot(...speeds[i]);
        const share = 1 / (1 + 1 / (2 * Math.PI * cutoff));
        return point.map((was, axis) => was + share * (found[i][axis] - was));
      });
      return before;
    },
  };
}
