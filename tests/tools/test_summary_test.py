import json
import subprocess
import sys

_XML = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"/>
<testcase name="c"><failure/></testcase>
<testcase name="d"><error/></testcase>
<testcase name="e"><skipped/></testcase>
</testsuite></testsuites>"""


def result(label, status, xml=None):
    output = [{"name": "test.log", "uri": "file:///nowhere"}]
    if xml:
        output.append({"name": "test.xml", "uri": xml.as_uri()})
    return {
        "id": {"testResult": {"label": label, "run": 1, "shard": 1}},
        "testResult": {"status": status, "testActionOutput": output},
    }


def last_line(tmp_path, events):
    file = tmp_path / "events.json"
    file.write_text("\n".join(json.dumps(e) for e in events))
    return subprocess.run(
        [sys.executable, "tools/test_summary.py", file],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_cases_of_a_report_are_counted(tmp_path):
    xml = tmp_path / "with space.xml"
    xml.write_text(_XML)
    events = [{"id": {}}, result("//:a", "FAILED", xml)]
    assert last_line(tmp_path, events) == "2 passed, 2 failed, 1 skipped\n"


def test_a_test_without_a_report_counts_as_one(tmp_path):
    events = [result("//:a", "PASSED"), result("//:b", "TIMEOUT")]
    assert last_line(tmp_path, events) == "1 passed, 1 failed, 0 skipped\n"


def test_a_timeout_after_a_clean_report_still_fails(tmp_path):
    xml = tmp_path / "test.xml"
    xml.write_text("<testsuite><testcase name='a'/></testsuite>")
    events = [result("//:a", "TIMEOUT", xml)]
    assert last_line(tmp_path, events) == "0 passed, 1 failed, 0 skipped\n"


def test_the_last_attempt_counts(tmp_path):
    events = [result("//:a", "FAILED"), result("//:a", "PASSED")]
    assert last_line(tmp_path, events) == "1 passed, 0 failed, 0 skipped\n"


def test_a_target_that_was_not_built_counts_as_failed(tmp_path):
    events = [
        {
            "id": {"testSummary": {"label": "//:a"}},
            "testSummary": {"overallStatus": "FAILED_TO_BUILD"},
        }
    ]
    assert last_line(tmp_path, events) == "0 passed, 1 failed, 0 skipped\n"


def test_nothing_run_is_no_pass(tmp_path):
    assert last_line(tmp_path, []) == "0 passed, 0 failed, 0 skipped\n"
