"""Writing files: whole or not at all, and never in place of a file that is not ours.

A file is written beside its final name, under a name that holds our process number, and is locked for as long as that
process lives. The file LEDGER in each folder has a line for each file we wrote: its name, what it was made of, its size
and time.
"""

import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
import sys
from pathlib import Path

from landmark.cli import UserError, defer_signals

LEDGER, PARTIAL = ".written-by-landmark", ".partial-"
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # Lustre, some NFS and FUSE mounts


class Outputs:
    """The files that a script will write, checked before it does any work.

    A file is replaced only if an earlier run of ours wrote it, and it has not changed since. What killed runs left
    half-written of these files is removed.

    sources: dict of each file's Path to what it is made of (str) if it may only replace a file made of the same;
        otherwise to None.
    overwrite: whether to replace whatever is there.
    Raises UserError: something else is there, or in place of its folder, or another run is writing it.
    """

    def __init__(self, sources, overwrite=False):
        self._checked = {}
        written = {folder: read_ledger(folder) for folder in {path.parent for path in sources}}
        partials = {folder: _find_partials(folder) for folder in written}
        for folder in written:
            if folder.exists() and not folder.is_dir():
                raise UserError(f"{folder} is not a folder: name another")
        for path, source in sources.items():
            if not _remove_partials(partials[path.parent].get(_partial_end(path), ())):
                raise UserError(f"{path} is being written by another run: wait for it to end, or name another output")
            stamp = _stamp(path)
            made_of = written[path.parent].get((path.name, stamp), False)
            if stamp and made_of != source and not overwrite:
                why = f"made of {made_of}" if made_of else "not written by this command, or changed since"
                raise UserError(f"{path} is in the way, {why}: name another output, or replace it with --overwrite")
            self._checked[path] = source, stamp

    @contextlib.contextmanager
    def write(self, path):
        """whole_file() for one of the files, also entered in the ledger; UserError if it has changed meanwhile."""
        source, stamp = self._checked[path]
        with whole_file(path) as partial:
            yield partial
            if _stamp(path) != stamp:
                raise UserError(f"{path} was changed by another program meanwhile, and is kept: run this again")
            self._checked[path] = source, _stamp(partial)
            with open(path.with_name(LEDGER), "a") as ledger:
                ledger.write(json.dumps([path.name, *self._checked[path]]) + "\n")


@contextlib.contextmanager
def whole_file(path, create=Path.touch):
    """Yields a path beside `path` to write to, which becomes `path` if the block ends well and is deleted otherwise.

    create: function that makes what is to be written.
    Raises UserError, with `path` and the reason, if it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{_partial_end(path)}")
    try:
        try:
            create(partial)
            with _locked(partial):
                yield partial
                with defer_signals():
                    partial.replace(path)
        finally:
            _remove(partial)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def is_free(path):
    """Whether a Path can become a whole_folder(): it is new, or an empty folder."""
    return not os.path.exists(path) or path.is_dir() and not any(path.iterdir())


def whole_folder(path):
    """whole_file() for a folder; removes what killed runs left of it. UserError: its `path` is not is_free."""
    if not is_free(path):
        raise UserError(f"{path} exists: name a new folder")
    path = Path(path).resolve()
    _remove_partials(_find_partials(path.parent).get(_partial_end(path), ()))
    return whole_file(path, Path.mkdir)


def lock(file):
    """Locks an open file, or a descriptor, until it is closed or its process ends.

    Returns whether it could: some file systems have no locks, which is reported once. Raises BlockingIOError if another
    process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn_of_no_locks(error.strerror)
        return False


@functools.cache
def _warn_of_no_locks(reason):
    print(f"no file locks here ({reason}): do not run two commands on the same output folder", file=sys.stderr)


def read_ledger(folder):
    """What was written into a folder: dict of (name, stamp) to what it was made of, str or None."""
    written = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), open(folder / LEDGER) as lines:
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that was cut short
                name, source, stamp = json.loads(line)
                written[name, tuple(stamp)] = source
    return written


def list_written(folder, suffixes):
    """The names of the files in a folder that a script of ours wrote and nobody has changed since: set.

    For some suffixes the same size is enough, so that drawn pictures are recognised in a copy of the folder.
    """
    written = set()
    for name, stamp in read_ledger(folder):
        now = _stamp(folder / name)
        if now == stamp or now and now[0] == stamp[0] and name.lower().endswith(suffixes):
            written.add(name)
    return written


def _partial_end(path):
    return os.fsdecode(os.fsencode(path.name)[-200:])  # a name has 255 bytes at most


def _find_partials(folder):
    """The partial files and folders in a folder: dict of the end of their name to their Paths."""
    found = {}
    for path in folder.glob(f"{PARTIAL}*"):
        found.setdefault(path.name.split("-", 2)[-1], []).append(path)
    return found


def _remove_partials(partials):
    """Removes partial files whose process is gone; returns whether no other process is writing one of them."""
    for partial in partials:
        try:
            with _locked(partial) as is_locked:
                if is_locked:
                    _remove(partial)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return False
    return True


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _stamp(path):
    """What changes with a file's content: (size, time of the last change); None if there is no such file."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        state = os.lstat(path)
        return state.st_size, state.st_mtime_ns
