"""The blocks of code in the project's Markdown pages."""

import dataclasses
import pathlib

from markdown_it import MarkdownIt

_DIRECTIVE = "{code-block} "
_CAPTION = ":caption: "


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      page: the file.
      line: its first, counted from 1.
      language: "python", "text" and so on; "" for output without a name, and
        "indented" for one without a fence.
      text: what is in it.
      file: what the page calls the file that it is to be put into, or None.
    """

    page: pathlib.Path
    line: int
    language: str
    text: str
    file: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def all_pages() -> list[pathlib.Path]:
    """Every page of the site, and what one reads first in the project."""
    found = [*pathlib.Path("docs").rglob("*.md")]
    return sorted(
        [*found, *map(pathlib.Path, ("README.md", "CONTRIBUTING.md"))]
    )


def blocks(page: pathlib.Path) -> list[Block]:
    """The blocks of a page in their order, those in lists too."""
    found = []
    for token in MarkdownIt().parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            language = token.info.strip()
            if token.type == "code_block":
                language = "indented"
            found.append(
                _titled(Block(page, token.map[0] + 1, language, token.content))
            )
    return found


def inline_code(page: pathlib.Path) -> list[str]:
    """What stands between backticks in the sentences and tables of a page."""
    return [
        part.content
        for token in MarkdownIt().parse(page.read_text())
        for part in token.children or []
        if part.type == "code_inline"
    ]


def _titled(block: Block) -> Block:
    """A MyST directive as the block that is in it."""
    if not block.language.startswith(_DIRECTIVE):
        return block
    options, _, text = block.text.partition("\n\n")
    assert options.startswith(_CAPTION), block.place
    return dataclasses.replace(
        block,
        language=block.language.removeprefix(_DIRECTIVE),
        text=text,
        file=options.removeprefix(_CAPTION),
    )
