"""What the hardware can do at best, measured beside the work itself."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

_MIB = 2**20
_SHOTS = 3  # A ceiling is the best of them.


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """A stretch of work that nothing but the hardware limits.

    Attributes:
      name: what is measured.
      amount: bytes or floating point operations of one call.
      unit: "B" or "FLOP".
      run: one call.
    """

    name: str
    amount: int
    unit: str
    run: Callable[[], Any]

    def rate(self, seconds: Callable[[Callable[[], Any], int], float]) -> float:
        """Amount per second, in the best of a few shots."""
        calls = max(1, (32 * _MIB) // self.amount) if self.unit == "B" else 1
        return self.amount / min(
            seconds(self.run, calls) for _ in range(_SHOTS)
        )


def ceilings(device: torch.device, traffic: int = 0) -> Sequence[Ceiling]:
    """The ceilings of a device.

    Args:
      device: CPU or CUDA.
      traffic: bytes the work moves; on a CPU the ceilings move as many, so
        that they find their data in the same level of the caches.

    Returns:
      Streams through memory and multiply-adds.
    """
    if device.type == "cuda":
        return [_copy(device), _product(device, 8192, torch.bfloat16)]
    traffic = min(max(traffic or 128 * _MIB, 3 * _MIB), 384 * _MIB)
    return [
        _triad(traffic),
        _read(traffic),
        _product(device, 512, torch.float32),
    ]


def attainable_seconds(
    rates: Mapping[str, tuple[float, str]], traffic: int, operations: int
) -> float:
    """The roofline: the least time that the ceilings allow.

    Args:
      rates: rate and unit of each ceiling; the best of a unit counts.
      traffic: bytes that have to be moved.
      operations: floating point operations that have to be done.

    Returns:
      Seconds.
    """
    best: dict[str, float] = {}
    for rate, unit in rates.values():
        best[unit] = max(rate, best.get(unit, 0.0))
    return max(traffic / best["B"], operations / best["FLOP"])


def _triad(traffic: int) -> Ceiling:
    count = traffic // 12
    a, b, c = (torch.ones(count) for _ in range(3))
    return Ceiling(
        "triad", 12 * count, "B", lambda: torch.add(a, b, alpha=3, out=c)
    )


def _read(traffic: int) -> Ceiling:
    count = traffic // 8
    a, b = torch.ones(count), torch.ones(count)
    return Ceiling("read", 8 * count, "B", lambda: torch.dot(a, b))


def _copy(device: torch.device) -> Ceiling:
    count = 512 * _MIB
    # Of random bytes: zeros may be compressed, or cost less power.
    a, b = (
        torch.randint(-128, 128, (count,), dtype=torch.int8, device=device)
        for _ in range(2)
    )
    return Ceiling("device copy", 2 * count, "B", lambda: b.copy_(a))


def _product(device: torch.device, size: int, dtype: torch.dtype) -> Ceiling:
    # A product of matrices in cache is the multiply-add rate that is
    # reached in practice. Of random numbers: with ones in them a GPU stays
    # cooler, and is an eighth faster than it ever is at work.
    a, b, c = (
        torch.randn(size, size, dtype=dtype, device=device) for _ in range(3)
    )
    name = str(dtype).removeprefix("torch.")
    return Ceiling(
        f"{name} GEMM", 2 * size**3, "FLOP", lambda: torch.mm(a, b, out=c)
    )
