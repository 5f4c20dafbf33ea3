"""A checkpoint file's own SHA-256, as the comment of its zip archive.

torch.save writes a zip archive that ends with a record of 22 bytes and an
empty comment. torch.load, like every reader of such archives, passes over the
comment; it compares no checksums, not even those of the archive.
"""

import hashlib
import io

_RECORD = 22  # Its first four bytes are a mark, its last two a length.
_MARK = b"PK\5\6"
_NAME = b"san-sha256:"
_COMMENT = len(_NAME) + 2 * hashlib.sha256().digest_size
_LENGTH = _COMMENT.to_bytes(2, "little")


def sign(file: io.BytesIO) -> None:
    """Adds its digest to what torch.save has written."""
    with file.getbuffer() as content:
        record = bytes(content[-_RECORD:])
        assert record[:4] == _MARK and record[-2:] == b"\0\0", "no archive"
        comment = _NAME + _hexdigest(content)
    file.seek(-2, io.SEEK_END)
    file.write(_LENGTH + comment)


def is_signed(content: bytes) -> bool:
    """Whether a file's bytes, which are not damaged, have a digest."""
    return content[-_COMMENT:].startswith(_NAME)


def is_damaged(content: bytes) -> bool:
    """Whether a file's bytes are not those that were signed.

    Files without a digest are not damaged as far as this can tell. One that
    has the name or the length of a digest's comment must have all of it.
    """
    tail = content[-_RECORD - _COMMENT :]
    record = tail[tail.rfind(_MARK) :]
    if _NAME not in tail and record[_RECORD - 2 : _RECORD] != _LENGTH:
        return False
    signed = memoryview(content)[: -_COMMENT - 2]
    comment = _NAME + _hexdigest(signed, b"\0\0")
    return tail[:4] != _MARK or tail[_RECORD - 2 :] != _LENGTH + comment


def _hexdigest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
