import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from landmark.cli import UserError
from landmark.mat import read_mat


def write(path, compressed=True, **variables):
    scipy.io.savemat(path, variables, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "bool"])
def test_matrices_are_those_that_scipy_wrote(tmp_path, kind, compressed):
    points = np.random.default_rng(0).uniform(0, 2 if kind == "bool" else 120, (68, 2)).astype(kind)
    cells = np.array([["a", 1.5]], object)
    others = {"a": 3, "text": "points", "long_name_of_no_use": np.eye(300), "cells": cells, "fields": {"pts_2d": 1}}
    path = write(tmp_path / "a.mat", compressed, **others, pts_2d=points, pts_3d=points[:2] * 2, one=7)
    found = read_mat(path, ["pts_2d", "pts_3d", "one", "none"])
    assert found.keys() == {"pts_2d", "pts_3d", "one"}
    np.testing.assert_array_equal(found["pts_2d"], points)
    np.testing.assert_array_equal(found["pts_3d"], points[:2] * 2)
    assert found["pts_2d"].dtype == np.float64 and found["one"].tolist() == [[7]]


@pytest.mark.parametrize("odd", [scipy.sparse.eye(3), np.eye(3) * 1j, "text", {"a": 1}, np.array([[1, "a"]], object)])
def test_anything_but_a_matrix_of_numbers_is_refused(tmp_path, odd):
    path = write(tmp_path / "a.mat", odd=odd, pts_2d=np.eye(3))
    assert read_mat(path, ["pts_2d"])["pts_2d"].shape == (3, 3)
    with pytest.raises(UserError, match="odd is not a plain matrix"):
        read_mat(path, ["pts_2d", "odd"])


@pytest.mark.parametrize("compressed", [True, False])
def test_any_damage_is_one_line_or_changes_numbers(tmp_path, compressed):
    path = write(tmp_path / "a.mat", compressed, pts_2d=np.random.default_rng(0).uniform(0, 450, (68, 2)))
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    damages = [whole[:length] for length in range(len(whole))]
    for _ in range(500):
        damaged = bytearray(whole)
        for place in rng.integers(124, len(whole), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        damages.append(bytes(damaged))
    for damaged in damages:
        path.write_bytes(damaged)
        try:
            found = read_mat(path, ["pts_2d"])
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert all(numbers.dtype == np.float64 for numbers in found.values())
    assert refused > len(whole) - 200


def test_a_file_that_unpacks_to_a_thousand_times_its_size_takes_little_memory(tmp_path):
    path = write(tmp_path / "a.mat", pts_2d=np.eye(3))
    bomb = zlib.compress(b"\x0e\0\0\0\0\0\0\xf0" + bytes(300_000_000))
    element = b"\x0f\0\0\0" + len(bomb).to_bytes(4, "little") + bomb
    path.write_bytes(path.read_bytes()[:128] + 20 * element)
    tracemalloc.start()
    with pytest.raises(UserError, match="damaged"):
        read_mat(path, ["pts_2d"])
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
