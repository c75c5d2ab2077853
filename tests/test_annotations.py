from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPO

from landmark.annotations import STORED_CROP, find_annotations, read_face, split_faces
from landmark.augment import move_face
from landmark.formats import Annotation
from landmark.points import crop_box, to_photo
from landmark.recipe import DEFAULT

REAL = REPO / "../shared/300W_LP"


def test_one_face_in_ten_is_for_testing_in_any_order():
    stems = [f"{group}/LFPW_image_train_{i:04}" for i in range(200) for group in ("LFPW", "LFPW_Flip")]
    faces = [
        Annotation(name=f"{stem}_{variant}", points=None, photo=Path(f"{stem}_{variant}.jpg"), format="300W_LP")
        for stem in stems
        for variant in range(3)
    ]
    is_test = dict(zip(faces, split_faces(faces), strict=True))
    assert sum(is_test.values()) == 20 * 2 * 3
    held_out = {face.name.partition("/")[2].rpartition("_")[0] for face, test in is_test.items() if test}
    assert len(held_out) == 20
    assert dict(zip(faces[::-1], split_faces(faces[::-1]), strict=True)) == is_test


@pytest.mark.parametrize("centre, side", [((700, 500), 90), ((700, 500), 500), ((120, 900), 400)])
def test_a_large_photo_is_cut_to_what_augmentation_can_reach(centre, side, tmp_path, make):
    photo, points = 100 + make.photo(1, 1000, 1400) // 2, make.points(2, centre, side)
    make.face(tmp_path, "SET", "a_0", 0, points, photo)
    photo = cv2.imread(str(tmp_path / "SET/a_0.jpg"))
    (annotation,) = find_annotations([tmp_path])
    face = read_face(annotation)
    stored = cv2.imdecode(np.frombuffer(face.photo, np.uint8), cv2.IMREAD_COLOR)
    assert max(stored.shape) <= 2.3 * STORED_CROP and len(face.photo) < 50_000
    kept = to_photo(face.label.reshape(68, 2), face.box)
    for seed in range(8):  # draws are cut off at 3 standard deviations
        moves = DEFAULT.rotation_std, DEFAULT.box_jitter, 0
        crop, moved = move_face(photo, points, crop_box(points), *moves, np.random.default_rng(seed))
        other, from_record = move_face(stored, kept, face.box, *moves, np.random.default_rng(seed))
        np.testing.assert_allclose(from_record, moved, atol=0.02)  # boxes have whole pixels
        inside = (cv2.erode(np.minimum(crop, other), np.ones([5, 5])) > 0).all(-1)
        assert np.abs(crop.astype(int) - other)[inside].mean() < 2.5
        assert ((other == 0).all(-1) <= (cv2.erode(crop, np.ones([9, 9])) == 0).all(-1)).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real set is not in ../shared/300W_LP")
def test_real_faces_are_all_found_and_split_by_face():
    faces = find_annotations([REAL])
    assert len(faces) == len(list(REAL.glob("landmarks/*/*_pts.mat"))) > 0
    names = [face.name for face in faces]
    is_test = split_faces(faces)
    assert 0.08 < np.mean(is_test) < 0.12
    train, test = (
        {name.rpartition("_")[0] for name, each in zip(names, is_test, strict=True) if each is split}
        for split in (False, True)
    )
    assert train and test and not train & test
