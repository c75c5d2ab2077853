"""Who may import whom: scripts import the networks and the shared modules, and only bench/ imports one: train.py."""

import ast

import pytest
from conftest import REPO

SCRIPTS = {"prepare_tfrecords", "train", "freeze_graph", "test_pb", "evaluate", "bench", "data"}
FILES = [
    path for path in REPO.rglob("*.py") if path.relative_to(REPO).parts[0] in (path.name, "landmark", "bench", "data")
]


def imported(path):
    """The top names that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_the_files_are_found():
    assert {path.name for path in FILES} >= {"train.py", "senet.py", "points.py", "speed.py", "make_sample.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_no_script_is_imported(path):
    allowed = {"train"} if path.parent.name == "bench" else set()
    assert not (SCRIPTS - allowed) & set(imported(path))


@pytest.mark.parametrize("module", ["landmark", "landmark.annotations"])
def test_users_and_workers_do_not_pay_for_tensorflow(module, run):
    done = run("-c", f"import sys, {module}; sys.exit('tensorflow' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_importing_the_scripts_does_nothing(run, tmp_path):
    done = run("-c", f"import {', '.join(sorted(SCRIPTS - {'bench', 'data'}))}", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and not list(tmp_path.iterdir())
