"""Debian's chromium, without a window: what a page comes to."""

import base64
import json
import re
import subprocess


def see(page, probe, folder, width, address=None):
    """Loads a page, runs a script at its end.

    Args:
      page: HTML.
      probe: JavaScript that returns something; may await.
      folder: where the page may be written.
      width: of the window, in pixels.
      address: of the folder, where it is served; else the page is a file.

    Returns:
      The script's result, and what the browser complained of.
    """
    script = f"""<script>
(async () => {{ {probe} }})().then((seen) => {{
  const word = document.createElement("pre");
  word.id = "seen";
  word.textContent = btoa(JSON.stringify(seen));
  document.body.append(word);
}});
</script></body>"""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", script))
    where = f"{address}/{file.name}" if address else file.as_uri()
    result = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=10000",
            f"--window-size={width},900",
            "--dump-dom",
            where,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    complaints = [
        line
        for line in result.stderr.splitlines()
        # The browser's own surface has pages, too.
        if "CONSOLE" in line and "source: chrome://" not in line
    ]
    words = re.findall(r'<pre id="seen">(.*)</pre>', result.stdout)
    assert words, complaints
    return json.loads(base64.b64decode(words[0])), complaints
