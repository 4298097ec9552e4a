"""What is installed: requirements with hashes, a bill of materials, and actions of the workflow pinned by digest."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROGRAMS = Path(sys.executable).parent
SMALL = ("mpmath", "iniconfig", "markdown-it-py")  # and what the last one needs


def documented(program: str, option: str = "") -> list[str]:
    """The words of the command on the page that runs a program with an option."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"{program} ") and option in line]
    return shlex.split(line)


def run(words: list[str], folder: Path, programs: Path = PROGRAMS) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def pinned(lines: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lines, flags=re.MULTILINE))


@pytest.mark.slow
def test_documented_commands_lock_requirements_by_hash_and_another_file_is_refused(tmp_path: Path) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (tmp_path / "constraints.txt").write_text(constraints, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\n[project]\nname = 'small'\nversion = '1'\ndependencies = ['mpmath', 'iniconfig']\n"
        "[project.optional-dependencies]\nray = ['markdown-it-py']\n",
        encoding="utf-8",
    )
    made = run(documented("pip-compile"), tmp_path)
    assert made.returncode == 0, made.stderr
    locked = tmp_path / "requirements-locked.txt"
    text = locked.read_text(encoding="utf-8")
    found, wanted = pinned(text), pinned(constraints)
    assert set(found) == {*SMALL, "mdurl"}
    assert {name: wanted[name] for name in found} == found
    assert len(re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, flags=re.MULTILINE)) == len(found)
    assert not re.search(r"^--", text, flags=re.MULTILINE)  # no address of an index, which may hold a password
    install = [*documented("pip install", "--require-hashes"), "--no-deps", "--target", "installed"]
    done = run(install, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "installed" / "mpmath").is_dir()
    locked.write_text(
        re.sub(r"sha256:[0-9a-f]", lambda match: f"sha256:{'0' if match[0][-1] != '0' else '1'}", text), encoding="utf-8"
    )
    refused = run([*install[:-1], "others"], tmp_path)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "others" / "mpmath").exists()


@pytest.mark.soak  # installs the tool: for a release
def test_documented_command_makes_a_bill_of_materials_of_what_is_installed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    venv.create(tmp_path / "tool", with_pip=True)
    programs = tmp_path / "tool" / ("Scripts" if os.name == "nt" else "bin")
    for words in (documented("pip install", "cyclonedx-bom"), [*documented("cyclonedx-py"), sys.executable]):
        made = run(words, tmp_path, programs)
        assert made.returncode == 0, made.stderr
    bill = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["name"].lower(): component["version"] for component in bill["components"]}
    assert listed["torch"] == torch.__version__
    for name in ("monai", "nibabel", "pydicom", "safetensors"):
        assert listed[name] == version(name)


def test_tools_of_the_page_are_pinned() -> None:
    wanted = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    tools = [
        words[-1] for line in PAGE.splitlines() if (words := line.split())[:4] == ["pip", "install", "-c", "constraints.txt"]
    ]
    assert tools == ["pip-tools", "cyclonedx-bom"]
    assert set(tools) <= set(wanted)


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github").rglob("*.y*ml")), ids=lambda path: path.name)
def test_actions_are_pinned_by_the_digest_of_a_commit_with_their_version_beside(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"].values()
    used = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step] + [
        job["uses"] for job in jobs if "uses" in job
    ]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", action), action
        assert re.search(rf"uses: {re.escape(action)} # v\d+\.\d+\.\d+$", text, flags=re.MULTILINE), action
