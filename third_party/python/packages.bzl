"""Python packages from a hash lock, as @python//:NAME py_library targets.

Which build of torch, choose_torch.sh decides: the one for CUDA beside an NVIDIA
driver, else the one for CPUs; SAN_TORCH=cuda (set by --config=cuda) or cpu
overrides. A target carries its package's top-level
folders as source directories, so a test sees just what it declares and a
sandbox holds dozens of links, not tens of thousands.
"""

load(
    ":install.bzl",
    "check_space",
    "find_python",
    "install_locked",
    "make_venv",
)

def _python_packages_impl(ctx):
    # All labels first: a label found late runs the whole rule again.
    generator = ctx.path(Label("//third_party/python:generate_build.py"))
    locks = {
        kind: ctx.path(Label(lock))
        for kind, lock in ctx.attr.locks.items()
    }
    chooser = ctx.path(Label("//third_party/python:choose_torch.sh"))
    asked = {"SAN_TORCH": ctx.os.environ.get("SAN_TORCH", "")}
    chosen = ctx.execute([chooser], environment = asked)
    kind, why = chosen.stdout.strip().split("\n")
    if kind not in locks:
        fail("python: SAN_TORCH must be one of %s, got %s" % (
            ", ".join(sorted(locks)),
            kind,
        ))

    host = find_python(ctx)
    check_space(ctx, needed = {"cpu": 3, "cuda": 10}[kind])

    # buildifier: disable=print
    print("python: torch's build for %s, with %s: %s" % (
        {"cpu": "CPUs (200 MB)", "cuda": "CUDA (3 GB)"}[kind],
        host,
        why,
    ))
    ctx.report_progress("fetching and installing the %s lock" % kind)
    installer = make_venv(ctx, host, "installer", with_pip = True)
    make_venv(ctx, host, "interpreter", with_pip = False)
    install_locked(ctx, installer, locks[kind], ctx.path("site"))

    # The sandbox mounts these files read-only: compile them here. The exit
    # code is no verdict: some packages ship files for newer Pythons.
    ctx.report_progress("compiling")
    ctx.execute([host, "-m", "compileall", "-q", "-j", "0", "site"])

    include = ctx.execute([
        host,
        "-c",
        "import sysconfig; print(sysconfig.get_paths()['include'])",
    ]).stdout.strip()
    ctx.symlink(include, "include")
    build = ctx.execute([installer, generator, "site"])
    if build.return_code:
        fail("python: " + build.stderr)
    ctx.file("BUILD", build.stdout)
    ctx.file("stamp", ctx.read(locks[kind]))

python_packages = repository_rule(
    implementation = _python_packages_impl,
    attrs = {
        "locks": attr.string_dict(
            mandatory = True,
            doc = "Kind of torch (cpu, cuda) to label of the lock.",
        ),
    },
    environ = ["PATH", "SAN_PYTHON", "SAN_TORCH"],
)
