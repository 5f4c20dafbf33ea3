"""CITATION.cff says what to cite, of the version that there is."""

import pathlib

import yaml

import san


def test_the_citation_is_whole():
    citation = yaml.safe_load(pathlib.Path("CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    for key in ("message", "title", "authors", "license"):
        assert citation[key], key
    assert str(citation["version"]) == san.__version__
    paper = citation["preferred-citation"]
    assert paper["type"] == "conference-paper"
    assert [author["family-names"] for author in paper["authors"]] == [
        "Zhao",
        "Jia",
        "Koltun",
    ]
    assert (paper["start"], paper["end"]) == (10076, 10085)


def test_the_changelog_begins_with_this_version():
    text = pathlib.Path("CHANGELOG.md").read_text()
    headings = [
        line.removeprefix("## ")
        for line in text.splitlines()
        if line.startswith("## ")
    ]
    assert headings[0] == "Unreleased"
    assert headings[1].split()[0] == san.__version__
