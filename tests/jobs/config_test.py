import logging
import os
import pathlib

import gin
import pytest
import torch

import san
from san.data import Data
from san.jobs import config, row_configs
from san.recipe import Recipe


@pytest.fixture(autouse=True)
def user_folder(tmp_path, monkeypatch):
    """The user's folder, which is not the working directory."""
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    yield tmp_path
    gin.clear_config()


def error_of(files=(), params=()):
    with pytest.raises(config.ConfigError) as error:
        config.parse(files, params)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", config.packaged_configs())
def test_every_packaged_config_parses(name):
    config.parse([name])
    assert config.resolved_text()


@pytest.mark.parametrize("row", san.paper_rows(), ids=lambda row: row.row)
def test_every_row_of_the_paper_has_a_config(row):
    config.parse([f"{row.row}.gin"], ["create_model.num_classes = 3"])
    with torch.device("meta"):
        model = san.create_model()
        named = san.create_model(row.row, num_classes=3)
    assert str(model) == str(named)
    assert f"create_model.name = '{row.row}'" in config.resolved_text()


def test_what_a_rows_config_says():
    text = row_configs.text_of("table6/pair/phi=psi.gin")
    for part in (
        "# The row phi=psi (pairwise attention) of table 6",
        "bazel run //train:main -- --gin_file=table6/pair/phi=psi.gin",
        "10.0 M parameters, 2.1 G MACs",
        "top-1 76.3%, top-5 92.6%",
    ):
        assert part in text
    for name in row_configs.names():
        text = row_configs.text_of(name)
        assert max(map(len, text.splitlines())) <= 80
    assert row_configs.text_of("table6/pair/phi=psi") is None
    assert "of section 5.3" in row_configs.text_of("table5.3/sasa.gin")


def test_a_users_file_hides_a_rows(user_folder):
    folder = user_folder / "table4" / "pair"
    folder.mkdir(parents=True)
    (folder / "dot.gin").write_text("Data.image_size = 40\n")
    config.parse(["table4/pair/dot.gin"])
    assert Data().image_size == 40
    assert "create_model" not in config.resolved_text()


def test_rows_are_included(user_folder):
    (user_folder / "mine.gin").write_text(
        "include 'table8/pair/none.gin'\nRowSize.num_conv_blocks = %blocks\n"
    )
    message = error_of(["mine.gin"])
    assert message.startswith(f"{user_folder}/mine.gin, line 2: macro %blocks")
    config.parse(["mine.gin"], ["blocks = (1, 1, 1, 1)"])
    assert "'table8/pair/none'" in config.resolved_text()


def test_titles():
    assert config.title("san10_pair.gin") == "san10_pair"
    assert config.title("/some/folder/mine.gin") == "mine"
    assert config.title("table7/pair/7.gin") == "table7-pair-7"
    assert config.title("table5.3/sasa.gin") == "table5.3-sasa"


def test_packaged_configs():
    names = config.packaged_configs()
    assert {"san10_pair.gin", "resnet50.gin", "digits.gin"} <= set(names)
    assert names == sorted(names)


def test_later_bindings_win_and_parse_forgets(user_folder):
    (user_folder / "a.gin").write_text("Recipe.epochs = 1\nRecipe.seed = 1")
    (user_folder / "b.gin").write_text("Recipe.epochs = 2")
    config.parse(["a.gin", "b.gin"], ["Recipe.momentum = 0.5"])
    recipe = Recipe()
    assert (recipe.epochs, recipe.seed, recipe.momentum) == (2, 1, 0.5)
    config.parse(["b.gin"], ["Recipe.epochs = 3"])
    recipe = Recipe()
    assert (recipe.epochs, recipe.seed, recipe.momentum) == (3, 0, 0.9)


