"""The CUDA compiler from its hash-locked wheels, as @cuda.

Fetched only when a target built with nvcc is asked for, so --config=nocuda
never downloads it.
"""

load(
    "//third_party/python:install.bzl",
    "check_space",
    "find_python",
    "install_locked",
    "make_venv",
)

_BUILD = """
package(default_visibility = ["//visibility:public"])

# One source directory, not its two thousand files, and a stamp that stands
# for its content.
filegroup(name = "toolkit", srcs = ["site/nvidia/cu13", "stamp"])

cc_library(
    name = "runtime",
    srcs = ["site/nvidia/cu13/lib/libcudart_static.a"],
    linkopts = ["-ldl", "-lpthread", "-lrt"],
)

cc_library(
    name = "headers",
    hdrs = glob(["site/nvidia/cu13/include/*.h",
                 "site/nvidia/cu13/include/crt/*.h",
                 "site/nvidia/cu13/include/crt/*.hpp"]),
    includes = ["site/nvidia/cu13/include"],
)
"""

def _cuda_toolkit_impl(ctx):
    lock = ctx.path(ctx.attr.lock)
    python = find_python(ctx)
    check_space(ctx, needed = 1)

    # buildifier: disable=print
    print("cuda: the CUDA compiler (100 MB); --config=nocuda builds without")
    ctx.report_progress("fetching and installing the CUDA compiler")
    installer = make_venv(ctx, python, "installer", with_pip = True)
    install_locked(ctx, installer, lock, ctx.path("site"))

    # glibc 2.42 and later declare rsqrt as well, without exceptions; two
    # declarations have to agree. CUDA's own headers do so from 13.2 on.
    is_declared = ctx.execute([
        "sh",
        "-c",
        "echo '#include <math.h>' | gcc -D_GNU_SOURCE -E - | grep -q rsqrt",
    ])
    if is_declared.return_code == 0:
        agreed = ctx.execute([
            "sed",
            "-i",
            "s/\\(rsqrtf\\{0,1\\}([a-z]* x)\\);/\\1 noexcept(true);/",
            ctx.path("site/nvidia/cu13/include/crt/math_functions.h"),
        ])
        if agreed.return_code:
            fail("cuda: " + agreed.stderr)
    ctx.file("BUILD", _BUILD)
    ctx.file("stamp", ctx.read(lock))

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit_impl,
    attrs = {"lock": attr.label(mandatory = True, allow_single_file = True)},
    environ = ["PATH", "SAN_PYTHON"],
)
