"""The command line as a process of its own, and what it must leave in OUT."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TROUBLE = ("Traceback", "Exception ignored", "this is a bug")


def slow_steps(seconds: float) -> list[dict[str, Any]]:
    load = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    wait = f"$lambda x: (__import__('time').sleep({seconds}), x)[1]"
    told = {"_target_": "Lambdad", "keys": "image", "func": wait, "inv_func": "$lambda x: x"}
    return [*load, told, {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]}]


class Started:
    """The command line in a process group of its own, as a shell starts it."""

    def __init__(
        self,
        *words: Any,
        launcher: tuple[str, ...] = ("-m", "monai_ifim.cli.main"),
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        **variables: str,
    ) -> None:
        environment = os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | variables
        self.words = [sys.executable, *launcher, *map(str, words)]
        self.process = subprocess.Popen(
            self.words, env=environment, stdout=stdout, stderr=stderr, text=True, start_new_session=True
        )

    def send(self, number: signal.Signals) -> None:
        """To the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def ended(self, within: float = 180.0) -> tuple[int, str, str]:
        """Exit status and what was printed; a process that has not ended by then is killed and the test fails."""
        try:
            out, err = self.process.communicate(timeout=within)
        finally:
            if self.process.poll() is None:
                self.send(signal.SIGKILL)
        assert not any(trouble in out + err for trouble in TROUBLE), out + err
        return self.process.returncode, out, err

    def wait_for(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 240  # a machine may be busy
        while not holds():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)


def whole(output: Path) -> list[str]:
    return sorted(path.parent.name for path in output.glob("*/*_ifim.json"))


def in_table(output: Path) -> list[str]:
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return [row["case"] for row in csv.DictReader(file)]


def is_clean(output: Path) -> bool:
    """Nothing half-written: no temporary name, no folder of a case without its sidecar."""
    return not list(output.rglob(".partial-*")) and [path.name for path in sorted(output.glob("*/"))] == whole(output)
