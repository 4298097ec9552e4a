"""Hooks before a commit run programs of the gate; the gate fails if tests reach too little of a floor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GATE = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
MODULE = "def sign(x):\n    if x < 0:\n        return -1\n    return 1\n"


def hooks() -> list[dict[str, Any]]:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    return [{"repository": repository["repo"], **hook} for repository in config["repos"] for hook in repository["hooks"]]


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_hook_before_a_commit_runs_a_program_of_the_gate_as_it_is_installed(hook: dict[str, Any]) -> None:
    words = [word for word in hook["entry"].split() if not word.startswith("-")]
    assert (" ".join(words[:2]) if words[0] == "ruff" else words[0]) in GATE
    assert (hook["repository"], hook["language"]) == ("local", "system")  # nothing is downloaded: versions are constraints.txt's


def test_fixtures_whose_tests_are_slow_exist(request: pytest.FixtureRequest) -> None:
    """A renamed fixture would put its tests into the quick suite."""
    (shared,) = [plugin for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "SLOW_FIXTURES")]
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    fixtures = set(re.findall(r"^@pytest\.fixture.*\n(?:@.*\n)*def (\w+)\(", texts, flags=re.MULTILINE))
    assert shared.SLOW_FIXTURES - fixtures == set()


@pytest.mark.parametrize(("tried", "passes"), [("-5, 5", True), ("5", False)])
@pytest.mark.parametrize("floor", ["core", "adapt", "io"])
def test_gate_fails_where_tests_leave_a_branch_of_a_floor_out(tried: str, passes: bool, floor: str, tmp_path: Path) -> None:
    """The gate's own coverage report, on a package of three floors of which one is tested in part."""
    (report,) = re.findall(r"^coverage combine.*?^done$", GATE, flags=re.DOTALL | re.MULTILINE)
    script = ["import sys", f"sys.path.insert(0, {str(tmp_path)!r})"]
    for name in ("core", "adapt", "io"):
        (tmp_path / "monai_ifim" / name).mkdir(parents=True)
        (tmp_path / "monai_ifim" / name / "__init__.py").write_text(MODULE, encoding="utf-8")
        script += [f"from monai_ifim.{name} import sign", f"list(map(sign, [{tried if name == floor else '-5, 5'}]))"]
    (tmp_path / "monai_ifim" / "__init__.py").touch()
    (tmp_path / "tests.py").write_text("\n".join(script), encoding="utf-8")
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    environment = {
        **os.environ,
        **paths,
        "COVERAGE_FILE": str(tmp_path / "data"),
        "COVERAGE_RCFILE": str(ROOT / "pyproject.toml"),
    }
    program = f"set -euo pipefail\ncoverage run tests.py\n{report}"
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    assert ("less than fail-under=95" in done.stdout + done.stderr) != passes
