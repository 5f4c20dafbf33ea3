"""Names of kernels, as they are in an object and as people read them."""

import ctypes
import re

# An anonymous namespace of nvcc has the name of its source file.
_SOURCE = re.compile(r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+)_cu_[0-9a-f]+")

# Namespaces around a name, and the one that tells a family of kernels: the last
# but the anonymous one.
_QUALIFIED = re.compile(r"(?:\w+|\(anonymous namespace\))::")
_FAMILY = re.compile(r"^(?:void )?(?:\w+::)*?(\w+)::\(anonymous namespace\)::")


def demangled(symbol: str) -> str:
    """A C++ symbol as its declaration; itself if it is none.

    By the C++ runtime that the compiled module needs anyway.
    """
    demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    text = demangle(symbol.encode(), None, None, ctypes.byref(status))
    if not text:
        return symbol
    name = ctypes.string_at(text).decode()
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free(text)
    return name


def readable(symbol: str) -> str:
    """A kernel's short name: `NAMESPACE.SOURCE.NAME<ARGUMENTS>`.

    Two files may have a kernel of one name, so the innermost namespace and the
    source file, without its folder, come first where the kernel is in an
    anonymous namespace. Template arguments lose their namespaces, and the
    kernel's parameters are left out.
    """
    name = demangled(symbol)
    family, source = _FAMILY.search(name), _SOURCE.search(symbol)
    name = _without_parameters(_QUALIFIED.sub("", name))
    name = name.removeprefix("void ").replace(" >", ">")
    parts = [family[1] if family else "", source[1] if source else "", name]
    return ".".join(part for part in parts if part)


def without_source(name: str) -> str:
    """A readable name without its source file, in which it may be moved."""
    family, _, rest = name.partition(".")
    _, other, kernel = rest.partition(".")
    return f"{family}.{kernel}" if other else name


def _without_parameters(name: str) -> str:
    """Cuts at the first parenthesis outside of template arguments."""
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:i]
    return name
