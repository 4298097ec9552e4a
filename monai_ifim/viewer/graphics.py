"""Finds an OpenGL window for VTK before it draws: without one, VTK crashes instead of raising an exception."""

from __future__ import annotations

import os
import subprocess  # nosec B404 # for one program of constant text
import sys
from importlib.util import find_spec

from monai_ifim.viewer.cases import ViewerError

VARIABLE = "VTK_DEFAULT_OPENGL_WINDOW"
OFF_SCREEN = ("vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow")  # on Linux, without a display
PATIENCE = 120  # seconds; the first import of VTK from a slow disk takes long
PROBE = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow
window = vtkRenderWindow()
window.SetOffScreenRendering(1)
window.SetSize(8, 8)
window.AddRenderer(vtkRenderer())
window.Render()
print("drawn by", window.GetClassName(), bool(window.SupportsOpenGL()))
"""


def require_libraries() -> None:
    """Raise ViewerError unless trame-slicer and 3D Slicer's libraries are installed."""
    if find_spec("trame_slicer") is None or find_spec("slicer_core") is None:
        raise ViewerError(
            'the viewer needs trame-slicer, which is not installed: pip install "monai-ifim[view]", in a clone '
            'pip install ".[view]"'
        )


def choose_graphics() -> None:
    """Set the first kind of VTK window that works in a test process; raises ViewerError if none does."""
    asked = os.environ.get(VARIABLE)
    if asked or sys.platform != "linux":
        candidates: tuple[str, ...] = (asked or "",)
    else:
        candidates = OFF_SCREEN
    for name in candidates:
        if _draws(name):
            if name:
                os.environ[VARIABLE] = name
            return
    raise ViewerError("VTK finds no OpenGL to draw with; on Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri")


def _draws(name: str) -> bool:
    environment = os.environ | ({VARIABLE: name} if name else {})
    try:
        done = subprocess.run(  # nosec B603 # this interpreter, a constant program, no shell
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and f"drawn by {name}" in done.stdout and "True" in done.stdout
