"""The network that is configured: tried before it is used, and its name."""

import gin
import torch

import san
from san import data
from san.jobs import config


def try_network(image_size: int | None = None) -> None:
    """Runs the configured network on an image without pixels.

    Costs no time. Finds settings of the network that are missing or wrong,
    and images too small for it, before anything else is done.

    Args:
      image_size: side of the image; None for that of the input.

    Raises:
      ValueError: saying which setting to look at.
      RuntimeError: gin's own, if a setting without a default is not bound;
        see config.is_unbound.
    """
    size = image_size or data.Data().image_size
    try:
        with torch.device("meta"), torch.no_grad():
            san.create_model(num_classes=2).eval()(
                torch.empty(1, 3, size, size)
            )
    except TypeError as error:
        raise ValueError(
            "create_model: the network's settings must be complete and of the"
            f" right types, got: {_first_line(error)}"
        ) from error
    except RuntimeError as error:
        if config.is_unbound(error):
            raise
        raise ValueError(
            "Data: image_size must be large enough for the network, got"
            f" {size} ({_first_line(error)})"
        ) from error


def try_one_image(why: str) -> None:
    """Runs the configured network in training on one image without pixels.

    Args:
      why: what makes it one image at a time, for the error.

    Raises:
      ValueError: if a batch norm has one value per channel then, which has
        no variance.
    """
    size = data.Data().image_size
    try:
        with torch.device("meta"), torch.no_grad():
            san.create_model(num_classes=2)(torch.empty(1, 3, size, size))
    except ValueError as error:
        raise ValueError(
            "train: Recipe.batch_size, or Data.image_size, must be larger for"
            " batch norms to have several values per channel, got one image"
            f" of {size} x {size} pixels at a time ({why}):"
            f" {_first_line(error)}"
        ) from error


def network_name() -> str | None:
    """The configured network's name, if it has one.

    Returns:
      One of san.list_models(), or of a row of the paper that is none of them,
      such as "table4/pair/hadamard"; None for networks of the user's own.
    """
    try:
        name = gin.query_parameter("create_model.name")
    except ValueError:
        return None
    name = str(name)
    for row in san.paper_rows():
        if name == row.row:
            return row.model or row.row
    short = name.removesuffix("wise")
    return short if short in san.list_models() else None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
