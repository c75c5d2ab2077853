"""What all scripts share: parsing options, ending in one line, Ctrl-C and SIGTERM, workers that do not outlive them."""

import argparse
import contextlib
import functools
import math
import multiprocessing
import os
import signal
import sys
import threading

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS lacks it
SIGNALS = signal.SIGINT, signal.SIGTERM  # Ctrl-C; sent by `kill`, batch systems and shutdowns


class UserError(Exception):
    """Something the user can fix: the message is one line that names it and says what to do.

    Scripts print the message and exit with code 1. Any other exception is a bug of ours and keeps its traceback.
    """


def script_parser(doc, **options):
    """The argparse parser of a script, whose docstring is its manual; options: of argparse.ArgumentParser."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def number(kind, low, high=math.inf):
    """An argparse type: a number of a kind, int or float, in low..high."""

    def parse(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}")
        return value

    parse.__name__ = kind.__name__  # for argparse's own messages
    return parse


def command(main):
    """Decorates a script's main() so that it ends with one line and an exit code.

    A UserError, and an OSError that names a file, exit with code 1. SIGINT and SIGTERM exit with 130 and 143: they
    raise KeyboardInterrupt in main(), whose notes are printed. Other exceptions keep their traceback.
    """

    @functools.wraps(main)
    def run():
        received = []

        def interrupt(number, _):
            for each in SIGNALS:
                signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be interrupted
            received.append(number)
            raise KeyboardInterrupt

        for stream in sys.stdout, sys.stderr:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # file names can be any bytes
        try:
            with _handle_signals(interrupt):
                main()
                sys.stdout.flush()
        except BaseException as error:
            if received:  # whatever the error is by now: some libraries replace KeyboardInterrupt with their own
                how = "".join(getattr(error, "__notes__", ["; no file is half-written"]))
                print(f"interrupted{how}", file=sys.stderr)
                sys.exit(128 + received[0])
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more
                sys.exit("cannot write to standard output: its reader is gone")
            if isinstance(error, UserError):
                sys.exit(str(error))
            if isinstance(error, OSError) and error.filename:
                sys.exit(f"{os.fsdecode(error.filename)}: {error.strerror}")
            raise

    return run


@contextlib.contextmanager
def defer_signals():
    """SIGINT and SIGTERM wait until the block ends: for steps that must not be torn apart."""
    received = []
    try:
        with _handle_signals(lambda number, _: received.append(number)):
            yield
    finally:
        for number in received[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def silenced():
    """Nothing reaches standard error during the block, not even from C++ code, which logs as it pleases."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def follow_parent():
    """Initializer of a worker process: it leaves Ctrl-C to its parent, and exits when the parent is gone."""

    def exit_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=exit_with_parent, daemon=True).start()


@contextlib.contextmanager
def _handle_signals(handler):
    """Handles SIGNALS inside the block, except those that are ignored, as in a shell's background jobs."""
    is_main = threading.current_thread() is threading.main_thread()  # only this thread receives signals
    before = {number: signal.getsignal(number) for number in SIGNALS if is_main}
    for number, known in before.items():
        if known != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
