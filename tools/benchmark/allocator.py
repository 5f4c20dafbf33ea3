"""The C library's allocator: its default behaviour and a tuned one.

By default glibc maps every large temporary afresh, so that each is paid for
with page faults; eager peers lose half their speed by it. Tuned, it keeps
the pages. mallopt sets in a running process what the environment variables
MALLOC_MMAP_MAX_ and MALLOC_TRIM_THRESHOLD_ set at its start, so that both
can be measured in one process.
"""

import ctypes
import pathlib

TUNED = "tuned"
DEFAULT = "default"

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4

_MIB = 2**20
_SETTINGS = {
    TUNED: {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1},  # Never trim.
    # Where the default's moving thresholds come to rest in a process that
    # frees large blocks.
    DEFAULT: {
        _MMAP_MAX: 65536,
        _MMAP_THRESHOLD: 32 * _MIB,
        _TRIM_THRESHOLD: 64 * _MIB,
    },
}


def configure(setting: str) -> None:
    """Makes malloc behave as TUNED or DEFAULT, from an empty heap.

    Raises:
      RuntimeError: the C library is not glibc.
    """
    libc = _glibc()
    libc.malloc_trim(0)
    for parameter, value in _SETTINGS[setting].items():
        if not libc.mallopt(parameter, value):
            raise RuntimeError(f"allocator: mallopt({parameter}) failed")


def restart_peak() -> int:
    """Returns free memory to the system; resident bytes from here on count.

    Returns:
      The bytes that are resident now.

    Raises:
      RuntimeError: the kernel does not let a process reset its peak.
    """
    _glibc().malloc_trim(0)
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise RuntimeError(
            f"allocator: the peak cannot be reset here: {error}"
        ) from error
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that were resident at once since restart_peak()."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"allocator: /proc/self/status has no {field}")


def _glibc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        raise RuntimeError("allocator: the C library must be glibc")
    return libc
