"""The fuzz targets: every reader of files that may come from others, damaged or forged.

A target takes bytes, makes files of them in an empty folder, and reads these as the program does. The program may refuse them by
an error of its own, of one line that says something. Whatever else it raises is a find, and so is a file outside of the folder.
"""

from __future__ import annotations

from fuzz import input_targets, sidecar_targets

TARGETS = {target.name: target for target in (*sidecar_targets.TARGETS, *input_targets.TARGETS)}
