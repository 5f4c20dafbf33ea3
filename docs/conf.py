"""Settings of the site that `bazel build //docs` makes of this folder.

Pages are Markdown (MyST). Nothing in them is fetched when they are read: the
theme brings its files and mathematics is MathML.
"""

from typing import Any

from pygments.lexers import PythonLexer

import san

project = "SAN"
author = "the SAN maintainers"
version = release = san.__version__
html_title = f"SAN {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "tools.site.mathml",
]
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Code blocks of logs and tables.
highlight_language = "none"

# Every name that a page links to must be there; other people's are no links.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections|nn|os|torch|typing)\..*"),
    ("py:.*", r"(Any|Callable|Tensor)"),
]

# As in the sources: one backtick is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # Docstrings say what an argument is.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def setup(app: Any) -> None:
    """Colours gin files as Python, whose values they have."""
    app.add_lexer("gin", PythonLexer)
