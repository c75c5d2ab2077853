import numpy as np
import pytest
from conftest import spec_box, spec_crop

from landmark.measures import measure_faces, measure_openings, nme
from landmark.points import MIRROR, OPENINGS, crop_box, crop_face, face_box, to_crop, to_photo


def test_crop_box_cuts_toward_zero_and_widens_in_the_order_of_the_spec():
    rng = np.random.default_rng(0)
    for _ in range(500):
        points = rng.uniform(-300, 600, 2) + rng.uniform(0, rng.uniform(5, 500, 2), (68, 2))
        assert crop_box(points) == spec_box(points)
    corners = np.array([[-10.9, -20.9], [99.9, 80.9]] * 34)
    assert crop_box(corners) == (-15, -50, 104, 86)


@pytest.mark.parametrize(
    "box",
    [(100, 50, 300, 400), (-40, -60, 200, 300), (350, 300, 520, 700), (-30, -20, 500, 480), (449, 449, 600, 460)],
    ids=["inside", "top left", "bottom right", "all round", "one pixel"],
)
def test_crop_is_black_outside_the_photo(make, box):
    photo = make.photo(3)
    np.testing.assert_array_equal(crop_face(photo, box), spec_crop(photo, box))


def test_label_goes_to_the_crop_and_back():
    rng = np.random.default_rng(1)
    points, boxes = rng.uniform(-50, 500, (5, 68, 2)), np.array([[10, 20, 110, 220]] * 4 + [[-30, -40, 90, 300]])
    shares = to_crop(points, boxes)
    np.testing.assert_allclose(shares[0, :, 0], (points[0, :, 0] - 10) / 100)
    np.testing.assert_allclose(shares[0, :, 1], (points[0, :, 1] - 20) / 200)
    np.testing.assert_allclose(to_photo(shares, boxes), points)
    np.testing.assert_allclose(to_photo(shares[4], boxes[4]), points[4])


def test_nme_by_hand():
    true = np.full((2, 68, 2), 40.0)
    true[:, 0], true[:, 1] = (0, 0), (100, 64)
    true[:, 36], true[:, 45] = (10, 20), (40, 60)
    predicted = true + [3, 4]
    predicted[1, :34] = true[1, :34]
    boxes = np.array([[-50, -200, 170.5, 346]] * 2)  # of faces of 200 x 400
    inter_ocular, box, inner = nme(predicted, true, boxes)
    np.testing.assert_allclose(inter_ocular, [5 / 50, 2.5 / 50])
    np.testing.assert_allclose(box, [5 / 80, 2.5 / 80])
    np.testing.assert_allclose(inner, [5 / 80, 5 * 34 / 51 / 80])
    true[1, :17] = np.nan  # 17 of the 51 that have a label are right
    inter_ocular, box, inner = nme(predicted, true, boxes)
    np.testing.assert_allclose(inter_ocular, [5 / 50, 5 * 34 / 51 / 50])
    np.testing.assert_allclose(box, [5 / 80, 5 * 34 / 51 / np.sqrt(200 * 400)])
    np.testing.assert_allclose(inner, box)
    true[0, 45] = true[0, 36]  # some profiles
    assert np.isnan(nme(predicted, true, boxes).inter_ocular).tolist() == [True, False]


def test_face_box_is_the_way_back_from_the_crop():
    points = np.array([[100.0, 200.0], [300.0, 500.0]] * 34)
    np.testing.assert_allclose(face_box(crop_box(points)), [100, 200, 300, 500], atol=2)


def test_mirror_swaps_the_sides_of_the_face():
    mirror = np.array(MIRROR)
    assert (mirror[mirror] == np.arange(68)).all()
    # chin, nose bridge, lips' middles stay; outer eye corners, brow ends, mouth corners change places
    assert all(mirror[i] == i for i in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66))
    pairs = {
        0: 16,
        17: 26,
        21: 22,
        31: 35,
        36: 45,
        37: 44,
        39: 42,
        40: 47,
        41: 46,
        48: 54,
        50: 52,
        59: 55,
        60: 64,
        67: 65,
    }
    assert all(mirror[i] == j for i, j in pairs.items())


def test_failure_rate_and_auc_by_hand():
    true = np.zeros([4, 68, 2])
    true[:, 36], true[:, 45] = (0, 0), (100, 0)
    true[:, 8] = (50, 100)
    predicted = true + np.array([0, 2, 4, 12])[:, None, None] * [1, 0]
    measures = measure_faces(nme(predicted, true, np.zeros([4, 4])))
    assert measures["failure_rate"] == 0.25
    # The CED is 1/4 up to 2%, 1/2 up to 4%, 3/4 up to 8%.
    assert measures["auc"] == pytest.approx((0.25 * 2 + 0.5 * 2 + 0.75 * 4) / 8)
    assert measures["nme_box"] == pytest.approx(0.045)
    assert measures["failure_rate_box"] == 0.25


def test_openings_by_hand():
    points = np.random.default_rng(0).uniform(0, 100, [2, 68, 2])
    points[0, 36:42] = (0, 0), (1, -2), (3, -1), (4, 0), (3, 2), (1, 1)  # gaps 3 and 3 over a width of 4
    points[0, 42:48] = (9, 5), (9, 5), (10, 5), (11, 5), (10, 5), (9, 5)
    points[0, 60:68] = (0, 0), (1, 1), (2, 3), (3, 2), (6, 8), (3, 4), (2, 6), (1, 2)  # gaps 1, 3 and 2 over 10
    np.testing.assert_allclose(measure_openings(points)[0], [0.75, 0, 0.2])
    np.testing.assert_allclose(measure_openings(points[1]), measure_openings(points)[1])
    mirrored = measure_openings(points[:, MIRROR] * [-1, 1])
    np.testing.assert_allclose(mirrored, measure_openings(points)[:, [1, 0, 2]])
    points[0, 39] = points[0, 36]
    points[0, 62] = np.nan
    np.testing.assert_array_equal(measure_openings(points)[0], [np.nan, 0, np.nan])
    assert [*OPENINGS] == ["eye_open_right", "eye_open_left", "mouth_open"]
