"""Mathematics of a Sphinx page as MathML, which browsers draw by themselves.

Sphinx's own renderers need a script from elsewhere or TeX; docutils has one for
its pages, which this hands to Sphinx.
"""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.errors import SphinxError


def setup(app: Any) -> dict[str, bool]:
    """Registers the renderer with Sphinx, as html_math_renderer = "mathml"."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def convert(tex: str, as_block: bool) -> str:
    r"""TeX to MathML.

    Args:
      tex: without dollars; lines are parted by \\ and aligned by &.
      as_block: whether it is a paragraph of its own.

    Raises:
      SphinxError: if it is not understood, with the formula.
    """
    try:
        return latex2mathml.tex2mathml(tex, as_block=as_block)
    except (MathError, IndexError, SyntaxError) as error:
        text = re.sub(r"\s+", " ", tex)
        raise SphinxError(
            f"math: formula must be TeX that docutils knows, got {text}:"
            f" {error}"
        ) from error


def _inline(page: Any, node: nodes.math) -> None:
    page.body.append(convert(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(page: Any, node: nodes.math_block) -> None:
    formula = convert(node.astext(), as_block=True)
    page.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode
