"""Configuration of the site: sphinx-build -W --keep-going -b html docs OUT, with the extra `docs` installed.

The build and the pages load nothing from the network.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "extensions"))

from monai_ifim.version import __version__

project = "monai_ifim"
author = "monai_ifim contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "native_math", "plain_docstrings", "repository_files"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["notebooks/**"]  # notebooks.md links to the notebooks as files

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # [text](page.md#heading) works as on code hosts

default_role = "py:obj"  # `Head` in a docstring links to that name if it exists
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"monai_ifim {version}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = True