def test_where_files_are_found(user_folder, monkeypatch):
    folder = user_folder / "mine"
    folder.mkdir()
    (folder / "a.gin").write_text("Data.image_size = 32")
    for name in ("mine/a.gin", str(folder / "a.gin")):
        config.parse([name])
        assert Data().image_size == 32
    # The user's file hides a packaged one of the same name.
    (user_folder / "san10_pair.gin").write_text("Data.image_size = 48")
    config.parse(["san10_pair.gin"])
    assert Data().image_size == 48
    monkeypatch.delenv("BUILD_WORKING_DIRECTORY")
    monkeypatch.chdir(folder)
    config.parse(["a.gin"])
    assert Data().image_size == 32


def test_included_files_are_found_likewise(user_folder, monkeypatch, caplog):
    (user_folder / "mine.gin").write_text(
        "include 'san10_pair.gin'\ninclude 'sub/small.gin'\n"
    )
    (user_folder / "sub").mkdir()
    (user_folder / "sub" / "small.gin").write_text("Data.image_size = 64\n")
    elsewhere = user_folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "san10_pair.gin").write_text("no.such = 'config'")
    monkeypatch.chdir(elsewhere)
    with caplog.at_level(logging.ERROR):
        config.parse(["mine.gin"])
    assert not caplog.records
    assert Data().image_size == 64
    assert "create_model.name" in config.resolved_text()


def test_missing_file(user_folder):
    message = error_of(["san10_par.gin"])
    packaged = pathlib.Path(san.__file__).absolute().parent / "configs"
    assert message.startswith(
        "gin file 'san10_par.gin' not found (tried"
        f" {user_folder}/san10_par.gin, {packaged}/san10_par.gin);"
        " did you mean 'san10_pair.gin'? Known: "
    )
    for name in config.packaged_configs():
        assert name in message
    assert message.endswith(
        "; and the rows of san.paper_rows(), such as table4/pair/hadamard.gin"
    )
    assert "did you mean 'table4/pair/hadamard.gin'?" in error_of(
        ["table4/pair/hadamar.gin"]
    )
    assert error_of(["/no/such.gin"]).startswith(
        "gin file '/no/such.gin' not found (tried /no/such.gin); did you mean"
    )
    assert "not found" in error_of([str(user_folder)])


def test_missing_included_file(user_folder):
    (user_folder / "a.gin").write_text("\ninclude 'digit.gin'\n")
    message = error_of(["a.gin"])
    assert message.startswith(
        f"{user_folder}/a.gin, line 2: gin file 'digit.gin' not found"
    )
    assert "did you mean 'digits.gin'?" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\nDta.image_size = 3",
            "line 2: unknown name 'Dta'; did you mean 'Data'? Known: ",
        ),
        (
            "Data.imge_size = 3",
            "line 1: Data has no parameter 'imge_size'; did you mean"
            " 'image_size'? Known: exclude, flip,",
        ),
        (
            "\n\nData.source = @write_digit",
            "line 3: unknown name 'write_digit'; did you mean 'write_digits'?",
        ),
        (
            "Data:\n  flip = True\n  crop = 3",
            "line 3: Data has no parameter 'crop'; did you mean",
        ),
        (
            "Data.flip == True",
            "line 1: syntax error in 'Data.flip == True': Couldn't parse",
        ),
        (
            "# A comment.\nRecipe.schedule = cosine",
            "line 2: syntax error in 'Recipe.schedule = cosine': Failed to"
            " parse token 'cosine' (a text needs quotes)",
        ),
        (
            "side = 3\n\nData.image_size = %sise",
            "line 3: macro %sise is not defined; did you mean 'side'? Known:"
            " side",
        ),
        ("import no_such_module", "line 1: No module named 'no_such_module'"),
    ],
)
def test_mistakes_in_a_file(user_folder, text, message):
    (user_folder / "a.gin").write_text(text)
    assert error_of(["a.gin"]).startswith(f"{user_folder}/a.gin, {message}")
    # The same in a file that another one includes.
    (user_folder / "b.gin").write_text("include 'a.gin'")
    assert error_of(["b.gin"]).startswith(f"{user_folder}/a.gin, {message}")


