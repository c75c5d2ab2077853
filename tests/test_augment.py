import cv2
import numpy as np
import tensorflow.compat.v1 as tf

from landmark.augment import augment_batch, change_light, move_face, repaint
from landmark.points import MIRROR, crop_box, to_crop
from landmark.recipe import DEFAULT


def test_points_move_with_the_face(make):
    """White discs drawn at the points of a black photo lie where move_face says the points are."""
    rng = np.random.default_rng(5)
    columns, rows = np.meshgrid(np.linspace(130, 320, 9), np.linspace(120, 330, 8))
    points = np.stack([columns.ravel()[:68], rows.ravel()[:68]], -1)
    photo = np.zeros((450, 450, 3), np.uint8)
    for x, y in points:
        cv2.circle(photo, (int(x), int(y)), 4, (255, 255, 255), cv2.FILLED)
    turned, off = [], []
    for _ in range(20):
        crop, moved = move_face(photo, np.trunc(points), (), DEFAULT.rotation_std, DEFAULT.box_jitter, 0, rng)
        moved = moved * 128 - 0.5 + 0.5 * 128 / 210  # from pixel indices of the photo to those of the crop
        turned.append(np.arctan2(*(moved[8] - moved[0])[::-1]))
        _, _, _, centres = cv2.connectedComponentsWithStats((crop[..., 0] > 110).astype(np.uint8))
        inside = moved[((moved > 3) & (moved < 124)).all(-1)]
        assert len(inside) > 40
        off += [np.linalg.norm(centres[1:] - point, axis=-1).min() for point in inside]
    assert np.ptp(turned) > 0.3
    assert max(off) < 1


def test_labels_lie_on_the_same_side_of_the_face_in_the_mirror(make):
    points = make.points(2)
    crops = []
    for seed in range(8):
        crops.append(move_face(make.photo(3), points, (), 0, 0, 0.004, np.random.default_rng(seed))[1])
    true = to_crop(points, crop_box(points))
    plain, *_, mirrored = sorted(crops, key=lambda moved: np.abs(moved - true).max())
    back = mirrored[MIRROR] * [-1, 1] + [1, 0]
    width = np.ptp(plain[:, 0])
    np.testing.assert_allclose(back[:, 0] - plain[:, 0], -2 * 0.004 * width, atol=0.01)


def test_a_jaw_without_labels_gets_none_and_moves_no_other_point(make):
    points = make.points(2)
    box = crop_box(points)
    unlabelled = points.copy()
    unlabelled[:17] = np.nan
    for seed in range(8):
        crop, moved = move_face(make.photo(3), points, box, 0, 0, 0, np.random.default_rng(seed))
        other, inner = move_face(make.photo(3), unlabelled, box, 0, 0, 0, np.random.default_rng(seed))
        assert np.isnan(inner[:17]).all()
        np.testing.assert_allclose(inner[17:], moved[17:], atol=0.03)  # boxes are in whole pixels
        assert np.abs(crop.astype(int) - other).mean() < 12
    _, turned = move_face(make.photo(3), unlabelled, box, 12, 0.05, 0.004, np.random.default_rng(0))
    assert np.isfinite(turned[17:]).all()


def test_augmentation_depends_on_seed_and_step_and_starts_with_mirroring_alone(records):
    faces = []
    for record in tf.io.tf_record_iterator(str(records / "test.tfrecords")):
        feature = tf.train.Example.FromString(record).features.feature
        label, box = np.array(feature["label"].float_list.value, np.float32), feature["box"].int64_list.value[:]
        faces.append((feature["image"].bytes_list.value[0], label, box, feature["photo"].bytes_list.value[0]))
    images, labels, boxes, photos = (list(column) for column in zip(*faces, strict=True))

    def augment(seed, step, photos=photos):
        return augment_batch(DEFAULT, seed, step, images, np.array(labels), np.array(boxes), photos)

    plain = [np.frombuffer(image, np.uint8).reshape(128, 128, 3).astype(int) for image in images]
    for chosen in photos, [b""] * len(photos):  # with and without a photo in the record
        for crop, label, image, true in zip(*augment(1, 0, chosen), plain, labels, strict=True):
            mirrored = np.abs(crop - image).mean() > np.abs(crop[:, ::-1] - image).mean()
            assert np.abs((crop[:, ::-1] if mirrored else crop) - image).mean() < 4
            expected = true.reshape(68, 2)
            if mirrored:
                expected = expected[MIRROR] * [-1, 1] + [1, 0]
            np.testing.assert_allclose(label.reshape(68, 2), expected, atol=0.03)  # boxes are in whole pixels
    for one, other in zip(augment(1, 5000), augment(1, 5000), strict=True):
        np.testing.assert_array_equal(one, other)
    for seed, step in (2, 5000), (1, 5001):
        assert (augment(1, 5000)[1] != augment(seed, step)[1]).any()


def test_changed_light_leaves_a_recognisable_crop(make):
    rng = np.random.default_rng(0)
    crop = make.photo(3, 128, 128)
    changed = [change_light(crop.copy(), 1, rng) for _ in range(100)]
    assert all(one.shape == (128, 128, 3) and one.dtype == np.uint8 for one in changed)
    differences = [np.abs(one.astype(int) - crop).mean() for one in changed]
    assert min(differences) < 5 < np.median(differences) < 60
    np.testing.assert_array_equal(change_light(crop.copy(), 0, rng), crop)


def test_a_repainted_crop_keeps_its_edges_and_changes_its_colours():
    crop, rng = np.zeros((128, 128, 3), np.uint8), np.random.default_rng(0)
    crop[32:96, 32:96] = 255
    changed = [repaint(crop.copy(), rng) for _ in range(60)]
    assert all(one.shape == crop.shape and one.dtype == np.uint8 for one in changed)
    assert np.median([np.abs(one.astype(int) - crop).mean() for one in changed]) > 10
    for one in changed:
        steps = np.abs(np.diff(one[64].astype(int), axis=0)).sum(1)
        assert steps[:27].sum() + steps[36:91].sum() + steps[100:].sum() == 0 < steps[27:36].sum()
    assert len({one.tobytes() for one in changed}) == len(changed)


def test_the_recipe_says_how_many_crops_are_repainted(make):
    """Black and white crops: other light tints them by less than 30%."""
    crop = np.zeros((128, 128, 3), np.uint8)
    crop[32:96, 32:96] = 255
    labels = np.tile(make.points(2).astype(np.float32).ravel() / 450, (100, 1))
    for share, low, high in (0, 0, 0), (0.3, 5, 30), (1, 31, 100):
        recipe = DEFAULT._replace(repainted_share=share)
        crops, _ = augment_batch(recipe, 0, 5000, [crop.tobytes()] * 100, labels.copy(), [None] * 100, [b""] * 100)
        middle = crops[:, 40:88, 40:88].mean((1, 2)) + 20
        assert low <= (middle.max(1) > 1.3 * middle.min(1)).sum() <= high
