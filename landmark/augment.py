"""Augmentation: a face moved and lit anew, so that no crop comes twice."""

from statistics import NormalDist

import cv2
import numpy as np

from landmark.pictures import decode_picture
from landmark.points import IMAGE_SIZE, JAW, LANDMARKS, MIRROR, WHOLE_CROP, crop_box, face_box, to_photo

# A standard normal value for each byte: uniform random bytes become normally distributed.
NORMAL = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])


def augment_batch(recipe, seed, step, images, labels, boxes, photos):
    """Augments the faces of one batch, the same for the same seed and step.

    recipe: Recipe; rotation, jitter and light reach full strength at step augment_ramp_steps (0: at once).
    seed: int.
    step: int, of the training; at 0, if there is a ramp, faces are mirrored and nothing else.
    images: [N] bytes, the crop of each record, used if the record has no readable photo.
    labels: float32 [N, 136], NaN for a point without a label.
    boxes: int64 [N, 4], x_min y_min x_max y_max in pixels of the photo.
    photos: [N] bytes, a picture file each, or empty.
    Returns: (crops uint8 [N, 128, 128, 3], labels float32 [N, 136]).
    """
    rng = np.random.default_rng([seed, step])
    strength = min(1, step / recipe.augment_ramp_steps) if recipe.augment_ramp_steps else 1
    crops = []
    for i, (image, photo) in enumerate(zip(images, photos, strict=True)):
        picture, box = decode_picture(photo) if photo else None, boxes[i]
        if picture is None:
            picture = np.frombuffer(image, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
            box = WHOLE_CROP
        points = to_photo(labels[i].reshape(LANDMARKS, 2), box)
        rotation_std, box_jitter = strength * recipe.rotation_std, strength * recipe.box_jitter
        crop, points = move_face(picture, points, box, rotation_std, box_jitter, recipe.mirror_label_shift, rng)
        if recipe.repainted_share and rng.random() < strength * recipe.repainted_share:
            crop = repaint(crop, rng)
        crops.append(change_light(crop, strength, rng))
        labels[i] = points.ravel()
    return np.array(crops), labels


def move_face(photo, points, box, rotation_std, box_jitter, mirror_label_shift, rng):
    """Turns and mirrors a face and cuts the crop of what results, with each side of its box jittered.

    photo: uint8 [H, W, 3].
    points: float [68, 2] in pixels of the photo; NaN for a point without a label.
    box: x_min, y_min, x_max, y_max of the face crop in pixels of the photo.
    rotation_std: degrees, standard deviation of the roll.
    box_jitter: standard deviation of each side of the box, in its sides.
    mirror_label_shift: how far to the right labels lie, in widths of the face; mirrored labels are moved there too.
    rng: numpy Generator.
    Returns: (crop uint8 [128, 128, 3], points [68, 2] as shares of its sides; a point cut off lies outside 0..1).
    """
    outline = points[np.isfinite(points).all(1)]
    if len(outline) < len(points):  # the ellipse in the face's box stands for what is missing
        low, high = np.reshape(face_box(box), [2, 2])
        around = np.linspace(0, 2 * np.pi, len(JAW))[:, None]
        ellipse = (low + high + (high - low) * np.hstack([np.cos(around), np.sin(around)])) / 2
        outline = np.concatenate([outline, ellipse])
    angle = np.deg2rad(rotation_std * np.clip(rng.normal(), -3, 3))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        rotation = rotation @ np.diag([-1.0, 1.0])
        shift = 2 * mirror_label_shift * np.ptp(outline[:, 0])
        points = points[MIRROR] - [shift, 0]  # to the left: they are mirrored below
    points = points @ rotation.T
    low, high = np.array(crop_box(outline @ rotation.T), np.float64).reshape(2, 2)
    jitter = box_jitter * np.clip(rng.normal(size=[2, 2]), -3, 3) * (high - low)
    low, high = low + jitter[0], high + jitter[1]
    scale = IMAGE_SIZE / (high - low)
    # cv2.resize, which cuts the crops, has pixel centres at halves.
    matrix = np.column_stack([scale[:, None] * rotation, scale * (0.5 - low) - 0.5])
    crop = cv2.warpAffine(photo, matrix, (IMAGE_SIZE, IMAGE_SIZE), flags=cv2.INTER_LINEAR)
    return crop, (points - low) / (high - low)


def repaint(crop, rng):
    """A crop, uint8 [128, 128, 3], mixed with a random convolution of it: shapes stay, colours and textures change.

    After Xu, Liu, Yang, Raffel, Niethammer, "Robust and Generalizable Visual Representation Learning via Random
    Convolutions", ICLR 2021. rng: numpy Generator.
    """
    size = rng.choice([1, 3, 5, 7])
    mixed = cv2.transform(cv2.filter2D(np.float32(crop), -1, rng.normal(size=(size, size))), rng.normal(size=(3, 3)))
    mixed = (mixed - mixed.mean()) * (crop.std() / max(mixed.std(), 1e-3)) + crop.mean()
    return np.clip(crop + rng.random() * (mixed - crop), 0, 255).astype(np.uint8)


def change_light(crop, strength, rng):
    """A crop, uint8 [128, 128, 3], BGR, with the light, blur and noise of other cameras, now and then partly covered.

    It may be changed in place. strength: 0..1, how often anything is changed; rng: numpy Generator.
    """
    if rng.random() < 0.15 * strength:  # a smaller face, enlarged
        small = cv2.resize(crop, None, fx=(share := rng.uniform(0.35, 0.8)), fy=share, interpolation=cv2.INTER_AREA)
        crop = cv2.resize(small, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.1 * strength:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.15 * strength:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.8 * strength:
        levels = (np.arange(256) / 255)[:, None] ** rng.uniform(0.7, 1.4)
        levels = levels * rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3) + rng.uniform(-0.12, 0.12)
        crop = cv2.LUT(crop, np.clip(255 * levels, 0, 255).astype(np.uint8)[:, None])
    if rng.random() < 0.3 * strength:
        size = rng.integers(10, 55, 2)
        top, left = rng.integers(-size // 2, IMAGE_SIZE - size // 2)
        covered = crop[max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
        covered[:] = rng.integers(0, 256, covered.shape if rng.random() < 0.5 else 3, np.uint8)
    if rng.random() < 0.1 * strength:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        crop = cv2.imdecode(cv2.imencode(".jpg", crop, quality)[1], cv2.IMREAD_COLOR)
    if rng.random() < 0.15 * strength:
        levels = np.round(rng.uniform(2, 10) * NORMAL).astype(np.int16)
        noise = cv2.LUT(rng.integers(0, 256, crop.shape, np.uint8), levels)
        crop = cv2.add(crop, noise, dtype=cv2.CV_8U)
    return crop