def test_mistakes_that_end_the_file(user_folder):
    (user_folder / "a.gin").write_text("Data.mean = (0.1,\n")
    assert error_of(["a.gin"]) == (
        "a.gin: syntax error: a bracket or a quote is not closed"
    )
    (user_folder / "a.gin").write_text("Data:\n    flip = True\n  std = 1\n")
    assert error_of(["a.gin"]).startswith("a.gin, line 3: syntax error in")


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("Data.flp=True", "Data has no parameter 'flp'; did you mean 'flip'?"),
        ("data.flip=True", "unknown name 'data'; did you mean 'Data'?"),
        ("Recipe.seed=%seed", "macro %seed is not defined"),
    ],
)
def test_mistakes_on_the_command_line(param, message):
    assert error_of([], [param]).startswith(f"--gin_param={param!r}: {message}")


def test_a_setting_that_nothing_reads(user_folder):
    message = error_of([], ["Recipe.seed = 2", "epochs=1"])
    assert message == (
        "--gin_param='epochs=1': nothing reads 'epochs': a name without an"
        " owner is a macro for use as %epochs; did you mean Recipe.epochs?"
    )
    (user_folder / "a.gin").write_text("side = 32\n\nimage_size = 32")
    message = error_of(["a.gin"], ["Data.resize_size = %side"])
    assert message.startswith(f"{user_folder}/a.gin, line 3: nothing reads 'im")
    assert message.endswith("did you mean Data.image_size?")
    config.parse([], ["side = 32", "Data.mean = (%side, 1.0, 1.0)"])
    assert Data().mean == (32, 1.0, 1.0)


def test_what_reads_a_macro_may_be_replaced(user_folder):
    file = user_folder / "a.gin"
    file.write_text("side = 32\nData.image_size = %side")
    config.parse(["a.gin"], ["Data.image_size = 64"])
    assert Data().image_size == 64
    # Which config.gin of a work folder is.
    file.write_text(config.resolved_text())
    config.parse(["a.gin"])
    assert Data().image_size == 64


def test_syntax_mistakes_on_the_command_line():
    assert error_of([], ["epochs"]).startswith("--gin_param='epochs', line 1:")
    message = error_of([], ["Recipe.seed=1", "Data.source=x"])
    assert message.startswith("--gin_param='Data.source=x', line 1: syntax")


def test_a_failed_parse_leaves_nothing_bound():
    error_of([], ["Data.image_size = 32", "Data.flp = 3"])
    assert Data().image_size == 224
    assert config.resolved_text() == ""


def test_resolved_text_is_the_same_config(user_folder):
    config.parse(
        ["san10_pair.gin"],
        ["side = 40", "Data.image_size = %side", "Data.source = @write_digits"],
    )
    text = config.resolved_text()
    (user_folder / "again.gin").write_text(text)
    config.parse(["again.gin"])
    assert config.resolved_text() == text
    assert Data().image_size == 40


def test_operative_text_holds_what_was_used_with_its_defaults():
    config.parse([], ["Data.image_size = 32", "Recipe.epochs = 3"])
    assert "Data" not in config.operative_text()
    Data()
    text = config.operative_text()
    assert "Data.image_size = 32" in text
    assert "Data.resize_size = 256" in text
    assert "Recipe" not in text


def test_user_path(user_folder, monkeypatch):
    assert config.user_path("a/b") == f"{user_folder}/a/b"
    assert config.user_path("../b") == f"{user_folder.parent}/b"
    assert config.user_path("/a/b") == "/a/b"
    monkeypatch.setenv("HOME", "/home/someone")
    assert config.user_path("~/b") == "/home/someone/b"
    monkeypatch.delenv("BUILD_WORKING_DIRECTORY")
    assert config.user_path("b") == os.path.join(os.getcwd(), "b")
