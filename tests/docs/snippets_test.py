"""The Python and gin blocks of the pages do what the pages say."""

import contextlib
import importlib
import io
import itertools
import re

import gin
import pytest

import san
from san.data import Data
from san.jobs import config
from san.recipe import Recipe
from tests.docs import pages, trained

# tests/attention/relations_test.py tries the steps of CONTRIBUTING.md.
_PAGES = [page for page in pages.all_pages() if page.stem != "CONTRIBUTING"]

_KNOWN = {"", "bash", "console", "gin", "indented", "python", "text"}
# Sphinx reads these itself.
_DIRECTIVES = {"{eval-rst}", "{toctree}"}

_BLOCKS = {page: pages.blocks(page) for page in _PAGES}
_CODE = [(page, code) for page in _PAGES for code in pages.inline_code(page)]


def having(*languages):
    """The pages that have blocks of a language."""
    return [
        page
        for page in _PAGES
        if any(block.language in languages for block in _BLOCKS[page])
    ]


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    return trained.make(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def folder(trained_folder, monkeypatch):
    """The folder that commands are given in."""
    monkeypatch.chdir(trained_folder)
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(trained_folder))
    monkeypatch.syspath_prepend(str(trained_folder))
    yield trained_folder
    gin.clear_config()


def run(block, names):
    """What a block prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.place, "exec"), names)  # noqa: S102
    return printed.getvalue()


def parse(place, text, folder):
    """Binds settings, and makes what they are of."""
    file = folder / "page.gin"
    file.write_text(text)
    config.parse([str(file)])
    Recipe()
    Data()
    if "create_model.name" in config.bindings():
        assert san.create_model(num_classes=3), place


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_every_block_is_of_a_kind_that_is_tested(page):
    for block in _BLOCKS[page]:
        assert block.language in _KNOWN | _DIRECTIVES, block.place


@pytest.mark.parametrize("page", having("python", "gin"), ids=str)
def test_blocks_run_in_their_order_and_print_what_they_say(page, folder):
    names = {"__name__": "page"}
    blocks = [b for b in _BLOCKS[page] if b.language not in _DIRECTIVES]
    for block, after in itertools.pairwise([*blocks, None]):
        if block.file:
            (folder / block.file).write_text(block.text)
        if block.language == "python" and not block.file:
            printed = run(block, names)
            is_output = after is not None and after.language == "text"
            assert printed == (after.text if is_output else ""), block.place
        if block.language == "gin":
            parse(block.place, block.text, folder)


def test_there_is_something_to_run():
    languages = [block.language for page in _PAGES for block in _BLOCKS[page]]
    assert languages.count("python") > 25
    assert languages.count("gin") >= 3


def _inline(pattern):
    """What of the code in sentences is of a kind, with its page."""
    return [
        (page, found)
        for page, code in _CODE
        for found in re.findall(pattern, code)
    ]


def test_bindings_in_sentences_and_tables_can_be_bound(folder):
    bindings = _inline(r"^\w+\.\w+ = .+$")
    assert len(bindings) > 15
    for page, binding in bindings:
        if page.parts[:2] != ("docs", "ablations"):
            parse(page, binding, folder)


def test_settings_in_sentences_are_there():
    settings = _inline(r"^(Recipe|Data)\.(\w+)")
    assert len(settings) > 20
    owners = {"Recipe": Recipe, "Data": Data}
    for page, (owner, name) in settings:
        assert name in owners[owner].__dataclass_fields__, (page, owner, name)


def test_names_of_the_package_in_sentences_are_there():
    names = _inline(r"^san((?:\.[A-Za-z_]\w*)+)")
    assert len(names) > 10
    for page, path in names:
        found = san
        for part in path.split(".")[1:]:
            if not hasattr(found, part):
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)
            assert found is not None, (page, path)
