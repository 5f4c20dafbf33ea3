"""Prints `N passed, N failed, N skipped` from a Bazel build event file.

Run by tools/bazel with the host's Python: standard library only. Counts test
cases where a test wrote junit XML, one per test target otherwise.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def read_events(path):
    """Yields the events of a build event file, one JSON object a line."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def case_counts(result):
    """Returns (passed, failed, skipped) of one test result event."""
    passed = result.get("status") in ("PASSED", "FLAKY")
    for output in result.get("testActionOutput", []):
        if output.get("name") != "test.xml":
            continue
        path = urllib.parse.unquote(output["uri"].removeprefix("file://"))
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError):
            break  # A test that died writing its report counts as a whole.
        cases = list(root.iter("testcase"))
        bad = sum(
            c.find("failure") is not None or c.find("error") is not None
            for c in cases
        )
        skipped = sum(c.find("skipped") is not None for c in cases)
        if passed or bad:
            return len(cases) - bad - skipped, bad, skipped
    return (1, 0, 0) if passed else (0, 1, 0)


def count(events):
    """Returns the three totals; a test that was not built counts as failed."""
    results, unbuilt = {}, 0
    for event in events:
        name = event.get("id", {})
        if "testResult" in event:
            key = name["testResult"]
            key = key["label"], key.get("run"), key.get("shard")
            results[key] = case_counts(event["testResult"])
        status = event.get("testSummary", {}).get("overallStatus")
        if status in ("FAILED_TO_BUILD", "NO_STATUS", "REMOTE_FAILURE"):
            unbuilt += 1
    rows = [*results.values(), (0, unbuilt, 0)]
    return [sum(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    passed, failed, skipped = count(read_events(sys.argv[1]))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
