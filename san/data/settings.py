"""What can be set about the input.

Holds values and checks them; cropping is in plan.py, decoding in pipeline.py.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

import gin

# How validation images become the network's input, for people.
PREPROCESSING = (
    "Of the RGB image the short side is resized to resize_size pixels by an"
    " antialiased bilinear filter (PIL's); the centre of image_size x"
    " image_size is cut out; then (value / 255 - mean) / std, as float32"
    " [N, 3, image_size, image_size]. EXIF orientation is ignored."
)


@gin.configurable(module="san")
@dataclasses.dataclass(frozen=True)
class Data:
    """How files become network input; the defaults are the published recipe.

    Source: the ImageNet recipe of the published implementation of
    "Exploring Self-attention for Image Recognition" (CVPR 2020).

    Attributes:
      image_size: side of the square images given to the network, in pixels.
      resize_size: short side, in pixels, that a validation image is resized
        to before its centre is cut out.
      min_crop_area: smallest training crop, as a part of the image's area.
      max_crop_area: largest training crop, likewise.
      min_aspect: smallest width / height of a training crop.
      max_aspect: largest width / height of a training crop.
      flip: mirror each training image with probability 1/2.
      rand_augment_ops: RandAugment's operations on each training image, after
        it is cropped and mirrored; 0 is none.
      rand_augment_magnitude: how strong they are, 0 to 30.
      random_erasing: probability that a rectangle of a training image is
        set to the mean, after everything else.
      mean: of the red, green and blue values, where white is 1.
      std: of the red, green and blue values, where white is 1.
      num_threads: decoding threads of each process; None shares the cores
        among the processes of this machine.
      exclude: None, or a file that lists images to leave out, as
        //tools:data_doctor writes it: absolute, or relative to the data
        folder.
      source: None, or a function that is given the work folder, writes a
        data set and returns its folder; for configs that bring their data.
    """

    image_size: int = 224
    resize_size: int = 256
    min_crop_area: float = 0.08
    max_crop_area: float = 1.0
    min_aspect: float = 3 / 4
    max_aspect: float = 4 / 3
    flip: bool = True
    rand_augment_ops: int = 0
    rand_augment_magnitude: int = 9
    random_erasing: float = 0.0
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    num_threads: int | None = None
    exclude: str | None = None
    source: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        """Checks every value.

        Raises:
          ValueError: naming the first value that is not allowed.
        """
        integer = "be an integer of at least 1"
        self._check("image_size", integer, _is_count(self.image_size))
        self._check(
            "resize_size",
            f"be an integer of at least image_size ({self.image_size})",
            _is_count(self.resize_size) and self.resize_size >= self.image_size,
        )
        self._check_range("min_crop_area", "max_crop_area", 1)
        self._check_range("min_aspect", "max_aspect", math.inf)
        self._check("flip", "be True or False", isinstance(self.flip, bool))
        self._check_whole("rand_augment_ops", 8)
        self._check_whole("rand_augment_magnitude", 30)
        self._check(
            "random_erasing",
            "be a number of at least 0 and at most 1",
            _is_number(self.random_erasing) and 0 <= self.random_erasing <= 1,
        )
        self._check("mean", "be three numbers", _are_colours(self.mean))
        self._check(
            "std",
            "be three numbers above 0",
            _are_colours(self.std) and min(self.std) > 0,
        )
        self._check(
            "num_threads",
            f"be None or {integer[3:]}",
            self.num_threads is None or _is_count(self.num_threads),
        )
        self._check(
            "exclude",
            "be None or the name of a file",
            self.exclude is None
            or (isinstance(self.exclude, str) and self.exclude != ""),
        )
        self._check(
            "source",
            "be None or a function reference such as @write_digits",
            self.source is None or callable(self.source),
        )

    def at_size(self, image_size: int) -> "Data":
        """The same with images of another size, of which as much is seen.

        Args:
          image_size: side of the square images, in pixels; resize_size changes
            in proportion.

        Raises:
          ValueError: if it is no size.
        """
        resized = round(self.resize_size * image_size / self.image_size)
        return dataclasses.replace(
            self, image_size=image_size, resize_size=resized
        )

    def unread(self) -> dict[str, str]:
        """What has no effect beside the rest, and why, by name."""
        if self.rand_augment_ops:
            return {}
        return {"rand_augment_magnitude": "rand_augment_ops is 0"}

    def _check(self, name: str, rule: str, holds: bool) -> None:
        if not holds:
            raise ValueError(
                f"Data: {name} must {rule}, got {getattr(self, name)!r}"
            )

    def _check_whole(self, name: str, most: int) -> None:
        value = getattr(self, name)
        self._check(
            name,
            f"be an integer of at least 0 and at most {most}",
            _is_integer(value) and 0 <= value <= most,
        )

    def _check_range(self, low: str, high: str, limit: float) -> None:
        for name in (low, high):
            value = getattr(self, name)
            self._check(
                name, "be a number above 0", _is_number(value) and value > 0
            )
        self._check(
            low,
            f"be at most {high} ({getattr(self, high)})",
            getattr(self, low) <= getattr(self, high),
        )
        self._check(high, f"be at most {limit}", getattr(self, high) <= limit)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_integer(value) and value >= 1


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _are_colours(values: object) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(map(_is_number, values))
    )
