"""Every test here runs in both orders of the threads; see emulator.cc."""

import pytest


@pytest.fixture(params=["ascending", "descending"], autouse=True)
def order(request, monkeypatch):
    monkeypatch.setenv("EMULATED_CUDA_ORDER", request.param)
