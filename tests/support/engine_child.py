"""Carries out runs in forked children, so that they can die: `engine_child.py CASES.json`.

One process imports torch once and forks a child per case; it touches no tensor itself, so forking is safe.
Each case: {"env": {...}, "config": [arguments of fake_config], "eager": save the state after every step}.
Prints the exit codes as JSON: 0 done, 130 interrupted, -9 killed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from engine_fakes import fake_config

import wsolbench.training.state
from wsolbench.launch.here import run_all
from wsolbench.metrics import label_rank  # noqa: F401 (imported here, once, instead of in every child)
from wsolbench.system.progress import Silent


def child(case: dict[str, Any]) -> int:
    os.environ.update(case["env"])
    if case["eager"]:
        wsolbench.training.state.SAVE_SECONDS, wsolbench.training.state.SAVE_SHARE = 0.0, math.inf
    out, method, changes = case["config"]
    try:
        outcomes = run_all([fake_config(Path(out), method, **changes)], reporter=Silent())
    except KeyboardInterrupt:
        return 130
    return 0 if outcomes[0].status == "done" else 1


def main() -> None:
    codes = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = child(case)
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
