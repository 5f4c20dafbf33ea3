"""A model card: what people should know of weights, beside their file.

Markdown behind a YAML header, as model hubs read it. It says nothing that the
checkpoint does not: what is not known is said to be unknown.
"""

import json
from collections.abc import Mapping
from typing import Any

from san.data import PREPROCESSING
from tools.checkpoint import facts as plain_facts
from tools.checkpoint.facts import UNKNOWN

# What a card begins with, see text_of.
START = b'---\nlibrary_name: "san"\n'

_DIGITS = 4  # Of figures, behind the point.

_TAGS = ["image-classification", "self-attention", "san", "safetensors"]


def text_of(
    name: str, sha256: str, facts: Mapping[str, Any], parameters: int
) -> str:
    """The card of a file.

    Args:
      name: of the file.
      sha256: of the file.
      facts: as facts.of_network.
      parameters: how many it has.
    """
    header = {
        "library_name": "san",
        "license": facts["license"],
        "pipeline_tag": "image-classification",
        "tags": _TAGS,
    }
    found = plain_facts.figures(facts)
    if found:
        header["metrics"] = ["accuracy"]
    # JSON is YAML, too.
    lines = [f"{key}: {json.dumps(value)}" for key, value in header.items()]
    architecture = facts["architecture"] or {}
    return "\n".join(
        [
            "---",
            *lines,
            "---",
            "",
            f"# {_inline(facts['network'] or 'A network of its own')}",
            "",
            *_table(
                {"file": name, "SHA-256": sha256, "parameters": parameters}
            ),
            *_section("Architecture", _table(architecture)),
            *_section("Preprocessing", _preprocessing(facts)),
            *_section("Figures", _figures(facts, found)),
            *_section("Training", _training(facts)),
            *_section("Source", [_inline(facts["source"])]),
            *_section("Use", _use(name, facts)),
            *_section("Classes", _classes(facts["classes"])),
            "",
        ]
    )


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *(lines or [UNKNOWN])]


def _table(rows: Mapping[str, Any]) -> list[str]:
    if not rows:
        return []
    head = ["| what | |", "| --- | --- |"]
    return head + [
        f"| {_inline(key)} | {_inline(value)} |" for key, value in rows.items()
    ]


def _inline(value: Any) -> str:
    """A value in one line, with nothing in it that Markdown would read."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split())
    for sign in r"\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _preprocessing(facts: Mapping[str, Any]) -> list[str]:
    return [*_table(facts["preprocessing"]), "", PREPROCESSING]


def _figures(facts: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    units = {"top1": "top-1, %", "top5": "top-5, %", "num_images": "images"}
    rows = {
        units.get(key, key): round(value, _DIGITS)
        for key, value in found.items()
    }
    by = "measured on its validation images when it was trained"
    if "state" not in facts:
        by = "as the file says; of which images, and by whom, is unknown"
    return [*_table(rows), "", f"{by[0].upper()}{by[1:]}."]


def _training(facts: Mapping[str, Any]) -> list[str]:
    rows = {
        "epochs": facts.get("epoch", UNKNOWN),
        "averaged weights": facts.get("averaged", UNKNOWN),
        "training images": facts.get("num_images", UNKNOWN),
        "digest of their list": facts.get("images", UNKNOWN),
        "began with": facts.get("origin") or "fresh weights",
    }
    if not {"recipe", "state"} <= facts.keys():
        rows["began with"] = UNKNOWN
        return _table(rows)
    rows["averaged weights"] = facts.get("averaged", False)
    return _table(rows | facts["recipe"])


def _use(name: str, facts: Mapping[str, Any]) -> list[str]:
    """How to make the network; its configuration, unless a name says all."""
    file = json.dumps(name)
    bindings = {
        binding: value
        for binding, value in facts["configuration"].items()
        if not binding.startswith("Data.")  # Its images'.
    }
    lines = ["import san", ""]
    if bindings.keys() == {"create_model.name"} and facts["network"]:
        network = json.dumps(facts["network"])
        lines.append(f"model = san.create_model({network}, checkpoint={file})")
    else:
        told = (f"    {key} = {value}" for key, value in bindings.items())
        lines = ["import gin", *lines, 'gin.parse_config("""', *told, '""")']
        lines.append(f"model = san.create_model(checkpoint={file})")
    return ["```python", *lines, "```"]


def _classes(classes: list[str] | None) -> list[str]:
    if not classes:
        return []
    return [
        "In the order of the outputs:",
        "",
        "```json",
        json.dumps(classes),
        "```",
    ]
