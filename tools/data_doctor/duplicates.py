"""Finds images that are there more than once, by their decoded pixels."""

import collections
import os
from collections.abc import Iterator, Sequence

import numpy as np

from tools.data_doctor.checkup import Checkup
from tools.data_doctor.kinds import Finding, finding

_BANDS = 4  # Of 16 bits; two hashes that differ in 3 bits share one of them.
MAX_NEAR_BITS = _BANDS - 1


def find_duplicates(checkups: Sequence[Checkup]) -> list[Finding]:
    """Images of equal pixels.

    Excluded are training images that are in val as well, all copies that
    are in different classes, and of others all but the first.

    Args:
      checkups: of all images, train before val.
    """
    groups = collections.defaultdict(list)
    for checkup in checkups:
        if checkup.pixels_digest:
            groups[checkup.pixels_digest].append(checkup)
    return [
        found
        for group in groups.values()
        if len(group) > 1
        for found in _about(group)
    ]


def _about(group: Sequence[Checkup]) -> Iterator[Finding]:
    train = [one for one in group if one.path.startswith("train/")]
    val = group[len(train) :]
    if train and val:
        for one in train:
            yield _same("in_both_splits", one, val[0])
    elif len({os.path.dirname(one.path) for one in train}) > 1:
        for one, other in zip(train, [train[-1], *train], strict=False):
            yield _same("in_two_classes", one, other)
    else:
        for one in train[1:]:
            yield _same("duplicate", one, train[0])
    for one in val[1:]:
        yield _same("duplicate", one, val[0])


def _same(kind: str, one: Checkup, other: Checkup) -> Finding:
    equal = one.bytes_digest == other.bytes_digest
    what = "bytes" if equal else "pixels"
    return finding(kind, one.path, f"has the same {what} as {other.path}")


def find_near_duplicates(
    checkups: Sequence[Checkup], max_bits: int
) -> list[Finding]:
    """Images that look alike, but are not of equal pixels.

    Args:
      checkups: of all images.
      max_bits: in how many of 64 bits their hashes may differ, 0 to 3.
    """
    first: dict[int, Checkup] = {}
    found = []
    seen = set()
    for one in checkups:
        # Images of one colour, whose bits are all 0, are not alike for that.
        if not one.near_hash or one.pixels_digest in seen:
            continue
        seen.add(one.pixels_digest)
        other = first.setdefault(one.near_hash, one)
        if other is not one:
            found.append(_alike(one, other, 0))
    hashes = np.array(list(first), np.uint64)
    places = list(first.values())
    for i, j, bits in _close_pairs(hashes, max_bits):
        found.append(_alike(places[j], places[i], bits))
    return found


def _alike(one: Checkup, other: Checkup, bits: int) -> Finding:
    detail = f"looks like {other.path} ({bits} of 64 bits differ)"
    return finding("near_duplicate", one.path, detail)


def _close_pairs(
    hashes: np.ndarray, max_bits: int
) -> list[tuple[int, int, int]]:
    """Pairs i < j of different hashes, and in how many bits they differ."""
    pairs = {}
    width = 64 // _BANDS
    for band in range(_BANDS if max_bits else 0):
        values = (hashes >> np.uint64(band * width)) & np.uint64(2**width - 1)
        order = np.argsort(values, kind="stable")
        edges = np.flatnonzero(np.diff(values[order])) + 1
        for bucket in np.split(order, edges):
            for place, i in enumerate(bucket[:-1]):
                rest = bucket[place + 1 :]
                bits = np.bitwise_count(hashes[i] ^ hashes[rest])
                for j, count in zip(rest, bits, strict=True):
                    if count <= max_bits:
                        pairs[int(i), int(j)] = int(count)
    return [(i, j, count) for (i, j), count in sorted(pairs.items())]
