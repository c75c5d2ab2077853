"""How a command ends where it cannot go on: with one line and an exit code, nobody left at work.

A script imports this room first, and calls start_script() before it imports TensorFlow, which takes seconds.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading

SIGNALS = signal.SIGINT, signal.SIGTERM  # Ctrl-C; what `kill`, a batch system or a shutdown sends


def start_script():
    """From here on, until one_line's main() runs, SIGINT and SIGTERM end the process then and there, with one line.

    An exception would not do: in the midst of an import it comes out as another, or is lost. And TensorFlow imports no
    Keras, which no script uses: a quarter less to wait for.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # a package of its own, and no error where it is not installed
    _handle(_leave)


def leaving_at_once():
    """As after start_script(), for a block in which main() imports, with nothing to tidy up yet: a context manager."""
    return _handled(_leave)


def _leave(number, _):
    os.write(2, b"interrupted; nothing was written\n")
    os._exit(128 + number)


def _handle(handler):
    """Handles SIGNALS, but for those that are ignored, as a shell's background jobs do; returns what did before."""
    if threading.current_thread() is not threading.main_thread():
        return {}  # signals come to the main thread alone
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, known in before.items():
        if known != signal.SIG_IGN:
            signal.signal(number, handler)
    return before


@contextlib.contextmanager
def _handled(handler):
    before = _handle(handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


@contextlib.contextmanager
def held():
    """SIGINT and SIGTERM wait for the end of the block: for the moments in which a save must not be torn."""
    waiting = []
    try:
        with _handled(lambda number, _: waiting.append(number)):
            yield
    finally:
        for number in waiting[:1]:
            signal.raise_signal(number)


def follow_parent():
    """For the start of a worker process: it leaves Ctrl-C to its parent, and is gone when that is, however it ended."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()


def one_line(main):
    """Decorates a script's main(): what the user can mend ends it with one line.

    That is, with exit code 1, a ValueError, whose message says what to do, and an OSError, which names the file; and
    SIGINT and SIGTERM, with 130 and 143: they raise a KeyboardInterrupt in main(), whose notes are said.
    """

    @functools.wraps(main)
    def run():
        stopped = []

        def interrupt(number, _):
            for each in SIGNALS:
                signal.signal(each, signal.SIG_IGN)  # what is to be tidied up is so in peace
            stopped.append(number)
            raise KeyboardInterrupt

        sys.stdout.reconfigure(errors="surrogateescape")  # names may be any bytes
        try:
            with _handled(interrupt):
                main()
        except BaseException as error:
            if stopped:  # the error may be another by now: some libraries turn it into theirs
                how = "".join(getattr(error, "__notes__", ["; no file is half-written"]))
                print(f"interrupted{how}", file=sys.stderr)
                sys.exit(128 + stopped[0])
            if isinstance(error, OSError):
                sys.exit(f"cannot write {error.filename}: {error.strerror}")
            if isinstance(error, ValueError):
                sys.exit(str(error))
            raise

    return run
