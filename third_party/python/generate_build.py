"""Writes the BUILD file of @python from an installed folder of wheels.

Or that of a repository beside it, whose lock leaves out what @python has.

Run by the repository rule with pip's own interpreter; standard library and
pip's vendored packaging only.
"""

import collections
import csv
import importlib.metadata
import pathlib
import re
import sys

from pip._vendor.packaging.requirements import Requirement

_HEADER = """\
package(default_visibility = ["//visibility:public"])
"""

_INTERPRETER = """\
load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")

py_runtime(
    name = "runtime",
    interpreter_path = "{interpreter}",
    python_version = "PY3",
    stub_shebang = "#!/usr/bin/env python3",
)

py_runtime_pair(name = "runtime_pair", py3_runtime = ":runtime")

toolchain(
    name = "toolchain",
    toolchain = ":runtime_pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)

cc_library(
    name = "python_headers",
    hdrs = glob(["include/**/*.h"]),
    includes = ["include"],
)

cc_library(
    name = "pybind11_headers",
    hdrs = glob(["site/pybind11/include/**/*.h"]),
    includes = ["site/pybind11/include"],
    deps = [":python_headers"],
)
"""

_PACKAGE = """
py_library(
    name = "{name}",
    data = [
        "stamp",
{data}    ],
    imports = ["site"],
    deps = [{deps}],
)
"""


def target_name(distribution):
    """A distribution's name as a Bazel target: scikit-learn, scikit_learn."""
    return re.sub(r"[-_.]+", "_", distribution).lower()


def installed_files(distribution, site):
    """Files of a distribution, relative to the folder, that exist in it."""
    # distribution.files leaves out what is not where RECORD says.
    record = (distribution.read_text("RECORD") or "").splitlines()
    for path, *_ in csv.reader(record):
        # pip --target lays scripts into bin/ but records them as ../../bin.
        path = re.sub(r"^(\.\./)+", "", path)
        if (site / path).exists() and "__pycache__" not in path:
            yield path


def entries(files_by_name, prefix=""):
    """Maps each name to the topmost paths that it alone owns.

    A file that several distributions ship is owned by each of them.
    """
    owners = collections.defaultdict(lambda: collections.defaultdict(list))
    for name, files in files_by_name.items():
        for file in files:
            head, _, rest = file.partition("/")
            owners[head][name].append(rest)
    found = collections.defaultdict(list)
    for head, by_name in sorted(owners.items()):
        path = prefix + head
        if len(by_name) == 1 or [""] in by_name.values():
            for name in by_name:
                found[name].append(path)
            continue
        for name, paths in entries(by_name, path + "/").items():
            found[name] += paths
    return found


def dependencies(distribution, labels):
    """Labels of what a distribution needs on this interpreter.

    Args:
      distribution: an installed one.
      labels: of all that there is, by target name.
    """
    found = set()
    for line in distribution.requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not marker.evaluate({"extra": ""}):
            continue
        name = target_name(requirement.name)
        if name in labels:
            found.add(labels[name])
    return sorted(found)


def locked_names(lock):
    """Target names of the packages in a lock."""
    pins = re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)
    return [target_name(pin) for pin in pins]


def main(folder, beside=None):
    """Prints the BUILD file for the wheels installed in a folder.

    Args:
      folder: with the wheels.
      beside: the lock of @python, for a repository beside it; None for its
        own, which has the interpreter as well.
    """
    site = pathlib.Path(folder).resolve()
    distributions = {
        target_name(d.metadata["Name"]): d
        for d in importlib.metadata.distributions(path=[str(site)])
    }
    files = {
        name: list(installed_files(d, site))
        for name, d in distributions.items()
    }
    owned = entries(files)
    labels = {name: f":{name}" for name in distributions}
    if beside:
        names = locked_names(pathlib.Path(beside))
        labels |= {name: f"@python//:{name}" for name in names}
    else:
        interpreter = site.parent / "interpreter" / "bin" / "python"
        print(_INTERPRETER.format(interpreter=interpreter))
    print(_HEADER)
    for name, distribution in sorted(distributions.items()):
        data = "".join(f'        "site/{p}",\n' for p in owned[name])
        deps = ", ".join(f'"{d}"' for d in dependencies(distribution, labels))
        print(_PACKAGE.format(name=name, data=data, deps=deps))


if __name__ == "__main__":
    main(*sys.argv[1:])
