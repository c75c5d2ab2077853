from fuzz import FUZZED


def test_damaged_files_of_every_kind_end_in_one_line_at_most(run, tmp_path):
    done = run("tests/fuzz.py", "--count", 60, "--keep", tmp_path / "failed")
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if ": 60 files, " in line]
    assert len(lines) == len(FUZZED) and all(", 0 failed" in line for line in lines)
    assert not (tmp_path / "failed").exists()
