"""Keeps the sizes of images in a file, each until its image changes."""

import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence

import numpy as np

from san.data.listing import File

_KEY_BYTES = 16


class SizeCache:
    """The sizes of some image files, kept in one file."""

    def __init__(self, path: str, files: Sequence[File]) -> None:
        """Reads nothing yet.

        Args:
          path: of the cache; it may be missing or damaged.
          files: the image files.
        """
        self._path = path
        self._keys = [_key(file) for file in files]

    def read(self) -> np.ndarray:
        """The sizes: int64 [n, 2], height and width, 0 where not known."""
        sizes = np.zeros((len(self._keys), 2), np.int64)
        try:
            with np.load(self._path) as cache:
                keys = cache["keys"].tobytes()
                kept = cache["sizes"].astype(np.int64).reshape(-1, 2)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return sizes  # None there yet, or not one of ours: look again.
        places = {
            keys[start : start + _KEY_BYTES]: start // _KEY_BYTES
            for start in range(0, len(keys), _KEY_BYTES)
        }
        for i, key in enumerate(self._keys):
            if (place := places.get(key)) is not None:
                sizes[i] = kept[place]
        return sizes

    def write(self, sizes: np.ndarray) -> None:
        """Writes what is known, whole or not at all.

        Args:
          sizes: int64 [n, 2], height and width, 0 where not known.
        """
        known = np.flatnonzero(sizes[:, 0])
        keys = b"".join(self._keys[i] for i in known)
        # A folder that cannot be written to costs time, not the job.
        with contextlib.suppress(OSError):
            self._replace(np.frombuffer(keys, np.uint8), sizes[known])

    def _replace(self, keys: np.ndarray, sizes: np.ndarray) -> None:
        folder = os.path.dirname(self._path)
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder, prefix=".cache_", suffix=".tmp"
        ) as work:
            new = os.path.join(work, "new.npz")
            np.savez(new, keys=keys, sizes=sizes)
            os.replace(new, self._path)


def _key(file: File) -> bytes:
    text = repr(tuple(file)).encode()
    return hashlib.blake2b(text, digest_size=_KEY_BYTES).digest()
