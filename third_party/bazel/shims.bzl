"""Stand-ins for repositories that Debian's Bazel leaves out.

Official Bazel releases declare rules_cc, rules_java, platforms and
remote_coverage_tools themselves. Debian's bazel-bootstrap does not, and
reports an empty `native.bazel_version`; only there are these declared.
"""

_RULES_CC_DEFS = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
fdo_prefetch_hints = native.fdo_prefetch_hints
fdo_profile = native.fdo_profile
objc_import = native.objc_import
objc_library = native.objc_library
"""

_RULES_JAVA_DEFS = """
java_binary = native.java_binary
java_import = native.java_import
java_library = native.java_library
java_package_configuration = native.java_package_configuration
java_plugin = native.java_plugin
java_runtime = native.java_runtime
java_test = native.java_test
java_toolchain = native.java_toolchain
"""

_CPUS = ["aarch64", "arm", "armv7", "ppc", "s390x", "x86_32", "x86_64"]
_SYSTEMS = ["android", "freebsd", "ios", "linux", "openbsd", "osx", "windows"]

_COVERAGE_TOOLS = """
package(default_visibility = ["//visibility:public"])
filegroup(name = "coverage_report_generator")
sh_binary(name = "Main", srcs = ["empty.sh"])
"""

def _constraints(setting, values):
    lines = [
        "package(default_visibility = [\"//visibility:public\"])",
        "constraint_setting(name = \"%s\")" % setting,
    ]
    for value in values:
        lines.append(
            "constraint_value(name = \"%s\", constraint_setting = \":%s\")" %
            (value, setting),
        )
    return "\n".join(lines) + "\n"

def _shim_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    for path, text in ctx.attr.files.items():
        ctx.file(path, text)

_shim = repository_rule(
    implementation = _shim_impl,
    attrs = {"files": attr.string_dict(doc = "Path to content.")},
)

def bazel_shims():
    """Declares the missing repositories, on a Bazel that lacks them."""
    if native.bazel_version:
        return
    _shim(
        name = "rules_cc",
        files = {"BUILD": "", "cc/BUILD": "", "cc/defs.bzl": _RULES_CC_DEFS},
    )
    _shim(
        name = "rules_java",
        files = {
            "BUILD": "",
            "java/BUILD": "",
            "java/defs.bzl": _RULES_JAVA_DEFS,
        },
    )
    _shim(
        name = "platforms",
        files = {
            "BUILD": "",
            "cpu/BUILD": _constraints("cpu", _CPUS),
            "os/BUILD": _constraints("os", _SYSTEMS),
        },
    )
    _shim(
        name = "remote_coverage_tools",
        files = {"BUILD": _COVERAGE_TOOLS, "empty.sh": "#!/bin/sh\n"},
    )
