"""Installs hash-locked wheels into a repository; shared by both rules here."""

# PyTorch's CPU wheels are not on the ordinary package index. Where the
# ordinary index (or a local find-links folder) cannot satisfy the lock, this
# one is asked, for torch alone.
_TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

_ANOTHER_PLACE = ("free some, or name another place by " +
                  "--output_user_root=FOLDER before the command")

# What pip and venv say of something that is missing, and what to do then.
_REMEDIES = [
    (
        ["No space left on device", "Disk quota exceeded"],
        "the disk must have room for the packages: " + _ANOTHER_PLACE,
    ),
    (
        ["DO NOT MATCH THE HASHES"],
        "a package differs from its hash in the lock; a proxy or mirror " +
        "may have changed it",
    ),
    (
        ["ensurepip is not available", "No module named venv"],
        "this Python must have venv (Debian: apt-get install python3-venv)",
    ),
    (
        [
            "CERTIFICATE_VERIFY_FAILED",
            "Name or service not known",
            "NewConnectionError",
            "ProxyError",
            "Temporary failure in name resolution",
            "timed out",
        ],
        "the package index must be reachable: check the network and " +
        "HTTPS_PROXY, or name a mirror by PIP_INDEX_URL (and its " +
        "certificate by PIP_CERT)",
    ),
]

def _fail(what, result):
    """Fails in one line with the remedy, where the output shows a known one."""
    output = result.stdout[-4000:] + result.stderr[-4000:]
    for signs, remedy in _REMEDIES:
        for line in output.split("\n"):
            if [sign for sign in signs if sign in line]:
                fail("python: %s (%s failed: %s)" % (
                    remedy,
                    what,
                    line.strip()[-160:],
                ))
    fail("python: %s failed:\n%s" % (what, output))

def _run(ctx, arguments, what):
    result = ctx.execute(arguments, timeout = 3600)
    if result.return_code:
        _fail(what, result)
    return result.stdout.strip()

def find_python(ctx):
    """Returns the path of the interpreter that find_python.sh chooses.

    Called before anything is made: a label found late runs a rule again.
    """
    script = ctx.path(Label("//third_party/python:find_python.sh"))
    ctx.path(Label("//third_party/python:supported.txt"))
    asked = {"SAN_PYTHON": ctx.os.environ.get("SAN_PYTHON", "")}
    result = ctx.execute([script], environment = asked)
    if result.return_code:
        fail("python: " + result.stderr.strip())
    return result.stdout.strip()

def check_space(ctx, needed):
    """Fails unless the disk has room: where it is full, Bazel cannot say so.

    Args:
      ctx: repository context.
      needed: how many GB this repository takes.
    """
    free = ctx.execute(["stat", "--file-system", "--format=%a %S", "."])
    blocks, size = [int(word) for word in free.stdout.strip().split(" ")]
    megabytes = blocks * (size // 1024) // 1000
    if megabytes < needed * 1000:
        fail("python: %s must have %d GB of disk, has %d MB: %s" % (
            ctx.path("."),
            needed,
            megabytes,
            _ANOTHER_PLACE,
        ))

def make_venv(ctx, python, name, with_pip):
    """Makes a virtual environment in this repository; returns its python."""
    options = [] if with_pip else ["--without-pip"]
    _run(
        ctx,
        [python, "-m", "venv"] + options + [ctx.path(name)],
        "%s -m venv" % python,
    )
    # Python 3.14 adds a joke, a link named by a Greek letter. Where the locale
    # is not UTF-8, Bazel crashes when it has to delete such a name.
    folder = ctx.path(name + "/bin")
    _run(
        ctx,
        ["find", folder, "-name", "*thon", "!", "-name", "python", "-delete"],
        "tidying %s" % folder,
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
    # Beside the target, where pip may rename: /tmp can be a small disk.
    temporary = ctx.path("temporary")
    _run(ctx, ["mkdir", "-p", temporary], "making a folder")
    command = [
        "env",
        "TMPDIR=%s" % temporary,
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
