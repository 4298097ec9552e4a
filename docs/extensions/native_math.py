"""Renders formulas as MathML. Browsers draw it natively, so the pages need no script and no other host."""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(node: nodes.math | nodes.math_block) -> str:
    """MathML of a formula. A formula that cannot be converted gives a warning with its location and stays as TeX."""
    text = node.astext()
    try:
        return str(tex2mathml(text, as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logger.warning("%s in the formula %s", error, text, location=node)
        return escape(text)


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate") + mathml(node) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
