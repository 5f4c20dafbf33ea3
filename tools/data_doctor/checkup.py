"""Looks at one image as training does: through its scan and its pipeline.

Runs in several processes at once, each of which has an Examiner of its own.
"""

import dataclasses
import hashlib
import os
import warnings

import numpy as np
from PIL import Image

from san.data import Data, DataError, headers, plan, png, scan
from san.data.listing import File
from san.data.pipeline import ImagePipeline
from tools.data_doctor import decoder_words
from tools.data_doctor.kinds import HUGE_PIXELS, TINY_SIDE, Finding, finding

# Whose reasons are of which kind; the first that is found.
_REASONS = {
    "is a link to": "dead_link",
    "cannot be read": "unreadable",
    "is empty": "empty",
    "is not a JPEG": "no_image",
    "not a file": "no_file",
    "is a folder": "no_file",
    "cut off": "cut_off",
}
_EXTENSIONS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright.
_GREY = 128  # All values of pixels that a JPEG decoder has no data for.
_LEAST_GREY_ROWS = 8
_NEAR_SIZE = (9, 8)  # Whose 8 x 8 differences make 64 bits.


@dataclasses.dataclass(frozen=True)
class Checkup:
    """One file, looked at.

    Attributes:
      path: relative to the data folder.
      findings: what is the matter with it.
      bytes_digest: of the file; None if it was not decoded.
      pixels_digest: of its decoded pixels; None likewise.
      near_hash: 64 bits that are alike for images that look alike: whether
        each pixel of the image at 9 x 8 is darker than its right neighbour;
        None if it was not asked for.
    """

    path: str
    findings: list[Finding]
    bytes_digest: bytes | None = None
    pixels_digest: bytes | None = None
    near_hash: int | None = None


class Examiner:
    """Looks at files, one after the other."""

    def __init__(self, root: str, *, near: bool) -> None:
        """Prepares the pipeline.

        Args:
          root: the data folder.
          near: whether to compute near_hash.
        """
        self._root, self._near = root, near
        self._pipeline = ImagePipeline(Data(num_threads=1), 1, "cpu")

    def look_at(self, file: File) -> Checkup:
        """Decodes a file and says what is the matter with it.

        Args:
          file: in the data folder.
        """
        try:
            height, width = scan.measure(self._root, file)
        except DataError as error:
            reason = str(error)
            kinds = (k for part, k in _REASONS.items() if part in reason)
            kind = next(kinds, "unsupported")
            return Checkup(file.path, [finding(kind, file.path, reason)])
        found = _about_the_file(self._root, file.path, height, width)
        try:
            with decoder_words.heard() as words:
                pixels = self._decoded(file.path, height, width)
        except DataError:
            said = words[-1] if words else "no reason given"
            problem = finding("undecodable", file.path, said)
            return Checkup(file.path, [problem, *found])
        return Checkup(
            file.path,
            [*_about_the_pixels(file.path, pixels, words), *found],
            _file_digest(os.path.join(self._root, file.path)),
            _pixels_digest(pixels),
            _near_hash(pixels) if self._near else None,
        )

    def _decoded(self, path: str, height: int, width: int) -> np.ndarray:
        whole = plan.Crops(
            windows=np.array([[0, 0, height, width]], np.int32),
            scales=np.ones((1, 2)),
            corners=np.zeros((1, 2), np.int64),
            flips=np.zeros(1, np.int32),
        )
        name = os.path.join(self._root, path)
        ((window,),) = (
            [windows[0].numpy().copy()]
            for windows in self._pipeline.windows([([name], whole)])
        )
        return window


def _about_the_file(
    root: str, path: str, height: int, width: int
) -> list[Finding]:
    """What training does well with, but a person may not expect."""
    kind, mode, turned, depth = _header(os.path.join(root, path))
    expected = _EXTENSIONS.get(os.path.splitext(path)[1].lower(), "none")
    facts = {
        "wrong_extension": (kind != expected, f"is a {kind} image"),
        "cmyk": (mode == "CMYK", "is converted to RGB"),
        "exif_turned": (turned != 1, f"orientation {turned}"),
        "sixteen_bit": (depth == 16, "the high bytes are taken"),
        "tiny": (min(height, width) < TINY_SIDE, f"{width} x {height}"),
        "huge": (height * width > HUGE_PIXELS, f"{width} x {height}"),
    }
    return [
        finding(name, path, detail)
        for name, (holds, detail) in facts.items()
        if holds
    ]


def _header(path: str) -> tuple[str, str, int, int]:
    """Format, PIL's mode, EXIF orientation and bits of a value."""
    with open(path, "rb") as file:
        kind = headers.image_format(file)
        depth = png.bit_depth(file) if kind == "PNG" else 8
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"):
                image = Image.open(file)
                turned = image.getexif().get(_ORIENTATION, 1)
        except Exception:
            # PIL refuses some headers, such as long texts; what is asked of
            # it here is not worth a finding.
            return kind, "", 1, depth
        return kind, image.mode, turned, depth


def _about_the_pixels(
    path: str, pixels: np.ndarray, words: list[str]
) -> list[Finding]:
    rows = _grey_rows(pixels)
    detail = f"the last {rows} of {len(pixels)} rows are grey"
    if decoder_words.ends_early(words):
        detail = detail if rows else "its last pixels are missing"
        return [finding("half_grey", path, detail)]
    if warning := decoder_words.corruption(words):
        return [finding("damaged", path, warning)]
    # Decoded elsewhere and encoded again: whole, but with the grey in it.
    least = max(_LEAST_GREY_ROWS, len(pixels) // 10)
    if rows >= least and _grey_rows(pixels[::-1]) == 0:
        return [finding("half_grey", path, detail)]
    return []


def _grey_rows(pixels: np.ndarray) -> int:
    """How many rows at the end are of the grey of what was not decoded."""
    others = np.abs(pixels.astype(np.int16) - _GREY) > 2
    last = np.flatnonzero(others.any(axis=(1, 2)))
    return len(pixels) - 1 - int(last[-1]) if len(last) else len(pixels)


def _file_digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _pixels_digest(pixels: np.ndarray) -> bytes:
    shape = repr(pixels.shape).encode()
    return hashlib.blake2b(shape + pixels.tobytes(), digest_size=16).digest()


def _near_hash(pixels: np.ndarray) -> int:
    small = Image.fromarray(pixels).convert("L").resize(_NEAR_SIZE)
    levels = np.asarray(small, np.int16)
    bits = np.packbits(levels[:, 1:] > levels[:, :-1])
    return int.from_bytes(bits.tobytes())
