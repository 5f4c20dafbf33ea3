"""The site in a real browser, as wide as a phone and as a desk.

Needs Debian's chromium, and runs by its name only:

  sudo apt-get install chromium && ./bazelw test //tests/docs:site_browser_test
"""

import functools
import http.server
import json
import shutil
import threading

import pytest

from tests.eval import browser

_WIDTHS = (390, 1280)

# A window is no narrower than 500 pixels: pages are seen in frames.
# The theme cuts off what is too wide: the width of the page says nothing.
_PROBE = """
const scrolls = (element) => element.tagName !== "ARTICLE" && (
    ["auto", "scroll"].includes(
        element.ownerDocument.defaultView.getComputedStyle(element).overflowX)
    || scrolls(element.parentElement));
const seen = {};
for (const page of PAGES) for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.src = page;
  document.body.append(frame);
  await new Promise((resolve) => { frame.onload = resolve; });
  const inner = frame.contentDocument;
  seen[`${page} ${width}`] = {
    wide: [...inner.querySelectorAll("article *")]
        .filter((element) => element.getBoundingClientRect().right > width)
        .filter((element) => !scrolls(element.parentElement))
        .map((element) => element.outerHTML.slice(0, 80)),
    text: inner.body.innerText.length,
    broken: [...inner.images].filter((i) => !i.naturalWidth).length,
    fetched: frame.contentWindow.performance.getEntriesByType("resource")
        .map((entry) => entry.name),
  };
  frame.remove();
}
return seen;
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the site, and the address that it is served at."""
    folder = tmp_path_factory.mktemp("served") / "site"
    shutil.copytree("docs/site", folder)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def seen(site):
    """What the probe saw of each page and width, and complaints."""
    folder, address = site
    pages = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*.html")
    )
    assert "operators.html" in pages
    probe = (
        f"const PAGES = {json.dumps(pages)}, WIDTHS = {json.dumps(_WIDTHS)};"
        + _PROBE
    )
    found, complaints = browser.see(
        "<!doctype html><body></body>", probe, folder, 1400, address
    )
    assert len(found) == len(pages) * len(_WIDTHS)
    return found, complaints, address


def test_the_browser_complains_of_nothing(seen):
    _, complaints, _ = seen
    assert complaints == []


def test_nothing_is_wider_than_the_window(seen):
    found, _, _ = seen
    wide = {name: page["wide"] for name, page in found.items() if page["wide"]}
    assert wide == {}


def test_pages_and_pictures_are_there_and_nothing_comes_from_elsewhere(seen):
    found, _, address = seen
    for name, page in found.items():
        assert page["text"] > 100, name
        assert page["broken"] == 0, name
        assert page["fetched"], name
        for fetched in page["fetched"]:
            assert fetched.startswith((address, "data:")), (name, fetched)
