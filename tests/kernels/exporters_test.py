"""Objects that speak DLPack badly, or as they did before its version 1."""

import numpy as np
import pytest

from tests.kernels.calls import call_aggregation, refused


class Exporter:
    """Speaks DLPack as it is told to."""

    def __init__(self, capsule, device=(1, 0)):
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **options):
        return self.capsule() if callable(self.capsule) else self.capsule

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize(
    ("exporter", "value"),
    [
        (Exporter(None), "Exporter without a fresh DLPack capsule"),
        (Exporter(5), "Exporter without a fresh DLPack capsule"),
        (Exporter(lambda: 1 / 0), "Exporter (division by zero)"),
        (Exporter(None, device="cpu"), "Exporter with a malformed"),
        (Exporter(None, device=(1,)), "Exporter with a malformed"),
        (Exporter(None, device=None), "Exporter ("),
    ],
)
def test_broken_exporters(exporter, value):
    refused(
        call_aggregation,
        "aggregation_forward: input must be a tensor that exports DLPack, got "
        + value,
        input=exporter,
    )


def test_a_used_capsule():
    array = np.zeros((2, 6, 4, 5), np.float32)
    capsule = array.__dlpack__()
    np.from_dlpack(Exporter(capsule))
    refused(
        call_aggregation,
        "aggregation_forward: input must be a tensor that exports DLPack, got"
        " Exporter without a fresh DLPack capsule",
        input=Exporter(capsule),
    )


def test_exporters_from_before_dlpack_1():
    class Old(Exporter):
        def __dlpack__(self):
            return self.capsule

    array = np.ones((2, 6, 4, 5), np.float32)
    output = np.zeros_like(array)
    call_aggregation(
        input=Old(array.__dlpack__()),
        weight=np.ones((2, 3, 9, 20), np.float32),
        output=output,
    )
    assert (output == 9).all()


def test_interrupts_pass_through():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_aggregation(input=Exporter(interrupt))
