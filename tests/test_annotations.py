import numpy as np
import pytest
from conftest import REPO

from landmark.annotations import find_annotations, split_faces
from landmark.formats import Annotation

REAL = REPO / "../shared/300W_LP"


def test_one_face_in_ten_is_for_testing_whatever_the_order():
    stems = [f"{group}/LFPW_image_train_{i:04}" for i in range(200) for group in ("LFPW", "LFPW_Flip")]
    faces = [Annotation(f"{stem}_{variant}", None, None, "300W_LP") for stem in stems for variant in range(3)]
    sides = dict(zip(faces, split_faces(faces), strict=True))
    assert sum(sides.values()) == 20 * 2 * 3
    held_out = {face.name.partition("/")[2].rpartition("_")[0] for face, side in sides.items() if side}
    assert len(held_out) == 20
    assert dict(zip(faces[::-1], split_faces(faces[::-1]), strict=True)) == sides


@pytest.mark.skipif(not REAL.is_dir(), reason="the real set is not in ../shared/300W_LP")
def test_real_faces_are_all_found_and_split_by_face():
    faces = find_annotations([REAL])
    assert len(faces) == len(list(REAL.glob("landmarks/*/*_pts.mat"))) > 0
    names = [face.name for face in faces]
    test = split_faces(faces)
    assert 0.08 < np.mean(test) < 0.12
    people = [
        {name.rpartition("_")[0] for name, held in zip(names, test, strict=True) if held is side} for side in (0, 1)
    ]
    assert not people[0] & people[1]
