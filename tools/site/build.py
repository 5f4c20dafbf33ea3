"""Makes the documentation's site: Sphinx, with every warning an error.

  bazel build //docs

Run by the build with the folder of the pages and the folder to fill. The same
input gives the same bytes, where PYTHONHASHSEED is set.
"""

import pathlib
import shutil
import sys
import tempfile

from sphinx.cmd.build import build_main

_OPTIONS = ("--builder=html", "--fail-on-warning", "--quiet")


def main(pages: str, site: str) -> int:
    """Makes the site; returns the exit code.

    Args:
      pages: folder of conf.py and the pages.
      site: folder to fill.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Bazel's pages are links, and MyST looks for others beside their ends.
        copies = pathlib.Path(folder) / "pages"
        shutil.copytree(pages, copies)
        doctrees = pathlib.Path(folder) / "doctrees"
        options = [*_OPTIONS, f"--doctree-dir={doctrees}"]
        return build_main([*options, str(copies), site])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
