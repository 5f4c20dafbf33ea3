"""The built site: nothing from elsewhere, nothing public left out."""

import html.parser
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from sphinx.errors import SphinxError
from sphinx.util.inventory import InventoryFile

import san
import san.attention
import san.ops
from tests.docs import pages
from tools.site import mathml

_SITE = pathlib.Path("docs/site")

# What a browser fetches by itself.
_FETCHED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "input": "src",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}


class Fetches(html.parser.HTMLParser):
    """The addresses that a page has a browser fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "link" and attributes.get("rel") not in _LINKED:
            self.found.append(attributes["href"])
        if found := attributes.get(_FETCHED.get(tag)):
            self.found.append(found)


# Links that nothing follows before a person does.
_LINKED = ("author", "canonical", "index", "next", "prev", "search")


def html_pages():
    return sorted(_SITE.rglob("*.html"))


def test_each_page_is_there():
    made = {str(p.relative_to(_SITE).with_suffix("")) for p in html_pages()}
    written = {
        str(page.relative_to("docs").with_suffix(""))
        for page in pages.all_pages()
        if page.parts[0] == "docs"
    }
    assert len(written) > 10
    assert written <= made


@pytest.mark.parametrize("page", html_pages(), ids=str)
def test_what_a_page_fetches_lies_beside_it(page):
    fetches = Fetches()
    fetches.feed(page.read_text())
    assert len(fetches.found) > 3
    for address in fetches.found:
        path = re.sub(r"[?#].*", "", address)
        assert (page.parent / path).is_file(), address


def test_what_styles_fetch_lies_beside_them():
    for style in _SITE.rglob("*.css"):
        addresses = re.findall(r"url\(([^)]+)\)|@import", style.read_text())
        for address in addresses:
            name = address.strip("\"'")
            assert name.startswith("data:") or (style.parent / name).exists()


def test_mathematics_is_mathml():
    assert (_SITE / "operators.html").read_text().count("<math ") > 50


def test_a_formula_that_is_not_understood_is_refused():
    assert "<mfrac>" in mathml.convert(r"\frac{a}{b}", as_block=True)
    with pytest.raises(SphinxError, match=r"got \\nosuch"):
        mathml.convert(r"\nosuch{a}", as_block=False)


def test_every_public_name_has_its_text():
    with open(_SITE / "objects.inv", "rb") as stream:
        inventory = InventoryFile.load(stream, "", lambda base, path: path)
    documented = {name for kind in inventory.values() for name in kind}
    for module in (san, san.attention, san.ops):
        for name in set(module.__all__) - {"__version__", "ops"}:
            own = f"{module.__name__}.{name}"
            assert documented & {own, f"san.{name}"}, own


def test_figures_are_whole_and_bring_everything():
    figures = [*pathlib.Path("docs").glob("figures/*.svg")]
    assert len(figures) >= 5
    for figure in figures:
        text = figure.read_text()
        root = xml.etree.ElementTree.fromstring(text)
        assert root.find("{http://www.w3.org/2000/svg}title").text
        assert "prefers-color-scheme: dark" in text
        assert re.findall(r"https?://[^\"]+", text) == [
            "http://www.w3.org/2000/svg"
        ]


def test_the_figure_of_memory_has_the_figures_of_the_page():
    drawn = re.findall(
        r"([\d.]+) MB", pathlib.Path("docs/figures/memory.svg").read_text()
    )
    printed = re.findall(
        r"^P\w+Attention +\w+ +([\d.]+) MB$",
        pathlib.Path("docs/operators.md").read_text(),
        re.MULTILINE,
    )
    assert len(drawn) == 6
    assert drawn == printed


def test_a_dead_link_ends_the_build_and_two_builds_are_the_same(tmp_path):
    source = tmp_path / "pages"
    source.mkdir()
    (source / "conf.py").write_text(pathlib.Path("docs/conf.py").read_text())
    (source / "style").mkdir()
    (source / "style" / "site.css").write_text("")
    index = source / "index.md"

    def build(name, text):
        index.write_text(text)
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "tools.site.build",
                str(source),
                str(tmp_path / name),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

    fine = "# Page\n\n$a^2$\n\n```{eval-rst}\n.. autofunction:: san.list_models\n```\n"
    for name in ("one", "two"):
        result = build(name, fine)
        assert result.returncode == 0, result.stderr
    files = [
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    ]
    assert files[0] == files[1]
    for dead in ("[x](nowhere.md)", "[x](#nowhere)", "![x](nowhere.png)"):
        result = build("dead", f"{fine}\n{dead}\n")
        assert result.returncode != 0, dead
        assert "nowhere" in result.stderr
