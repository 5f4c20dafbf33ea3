"""The safetensors format: tensors by name, and texts that go with them.

Eight bytes say how long the header is; the header, which is JSON, says of each
tensor where it lies in the bytes behind it. Source: the format's section in the
documentation of safetensors.

Its own lines, not the safetensors package: that writes the texts in another
order each time, so that equal weights would have unequal digests, and nothing
has to be installed to read weights. Tests compare both.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_LENGTH = 8  # Bytes of the header's length.
_MAX_HEADER = 100_000_000  # As the safetensors package has it.
_ALIGNMENT = 8  # Of the first tensor, so that readers can map the file.

# The name of a text of ours: what a checkpoint holds beside weights, as JSON.
FACTS = "san"

_TEXTS = "__metadata__"
# The name of the file's SHA-256 among its texts. It is computed with zeros in
# its place, so that it holds for the header as well.
_DIGEST = "san.sha256"
_MARK = f'"{_DIGEST}":"'.encode()
_ZEROS = b"0" * (2 * hashlib.sha256().digest_size)


def looks_like(content: bytes) -> bool:
    """Whether bytes begin as such a file does, be it whole or cut off."""
    return content[4:_LENGTH] == bytes(4) and content[_LENGTH:9] == b"{"


def pack(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """Makes a file, with its digest; the same bytes for the same arguments.

    Args:
      tensors: by name, on any device and of any strides.
      texts: what else the file says, by name.

    Raises:
      ValueError: if a tensor is not dense or of a dtype that the format lacks.
    """
    parts, entries, end = [], {}, 0
    # Large numbers first, so that each tensor starts at a multiple of its own.
    for name in sorted(tensors, key=lambda n: -tensors[n].element_size()):
        part = _bytes_of(name, tensors[name])
        entries[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [end, end + len(part)],
        }
        parts.append(part)
        end += len(part)
    header = {
        _TEXTS: {_DIGEST: _ZEROS.decode(), **texts},
        **{name: entries[name] for name in tensors},  # In their own order.
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    content = b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(_ZEROS, digest, 1)


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and its texts, less the digest.

    Raises:
      ValueError: if anything in it is not as the format says; in a few words.
    """
    header, start = _header(content)
    texts = _texts_of(header)
    header.pop(_TEXTS, None)
    data = torch.from_numpy(
        np.frombuffer(content, np.uint8, offset=start).copy()
    )
    spans = {name: _span(name, entry) for name, entry in header.items()}
    # One after the other without gaps, each byte read once: of a header that
    # names a tensor twice, readers would not agree on what it says.
    ends = [0, *(end for _, end in sorted(spans.values())), len(data)]
    starts = [start for start, _ in sorted(spans.values())]
    if starts != ends[:-2] or ends[-2] != len(data):
        raise ValueError("the tensors are not all of its bytes, each once")
    tensors = {
        name: _tensor_of(header[name], data[begin:end])
        for name, (begin, end) in spans.items()
    }
    texts.pop(_DIGEST, None)
    return tensors, texts


def has_digest(content: bytes) -> bool:
    """Whether a file says which SHA-256 it has.

    Raises:
      ValueError: as unpack.
    """
    return _digest_of(_header(content)[0]) is not None


def is_damaged(content: bytes) -> bool:
    """Whether a file has a digest, of other bytes than its own.

    Raises:
      ValueError: as unpack.
    """
    header, _ = _header(content)
    named = _digest_of(header)
    if named is None:
        # One that pack has made says what it is of.
        return FACTS in _texts_of(header)
    at = content.find(_MARK) + len(_MARK)
    signed = content[:at] + _ZEROS + content[at + len(_ZEROS) :]
    return hashlib.sha256(signed).hexdigest() != named


def _texts_of(header: dict[str, Any]) -> dict[str, str]:
    texts = header.get(_TEXTS, {})
    if not isinstance(texts, dict) or not all(
        isinstance(text, str) for text in texts.values()
    ):
        raise ValueError(f"{_TEXTS} does not hold texts")
    return texts


def _digest_of(header: dict[str, Any]) -> str | None:
    return _texts_of(header).get(_DIGEST)


def _bytes_of(name: str, tensor: Tensor) -> bytes:
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise ValueError(
            "pack: tensors must be dense, got"
            f" {name} ({tensor.layout}, {tensor.device})"
        )
    if tensor.dtype not in _NAMES:
        known = ", ".join(str(dtype) for dtype in _NAMES)
        raise ValueError(
            f"pack: tensors must be of {known}, got {name} ({tensor.dtype})"
        )
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _tensor_of(entry: dict[str, Any], part: Tensor) -> Tensor:
    tensor = torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]])
    tensor.reshape(-1).view(torch.uint8).copy_(part)
    return tensor


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where it ends."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    if len(content) < _LENGTH or end > min(len(content), _MAX_HEADER):
        raise ValueError("it ends within its header")
    try:
        header = json.loads(
            content[_LENGTH:end].decode(), object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("its header has a name twice")
    return dict(pairs)


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes lie."""
    if not isinstance(entry, dict) or entry.keys() != {
        "dtype",
        "shape",
        "data_offsets",
    }:
        raise ValueError(f"the entry {name} does not describe a tensor")
    dtype, shape, offsets = (
        entry[key] for key in ("dtype", "shape", "data_offsets")
    )
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{name} is of the unknown dtype {dtype}")
    if not all(isinstance(numbers, list) for numbers in (shape, offsets)):
        raise ValueError(f"{name} has no shape and offsets")
    numbers = list(itertools.chain(shape, offsets))
    if len(offsets) != 2 or not all(
        type(number) is int and number >= 0 for number in numbers
    ):
        raise ValueError(f"{name} has no shape and offsets of whole numbers")
    if math.prod(max(number, 1) for number in shape) >= 2**63:
        raise ValueError(f"{name} has sides that nothing can have")
    begin, end = offsets
    if end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"{name} is not as long as its shape says")
    return begin, end
