"""Runs pytest as Bazel expects a test to behave. Main of every pytest_test."""

import os
import pathlib
import sys

import pytest


class Sharding:
    """Runs every n-th test where Bazel splits a target into shards."""

    def pytest_collection_modifyitems(self, items):
        """Keeps the tests of this shard."""
        total = int(os.environ.get("TEST_TOTAL_SHARDS", "1"))
        index = int(os.environ.get("TEST_SHARD_INDEX", "0"))
        items[:] = items[index::total]


def arguments():
    """The pytest command line that Bazel's environment asks for."""
    found = [
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--strict-markers",
        f"--rootdir={os.getcwd()}",
        "--config-file=/dev/null",
        "--durations=5",
    ]
    if report := os.environ.get("XML_OUTPUT_FILE"):
        found.append(f"--junitxml={report}")
    if folder := os.environ.get("TEST_TMPDIR"):
        found.append(f"--basetemp={folder}/pytest")
    if only := os.environ.get("TESTBRIDGE_TEST_ONLY"):
        found += ["-k", only]
    return found + sys.argv[1:]


def main():
    """Runs pytest; an unsharded target that holds no test fails."""
    if status := os.environ.get("TEST_SHARD_STATUS_FILE"):
        pathlib.Path(status).touch()
    code = pytest.main(arguments(), plugins=[Sharding()])
    narrowed = {"TEST_TOTAL_SHARDS", "TESTBRIDGE_TEST_ONLY"} & set(os.environ)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and narrowed:
        code = 0
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
