"""cuobjdump and nvdisasm from their hash-locked wheels, as @cuda_disassembler.

Fetched only when //tools:cuda_report or its test is built: apart from the
compiler, which everybody needs.
"""

load(
    "//third_party/python:install.bzl",
    "check_space",
    "find_python",
    "install_locked",
    "make_venv",
)

_BUILD = """
filegroup(
    name = "programs",
    srcs = [
        "site/nvidia/cu13/bin/cuobjdump",
        "site/nvidia/cu13/bin/nvdisasm",
    ],
    visibility = ["//visibility:public"],
)
"""

def _cuda_disassembler_impl(ctx):
    lock = ctx.path(ctx.attr.lock)
    python = find_python(ctx)
    check_space(ctx, needed = 1)

    # buildifier: disable=print
    print("cuda_disassembler: cuobjdump and nvdisasm (5 MB)")
    ctx.report_progress("fetching and installing cuobjdump and nvdisasm")
    installer = make_venv(ctx, python, "installer", with_pip = True)
    install_locked(ctx, installer, lock, ctx.path("site"))
    ctx.file("BUILD", _BUILD)

cuda_disassembler = repository_rule(
    implementation = _cuda_disassembler_impl,
    attrs = {"lock": attr.label(mandatory = True, allow_single_file = True)},
    environ = ["PATH", "SAN_PYTHON"],
)
