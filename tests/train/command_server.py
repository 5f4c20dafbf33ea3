"""Commands that are imported once, and run in a process of their own each time.

For many short runs: what a run costs is mostly that its libraries are imported.
"""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

_SERVER = """
import importlib, json, os, sys
from absl import app
module = importlib.import_module(sys.argv[1])
for line in sys.stdin:
    arguments, environment, *files = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = [module.__file__, *arguments]
        app.run(module.main)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run(module, *arguments, **environment):
    """Runs a job: exit code, stdout, stderr."""
    server = _server(module)
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        asked = [[*map(str, arguments)], environment, *files]
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return code, *(pathlib.Path(file).read_text() for file in files)


@functools.cache
def _server(module):
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"MPLCONFIGDIR": tempfile.gettempdir(), **os.environ},
    )
    atexit.register(server.kill)
    return server
