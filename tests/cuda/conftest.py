"""Of all tests on a GPU: products in float32 are of float32.

cuDNN would compute convolutions in TF32, of which ten bits are left.
"""

import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "smallest: run under compute-sanitizer, by gpu_check"
    )


def pytest_collection_modifyitems(items):
    """Marks the cases that a file calls its smallest."""
    for item in items:
        smallest = getattr(item.module, "SMALLEST", ())
        case = getattr(item, "callspec", None)
        if case and any(value in smallest for value in case.params.values()):
            item.add_marker("smallest")


@pytest.fixture(autouse=True)
def true_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
