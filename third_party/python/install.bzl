"""Installs hash-locked wheels into a repository; shared by both rules here."""

_PYTHON_VERSION = "3.11"

# PyTorch's CPU wheels are not on the ordinary package index. Where the
# ordinary index (or a local find-links folder) cannot satisfy the lock, this
# one is asked, for torch alone.
_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

def _run(ctx, arguments, what, environment = {}):
    result = ctx.execute(arguments, timeout = 3600, environment = environment)
    if result.return_code:
        fail("python: %s failed (%s):\n%s\n%s" % (
            what,
            " ".join([str(a) for a in arguments]),
            result.stdout[-4000:],
            result.stderr[-4000:],
        ))
    return result.stdout.strip()

def find_python(ctx):
    """Returns the path of the host's CPython of the locked version.

    Args:
      ctx: repository context. SAN_PYTHON names an interpreter to use.
    """
    asked = ctx.os.environ.get("SAN_PYTHON", "")
    names = [asked] if asked else ["python" + _PYTHON_VERSION, "python3"]
    found = []
    for name in names:
        path = name if name.startswith("/") else ctx.which(name)
        if not path:
            continue
        version = ctx.execute([
            path,
            "-c",
            "import sys; print('%d.%d' % sys.version_info[:2])",
        ]).stdout.strip()
        if version == _PYTHON_VERSION:
            # The real executable, not a version manager's launch script.
            return _run(
                ctx,
                [path, "-c", "import sys; print(sys.executable)"],
                "locating the interpreter",
            )
        found.append("%s is %s" % (path, version or "not runnable"))
    fail(("python: CPython must be %s, got %s. Install python%s, " +
          "python%s-dev and python%s-venv, or set SAN_PYTHON to its path.") %
         (
             _PYTHON_VERSION,
             ", ".join(found) or "none on PATH",
             _PYTHON_VERSION,
             _PYTHON_VERSION,
             _PYTHON_VERSION,
         ))

def make_venv(ctx, python, name, with_pip):
    """Makes a virtual environment in this repository; returns its python."""
    options = [] if with_pip else ["--without-pip"]
    _run(
        ctx,
        [python, "-m", "venv"] + options + [ctx.path(name)],
        "python3 -m venv (Debian: apt-get install python3-venv)",
    )
    return ctx.path(name + "/bin/python")

def install_locked(ctx, pip_python, lock, target):
    """Installs every wheel of a lock file, by hash, into a folder.

    Args:
      ctx: repository context.
      pip_python: an interpreter that has pip.
      lock: path of a requirements file with hashes.
      target: path of the folder to fill.
    """
    command = [
        pip_python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-compile",
        "--target",
        target,
    ]
    whole = ctx.path("whole.lock")
    _run(ctx, ["cp", lock, whole], "reading the lock")
    torch = _torch_entry(ctx.read(whole))
    if not torch:
        _run(ctx, command + ["--requirement", whole], "pip install")
        return
    ctx.file("torch.lock", torch)
    ctx.file("rest.lock", ctx.read(whole).replace(torch, ""))
    _run(ctx, command + ["--requirement", "rest.lock"], "pip install")
    alone = command + ["--requirement", "torch.lock"]
    if ctx.execute(alone, timeout = 3600).return_code:
        _run(
            ctx,
            alone + ["--index-url", _TORCH_CPU_INDEX],
            "pip install torch",
        )

def _torch_entry(text):
    """Returns the lines that pin the CPU build of torch, or ''."""
    entry = []
    for line in text.split("\n"):
        if line.startswith("torch==") and "+cpu" in line:
            entry.append(line)
        elif entry and line.startswith("    --hash"):
            entry.append(line)
        elif entry:
            break
    return "\n".join(entry) + "\n" if entry else ""
