"""The module of warp_module.cc, in memory between guards."""

from tests.emulated_cuda import _warp_kernels
from tests.emulated_cuda.guarded import Guarded

warp_kernels = Guarded(
    _warp_kernels,
    dict.fromkeys(
        [
            "multiply",
            "softmax",
            "multiply_once",
            "load_once",
            "copy_once",
            "shuffle_once",
            "vote_once",
            "relay",
            "fault",
        ],
        "output",
    )
    | {"fault_in_workspace": ""},
)
