"""`monai-ifim view` where it cannot start, and how it opens a browser; what it shows is tested in tests/viewer."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from typer.testing import CliRunner, Result

from monai_ifim.cli.view import view
from monai_ifim.viewer import graphics as viewer_graphics
from monai_ifim.viewer import launch as viewer
from monai_ifim.viewer.browser import opened_browser
from monai_ifim.viewer.cases import ViewerError

ADDRESS = "http://127.0.0.1:1/index.html?secret=s3&x=1"


def typer_app() -> typer.Typer:
    app = typer.Typer()
    app.command()(view)
    return app


def invoke(*words: object) -> Result:
    return CliRunner().invoke(typer_app(), [str(word) for word in words])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "case-1").mkdir()
    (tmp_path / "case-1" / "case-1_ifim.json").write_text("{}")
    return tmp_path


def test_missing_library_is_named_with_its_cure_in_one_line(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_graphics, "find_spec", lambda _: None)
    result = invoke(output)
    assert result.exit_code == 1
    assert result.stderr.strip().splitlines() == [
        'error: the viewer needs trame-slicer, which is not installed: pip install "monai-ifim[view]", in a clone '
        'pip install ".[view]"'
    ]


def test_missing_graphics_are_named_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """VTK crashes rather than raises without OpenGL, so a process of its own tries first."""
    monkeypatch.setattr(viewer_graphics, "PROBE", "import os; os.kill(os.getpid(), 11)")
    monkeypatch.delenv(viewer_graphics.VARIABLE, raising=False)
    with pytest.raises(ViewerError, match="apt-get install libegl1 libgl1-mesa-dri"):
        viewer_graphics.choose_graphics()
    assert viewer_graphics.VARIABLE not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere VTK has one kind of window")
def test_first_window_that_draws_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = "import os; name = os.environ['VTK_DEFAULT_OPENGL_WINDOW']; print('drawn by', name, 'OSOpenGL' in name)"
    monkeypatch.setattr(viewer_graphics, "PROBE", probe)
    monkeypatch.setenv(viewer_graphics.VARIABLE, "")
    viewer_graphics.choose_graphics()
    assert os.environ[viewer_graphics.VARIABLE] == "vtkOSOpenGLRenderWindow"


def test_unknown_case_and_empty_folder_are_refused_before_anything_is_loaded(output: Path, tmp_path: Path) -> None:
    result = invoke(output, "--case", "case-2")
    assert (result.exit_code, "holds no case 'case-2'; it holds case-1" in result.stderr) == (1, True)
    result = invoke(tmp_path / "absent")
    assert (result.exit_code, "no such folder" in result.stderr) == (1, True)


def test_address_is_printed_for_the_user(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "serve_viewer", lambda output, on_ready, port, case: on_ready(ADDRESS, 1))
    result = invoke(output, "--no-browser")
    assert result.exit_code == 0
    assert ADDRESS in result.stdout.split()
    assert result.stdout.startswith("1 case at")


def test_browser_gets_a_private_page_and_not_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user of a machine sees the command lines of all processes."""
    monkeypatch.setenv("DISPLAY", ":9")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with opened_browser() as open_address:
        open_address(ADDRESS)
        page = Path(unquote(urlsplit(opened[0]).path))
        assert "url=http://127.0.0.1:1/index.html?secret=s3&amp;x=1" in page.read_text()
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
        assert "s3" not in opened[0]
    assert not page.exists()


def test_no_browser_is_opened_unasked_or_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":9")
    with opened_browser(wanted=False) as open_address:
        open_address(ADDRESS)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with opened_browser() as open_address:
        open_address(ADDRESS)
    assert opened == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, typer\nfrom monai_ifim.cli.view import view\n"
        "heavy = {'torch', 'numpy', 'vtkmodules', 'trame', 'aiohttp'}\n"
        "try:\n    typer.run(view)\nfinally:\n    print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "Ctrl+C" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_documentation_names_the_options_and_errors_that_there_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "viewer.md").read_text(encoding="utf-8")
    command = typer.main.get_command(typer_app())
    known = {option for parameter in command.params for option in parameter.opts}
    lines = [line.partition("#")[0] for line in page.splitlines() if "monai-ifim view " in line]
    assert {word for line in lines for word in line.split() if word.startswith("--")} <= known
    assert {"--case", "--port", "--no-browser"} <= known & set(re.findall(r"--[a-z-]+", page))
    source = "".join(path.read_text(encoding="utf-8") for path in Path(viewer.__file__).parent.glob("*.py"))
    errors = re.findall(r"^- \*\*`(.+)`\*\*", page, flags=re.MULTILINE)
    assert len(errors) == 4
    assert [error for error in errors if error not in source] == []
