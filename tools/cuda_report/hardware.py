"""What multiprocessors have room for, and how fast whole GPUs are.

Limits: CUDA C++ Programming Guide, table "Technical Specifications per Compute
Capability"; lanes: its table "Throughput of Native Arithmetic Instructions".
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
      name: of the product.
      multiprocessors: how many it has.
      clock: in Hz, as boosted.
      copy_bandwidth: bytes read and written per second by a copy.
      eager_bandwidth: of these what eager PyTorch's kernels are taken to reach.
      most_shared: bytes of shared memory that a block can ask for.
      shared: bytes of shared memory of a multiprocessor.
      registers, warps, blocks: of a multiprocessor.
      lanes: results per clock and multiprocessor, by class of mix.CLASSES.
      tensor_flops: dense, per second, of mma instructions on half types.
      group_tensor_flops: the same for products of a warp group.
    """

    name: str
    multiprocessors: int
    clock: float
    copy_bandwidth: float
    most_shared: int
    shared: int
    lanes: dict[str, int]
    tensor_flops: float
    group_tensor_flops: float
    registers: int = 65536
    warps: int = 64
    blocks: int = 32
    eager_bandwidth: float = 0.85

    @property
    def issue_rate(self) -> float:
        """Instructions of warps per second, if every slot were used."""
        return self.multiprocessors * 4 * self.clock


# Every class of which less than a warp a clock and scheduler gets through.
# Loads and stores share one unit; what is not named has 128 lanes.
_LANES_80 = {
    "ffma": 64,
    "float": 64,
    "half": 128,
    "float64": 32,
    "special": 16,
    "conversion": 64,
    "integer": 64,
    "imad": 64,
    "lanes": 32,
}
_LANES_90 = {**_LANES_80, "ffma": 128, "float": 128, "float64": 64}
MEMORY_LANES = 32
# Classes that are computed by the lanes of another.
PIPES = {"imad": "ffma", "float": "ffma"}

# One for each architecture whose limits are known. The bandwidths and clocks of
# the first two are those that copies are known to reach; a B200 is modelled at
# 85% of what its datasheet says. On sm_90 mma instructions reach 62% of what
# products of warp groups do (Luo et al., Benchmarking and Dissecting the Nvidia
# Hopper GPU Architecture via Microbenchmarking, arXiv 2402.13499).
DEVICES = {
    "sm_80": Device(
        "A100", 108, 1.41e9, 1.7e12, 166912, 167936, _LANES_80, 280e12, 280e12
    ),
    "sm_90": Device(
        "H200", 132, 1.98e9, 4.3e12, 232448, 233472, _LANES_90, 600e12, 790e12
    ),
    "sm_100": Device(
        "B200", 148, 1.85e9, 6.8e12, 232448, 233472, _LANES_90, 600e12, 1900e12
    ),
}

RESERVED_SHARED = 1024  # of every block, from sm_80 on
_REGISTER_STEP = 256  # of a warp
_SHARED_STEP = 128


def device_of(architecture: str) -> Device:
    """The GPU that stands for an architecture.

    Raises:
      ValueError: for one whose limits are not known.
    """
    if architecture not in DEVICES:
        raise ValueError(
            "cuda_report: --architecture must be one of"
            f" {', '.join(DEVICES)}, got {architecture}"
        )
    return DEVICES[architecture]


def blocks_per_multiprocessor(
    device: Device, registers: int, threads: int, shared_bytes: int
) -> int:
    """How many blocks run side by side; 0 if not even one fits.

    Args:
      device: where.
      registers: of a thread.
      threads: of a block.
      shared_bytes: of a block, static and dynamic, without what is reserved.
    """
    warps = -(-threads // 32)
    per_warp = _rounded_up(registers * 32, _REGISTER_STEP)
    shared = _rounded_up(shared_bytes + RESERVED_SHARED, _SHARED_STEP)
    if shared_bytes > device.most_shared:
        return 0
    # Registers belong to one of four schedulers, warps by turns.
    by_registers = device.registers // 4 // per_warp * 4 // warps
    return min(
        device.blocks,
        device.warps // warps,
        by_registers,
        device.shared // shared,
    )


def _rounded_up(count: int, step: int) -> int:
    return -(-count // step) * step
