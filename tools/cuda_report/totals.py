"""What launches add up to: passes through a block, and through SAN10."""

import collections
import dataclasses
from collections.abc import Sequence

from tools.cuda_report import eager
from tools.cuda_report.entries import TYPES, DataType
from tools.cuda_report.hardware import Device
from tools.cuda_report.layers import LAYERS, Layer
from tools.cuda_report.model import Launch


@dataclasses.dataclass(frozen=True)
class Total:
    """A pass of a core through a block of one layer, or through SAN10.

    Attributes:
      group, type_name, passed: which.
      layer: None for the whole network, all its blocks.
      bytes, flops, slots: of it; flops those that the task asks for.
      bound: of the launch that takes longest.
      seconds: None where a launch is not modelled.
      eager_seconds: of the published design.
    """

    group: str
    type_name: str
    passed: str
    layer: Layer | None
    bytes: float
    flops: float
    slots: float
    bound: str
    seconds: float | None
    eager_seconds: float | None


def totals(found: Sequence[Launch], device: Device) -> list[Total]:
    """The cores' passes, layer by layer and for SAN10."""
    keys = dict.fromkeys(
        (launch.entry.group, launch.type_name, passed)
        for launch in found
        for passed in launch.entry.passes
    )
    sums = []
    for group, type_name, passed in keys:
        of_layers = [
            _layer_total(
                [
                    launch
                    for launch in found
                    if launch.entry.group == group
                    and launch.type_name == type_name
                    and launch.layer == layer
                    and passed in launch.entry.passes
                ],
                passed,
                layer,
                TYPES[type_name],
                device,
            )
            for layer in LAYERS
        ]
        sums += [*of_layers, _network_total(of_layers)]
    return sums


def _layer_total(
    found: Sequence[Launch],
    passed: str,
    layer: Layer,
    data_type: DataType,
    device: Device,
) -> Total:
    first = found[0]
    modelled = [launch for launch in found if not launch.problem]

    def of_all(value: str) -> float:
        return sum(
            launch.entry.passes[passed]
            * getattr(launch.work if value != "slots" else launch, value)
            for launch in modelled
        )

    longest = max(
        modelled,
        key=lambda launch: launch.time * launch.entry.passes[passed],
        default=None,
    )
    return Total(
        first.entry.group,
        first.type_name,
        passed,
        layer,
        of_all("bytes"),
        of_all("flops"),
        of_all("slots"),
        longest.bound if longest else "",
        sum(a.time * a.entry.passes[passed] for a in modelled)
        if len(modelled) == len(found)
        else None,
        eager.seconds(first.entry.group, passed, layer, data_type, device),
    )


def _network_total(parts: Sequence[Total]) -> Total:
    def of_all(value: str) -> float | None:
        values = [getattr(part, value) for part in parts]
        if None in values:
            return None
        return sum(
            part.layer.blocks * number
            for part, number in zip(parts, values, strict=True)
            if part.layer
        )

    times: collections.Counter[str] = collections.Counter()
    for part in parts:
        if part.layer:
            weight = part.layer.blocks * (part.seconds or 0)
            times[part.bound] += weight  # type: ignore[assignment]
    return dataclasses.replace(
        parts[0],
        layer=None,
        bytes=of_all("bytes") or 0,
        flops=of_all("flops") or 0,
        slots=of_all("slots") or 0,
        bound=times.most_common(1)[0][0],
        seconds=of_all("seconds"),
        eager_seconds=of_all("eager_seconds"),
    )
