"""Where the check works: folders, the Python, and its environment."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

# Packages of ours whose names others use too. They have no __init__.py, and a
# package that has one goes before them wherever on the path it lies.
_OURS = ("tests", "tools")


@dataclasses.dataclass(frozen=True)
class Place:
    """Folders, and what every child process has in common.

    Attributes:
      root: of the project.
      build: what is made and kept between calls.
      output: logs and results.
      packages: folders of further Python packages.
      without: packages without which the user is content.
    """

    root: pathlib.Path
    build: pathlib.Path
    output: pathlib.Path
    packages: Sequence[pathlib.Path] = ()
    without: Sequence[str] = ()

    @property
    def module(self) -> pathlib.Path:
        """The folder in which the built package cuda_kernels lies."""
        return self.build / "module"

    @property
    def python(self) -> Sequence[str]:
        """This Python."""
        return (sys.executable,)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of every child."""
        paths = [self.module, self.root, *self.packages]
        callers = os.environ.get("PYTHONPATH")
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(
                [*map(str, paths), *([callers] if callers else [])]
            ),
            # The module that was built comes before the sources' package.
            "PYTHONSAFEPATH": "1",
            "PYTHONFAULTHANDLER": "1",
            # Of whatever else is installed here.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            # Work that may wait for the GPU; four times the usual.
            "CUDA_SCALE_LAUNCH_QUEUES": "4x",
        }

    def prepare(self) -> None:
        """Makes the folders, and puts our packages before those of others."""
        self.output.mkdir(parents=True, exist_ok=True)
        for name in _OURS:
            package = self.module / name
            package.mkdir(parents=True, exist_ok=True)
            line = f"__path__ = [{str(self.root / name)!r}]\n"
            (package / "__init__.py").write_text(line)

    def fresh(self, step: str, ending: str) -> pathlib.Path:
        """A file in the output folder, without what an earlier call left.

        Args:
          step: name of the step that writes it.
          ending: of the file's name.

        Returns:
          Its path.
        """
        name = step.removesuffix(".py").replace("/", "_").replace(" ", "_")
        path = self.output / f"{name}.{ending}"
        path.unlink(missing_ok=True)
        return path
