// What becomes of faces: a drawing, and the lines of points.csv as test_pb.py writes them.
import { COLUMNS, LINES, OPENINGS } from "./constants.js";
import { apart, bounds, mean } from "./geometry.js";

const GREEN = "#3dffa2", YELLOW = "#ffd166", AXES = ["#ff4b5c", "#35d05b", "#4d96ff"];
/** How far a face's eyes and mouth are open, as measure_openings of landmark/measures.py has it. */
export function openings({ points }) {
  const gap = ([these, those]) => mean(these.map((i, k) => apart(points[i], points[those[k]])));
  return Object.fromEntries(Object.entries(OPENINGS).map(([part, [lids, ends]]) => [part, gap(lids) / gap(ends)]));
}
/** The lines of points.csv of a picture, or of a frame of a video at some second. */
export function tableLines(picture, seconds, faces, { width, height }) {
  const name = /[",\r\n]/.test(picture) ? `"${picture.replaceAll('"', '""')}"` : picture;
  const start = { picture: name, seconds: seconds === null ? "" : Number(seconds.toFixed(4)) };
  const rows = faces.map((face) => {
    const row = { ...start, face: face.number, score: face.score.toFixed(2), width, height };
    face.points.forEach(([x, y], i) => Object.assign(row, { [`x${i}`]: x.toFixed(2), [`y${i}`]: y.toFixed(2) }));
    face.spread.forEach((pixels, i) => (row[`spread${i}`] = pixels.toFixed(2)));
    for (const angle of ["yaw", "pitch", "roll"]) row[angle] = face.pose[angle].toFixed(2).replace(/0$|NaN/, "");
    for (const [part, open] of Object.entries(openings(face))) row[part] = open.toFixed(4).replace(/0{1,3}$|NaN/, "");
    return row;
  });
  return (rows.length ? rows : [start]).map((row) => COLUMNS.map((column) => row[column] ?? "").join(","));
}
export const tableOf = (lines) => [COLUMNS.join(","), ...lines, ""].join("\r\n");

function line(context, points, colour, lineWidth) {
  context.beginPath();
  points.forEach((point) => context.lineTo(...point));
  Object.assign(context, { strokeStyle: colour, lineWidth, lineJoin: "round", lineCap: "round" }).stroke();
}
/** Draws faces. shown: what of them, {points, box, pose, score, openings}; pixel: of the screen, in the canvas's;
 * isMirrored: whether the canvas is, so that writing must be turned round. */
export function drawFaces(context, faces, shown, pixel, isMirrored) {
  for (const { box, points, pose, ...face } of faces) {
    const side = Math.min(apart(box[0], box[1]), apart(box[0], box[3]));
    const dot = Math.max(Math.min(1.3 * pixel, side / 70), side / 130); // small on a small face
    if (shown.box) line(context, [...box, box[0]], YELLOW, dot);
    for (const part of shown.points ? LINES : []) line(context, part.map((i) => points[i]), `${GREEN}99`, 0.7 * dot);
    for (const [x, y] of shown.points ? points : []) line(context, [[x, y], [x + 0.01, y]], GREEN, 2.2 * dot);
    if (shown.pose) pose.axes.forEach((axis, i) => {
      const [x, y] = axis.map((part) => side * part), [left, top] = points[27], end = [left + x, top + y];
      const wing = (share) => [end[0] - 0.15 * x + share * y, end[1] - 0.15 * y - share * x];
      line(context, [points[27], end, wing(0.08), end, wing(-0.08)], AXES[i], 1.5 * dot);
    });
    const [right, left, mouth] = Object.values(openings({ points })).map((open) => open.toFixed(2));
    const texts = shown.score ? [`face ${face.number} · ${Math.round(100 * face.score)}%`] : [];
    if (shown.openings) texts.push(`eyes ${right} ${left}`, `mouth ${mouth}`);
    write(context, texts, bounds(box), Math.max(9 * pixel, Math.min(13 * pixel, side / 6)), isMirrored);
  }
}
/** Writes lines above a box, in a size. */
function write(context, texts, [left, top, right], size, isMirrored) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  const widths = texts.map((text) => context.measureText(text).width), height = 1.3 * size * texts.length;
  const width = Math.max(...widths) + size;
  const x = Math.max(0, Math.min((left + right - width) / 2, context.canvas.width - width));
  const y = Math.max(0, top - height - size);
  context.setTransform(isMirrored ? -1 : 1, 0, 0, 1, isMirrored ? x + width : x, y);
  if (texts.length) Object.assign(context, { fillStyle: "#000b" }).fillRect(0, 0, width, height + 0.4 * size);
  context.fillStyle = "#fff";
  texts.forEach((text, i) => context.fillText(text, size / 2, (1.2 + 1.3 * i) * size));
  context.resetTransform();
}
