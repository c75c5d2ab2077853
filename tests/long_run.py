"""Trains for many steps on a few faces, and checks that memory and the number of open files stay level.

Usage:
    python tests/long_run.py                  # 20,000 steps: about ten minutes on 2 cores
    python tests/long_run.py --steps 2000

Exits with 1 if, after the first tenth of the steps, memory grew by over 5% or more files were open.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from kill import ENVIRONMENT, REPO, prepare

from landmark.cli import script_parser


def main():
    parser = script_parser(__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="(20000)")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        records = prepare(Path(folder))["records"]
        train = f"train.py --data {records} --models {folder}/models --network original --batch_size 1 --steps {steps}"
        run = [sys.executable, *train.split()]
        seen = []
        with subprocess.Popen(run, cwd=REPO, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if found := re.match(r"step (\d+) ", line):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    memory, files = int(re.search(r"VmRSS:\s+(\d+)", status)[1]), os.listdir(f"/proc/{process.pid}/fd")
                    seen.append((int(found[1]), memory / 1024, len(files)))
                    print("step {:,}: {:.0f} MB, {} open files".format(*seen[-1]), flush=True)
        assert process.returncode == 0 and seen[-1][0] >= 0.9 * steps
        _, memory, files = next(at for at in seen if at[0] >= steps / 10)
        print(f"since step {steps // 10:,}: memory {seen[-1][1] / memory - 1:+.1%}, files {seen[-1][2] - files:+}")
        sys.exit(seen[-1][1] > 1.05 * memory or seen[-1][2] > files)


if __name__ == "__main__":
    main()
