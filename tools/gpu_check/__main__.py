"""Starts the check, from any folder: `python3 tools/gpu_check`."""

import importlib
import pathlib
import sys
import types

_ROOT = pathlib.Path(__file__).absolute().parents[2]

# Ours, also where some installed package calls itself `tools`.
sys.modules["tools"] = types.ModuleType("tools")
sys.modules["tools"].__path__ = [str(_ROOT / "tools")]

sys.exit(importlib.import_module("tools.gpu_check.main").main(sys.argv[1:]))
