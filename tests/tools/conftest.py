import os
import sys

import pytest

from tools.gpu_check.place import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folders of a project of its own, which sees what this test sees."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    output = tmp_path / "output"
    output.mkdir()
    return Place(tmp_path, tmp_path / "build", output)
