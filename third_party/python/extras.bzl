"""Python packages that few targets need, fetched when one of them is built.

Their lock holds what the main one does not; its packages come from @python.
"""

load(
    ":install.bzl",
    "check_space",
    "find_python",
    "install_locked",
    "make_venv",
)

def _python_extras_impl(ctx):
    # All labels first: a label found late runs the whole rule again.
    generator = ctx.path(Label("//third_party/python:generate_build.py"))
    lock = ctx.path(ctx.attr.lock)
    beside = ctx.path(ctx.attr.beside)
    python = find_python(ctx)
    check_space(ctx, needed = 1)

    # buildifier: disable=print
    print("%s: %s" % (ctx.name, ctx.attr.what))
    ctx.report_progress("fetching and installing")
    installer = make_venv(ctx, python, "installer", with_pip = True)
    install_locked(ctx, installer, lock, ctx.path("site"))

    # The sandbox mounts these files read-only: compile them here.
    ctx.execute([python, "-m", "compileall", "-q", "-j", "0", "site"])
    build = ctx.execute([installer, generator, "site", beside])
    if build.return_code:
        fail("python: " + build.stderr)
    ctx.file("BUILD", build.stdout)
    ctx.file("stamp", ctx.read(lock))

python_extras = repository_rule(
    implementation = _python_extras_impl,
    attrs = {
        "beside": attr.label(
            mandatory = True,
            doc = "The lock of what @python has.",
        ),
        "lock": attr.label(mandatory = True),
        "what": attr.string(mandatory = True, doc = "Said when it is fetched."),
    },
    environ = ["PATH", "SAN_PYTHON"],
)
