"""Coverage-guided fuzzing of everything that reads other people's files, with atheris (libFuzzer for Python).

pip install ".[fuzz]" && python tests/fuzz/campaign.py [--seconds 600] [--folder FOLDER] [TARGET ...]

Each target is fuzzed for so many seconds, in a process of its own, by changes of its parts and of its bytes. What libFuzzer found
stays in FOLDER: inputs that reach something new in TARGET/, finds as TARGET-crash-*, TARGET-timeout-*, TARGET-oom-*. It ends with
a table and with status 1 where there was a find. A find, made small, goes into FINDS of test_targets.py with the mended code.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS_OF_ONE = 10  # after which an input counts as one that the program hangs on
MEBIBYTES = 4096
LONGEST = 20_000  # bytes of an input
PARTS = 0.8  # share of the changes that go by the parts of a format


@dataclass(frozen=True)
class Outcome:
    """Result of a target: inputs tried, code locations reached, finds."""

    target: str
    seconds: int
    runs: str
    reached: str
    finds: tuple[str, ...]


def fuzz(target: str, seconds: int, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_OF_ONE}", f"-rss_limit_mb={MEBIBYTES}", f"-max_len={LONGEST}"]
    words = [sys.executable, str(HERE / "campaign.py"), "--one", target, str(corpus), f"-artifact_prefix={folder}/{target}-"]
    log = folder / f"{target}.log"
    with log.open("wb") as stream:
        status = subprocess.run([*words, *limits, "-print_final_stats=1"], stdout=stream, stderr=stream, check=False).returncode
    said = log.read_text(encoding="utf-8", errors="replace")
    runs = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or re.findall(r"Done (\d+) runs", said)
    reached = re.findall(r"\bcov: (\d+)", said)
    finds = sorted(path.name for kind in ("crash", "timeout", "oom") for path in folder.glob(f"{target}-{kind}-*"))
    if status != 0 and not finds:
        finds = [f"ended with status {status}"]
    return Outcome(target, seconds, runs[-1] if runs else "?", reached[-1] if reached else "?", tuple(finds))


def fuzz_here(target: str, corpus: str, options: list[str]) -> None:
    """Fuzz one target in this process; never returns."""
    import atheris

    with atheris.instrument_imports(include=["monai_ifim"]):
        from fuzz.targets import TARGETS
    chosen = TARGETS[target]
    for i, seed in enumerate(chosen.seeds()):
        (Path(corpus) / f"seed-{i}").write_bytes(seed)

    def once(content: bytes) -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            try:
                chosen.run(content, Path(folder))
            except BaseException:  # written here, too: libFuzzer's own alarm may end the process before it does so
                find = Path(corpus).with_name(f"{target}-crash-{hashlib.sha1(content).hexdigest()}")
                find.write_bytes(content)
                raise

    def change(content: bytes, largest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        changed = chosen.mutate(content, chance) if chance.random() < PARTS else content
        whole = changed != content and len(changed) <= largest
        return changed if whole else bytes(atheris.Mutate(content, largest))

    atheris.Setup([sys.argv[0], *options, corpus], once, custom_mutator=change)
    atheris.Fuzz()


def main() -> None:
    """Fuzz the targets and print their results."""
    if sys.argv[1:2] == ["--one"]:
        fuzz_here(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path("fuzz-results"))
    arguments = parser.parse_args()
    from fuzz.targets import TARGETS

    outcomes = []
    for name in arguments.targets or TARGETS:
        outcomes.append(fuzz(name, arguments.seconds, arguments.folder.resolve()))
        print(outcomes[-1], flush=True)
    print("\n| target | seconds | inputs tried | places reached | finds |\n| --- | --- | --- | --- | --- |")
    for found in outcomes:
        listed = ", ".join(found.finds) or "none"
        print(f"| {found.target} | {found.seconds} | {found.runs} | {found.reached} | {listed} |")
    sys.exit(any(found.finds for found in outcomes))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
