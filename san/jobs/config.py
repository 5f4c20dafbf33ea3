"""Reads gin configuration: the only place that parses it.

Finds gin files, parses them strictly and puts what is wrong with them into
one line. Knows no flags (the entry points hand over names and bindings) and
no values (each configurable has its own defaults and checks).
"""

import difflib
import inspect
import io
import os
import pathlib
import re
import sys
import tokenize
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TextIO

import gin

import san.attention
import san.data
import san.networks
import san.recipe
from san.jobs import row_configs

# Imported for what gin can configure in them.
_CONFIGURABLE = (san.attention, san.data, san.networks, san.recipe)

_PACKAGED = os.path.join(
    os.path.dirname(os.path.abspath(san.__file__)), "configs"
)

# What gin's messages look like; it has no exceptions of its own.
_PLACE = re.compile(r'\n *In (?:file "(.*)",|bindings string) line (\d+)')
_NO_NAME = re.compile(r"No configurable matching (?:reference )?'@?([\w./]+)")
_NO_PARAMETER = re.compile(
    r"Configurable '(.+)' doesn't have a parameter named '(.+)'"
)
_DENIED = re.compile(r"Configurable '(.+)' has denylisted kwarg '(.+)'")
_NO_MACRO = re.compile(r"No bindings specified for '(.+)/gin\.macro'")
_UNBOUND = "Required bindings for"
_CALL = "\n  In call to configurable"

# In place of a value's text.
NOT_BOUND = "unbound"


class ConfigError(ValueError):
    """A configuration that cannot be used; one line says where and why."""


def parse(
    gin_files: Sequence[str],
    gin_params: Sequence[str] = (),
    dropped: Collection[str] = (),
) -> None:
    """Binds what gin files and single bindings say, in the order given.

    Everything bound before is forgotten. Names of files, those included by
    other files too, are absolute or are looked up in the user's folder and
    then among the packaged configs; the rows of the paper's tables have one
    each, such as table4/pair/hadamard.gin.

    Args:
      gin_files: names of gin files.
      gin_params: bindings such as "Recipe.epochs = 10".
      dropped: names of bindings of the first file that do not count.

    Raises:
      ConfigError: a file is missing, or something in it is not known; says
        in which file and line, and the nearest known name.
    """
    files: list[str] = []

    def open_config(name: str) -> TextIO:
        path = _find(name)
        if path is None:
            return io.StringIO(row_configs.text_of(name))
        files.append(path)
        return open(path, encoding="utf-8")

    # In place of gin's own readers, which look in the working directory
    # first and log an error for each folder that lacks the file.
    gin.config._FILE_READERS[:] = [(open_config, lambda name: True)]
    # Last, so that nobody's file hides a package: for `import` in gin files.
    if (folder := user_path(".")) not in sys.path:
        sys.path.append(folder)
    gin.clear_config()
    source = ""
    try:
        for source in gin_files:
            gin.parse_config_file(source)
            if source == gin_files[0]:
                _drop(dropped)
        for param in gin_params:
            source = f"--gin_param={param!r}"
            gin.parse_config(param)
        source = ""
        gin.finalize()
        _drop_replaced_macros(files, gin_params)
    except Exception as error:
        # gin raises ValueError, SyntaxError, KeyError and more, and its
        # import statements whatever the imported module raises.
        message = _describe(error, source, files, gin_params)
        gin.clear_config()
        raise ConfigError(message) from error


def _drop(names: Collection[str]) -> None:
    for (scope, selector), values in gin.config._CONFIG.items():
        for parameter in list(values):
            if _name(scope, selector, parameter) in names:
                del values[parameter]


def is_unbound(error: Exception) -> bool:
    """Whether gin misses a value without which nothing can be built.

    gin raises this as a RuntimeError when the value is needed.
    """
    return isinstance(error, RuntimeError) and str(error).startswith(_UNBOUND)


def without_place(error: BaseException) -> str:
    """An error's text, less where in the configuration gin says it came up."""
    return str(error).partition(_CALL)[0]


def resolved_text() -> str:
    """Everything that is bound, as a gin file."""
    return gin.config_str()


def bindings() -> dict[str, str]:
    """Everything that is bound: the text of each value, by name.

    Macros stand in it as what they are, where they are read.
    """
    bound = gin.config._CONFIG
    macros = {
        name: repr(bound[name, "gin.macro"]["value"]) for name in _macros()
    }
    return {
        _name(scope, selector, parameter): re.sub(
            r"%([\w./]+)", lambda m: macros.get(m[1], m[0]), repr(value)
        )
        for (scope, selector), values in bound.items()
        if selector != "gin.macro"
        for parameter, value in values.items()
    }


def _name(scope: str, selector: str, parameter: str) -> str:
    owner = selector.removeprefix("san.")
    return f"{f'{scope}/' if scope else ''}{owner}.{parameter}"


def changed_bindings(
    before: Mapping[str, str],
) -> dict[str, tuple[str, str]]:
    """What is bound otherwise than it was: (old, new), NOT_BOUND for none.

    Args:
      before: what bindings() gave then.
    """
    now = bindings()
    pairs = {
        name: (before.get(name, NOT_BOUND), now.get(name, NOT_BOUND))
        for name in sorted(before.keys() | now.keys())
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def unread_bindings() -> list[str]:
    """Names of what is bound for something that nobody has called so far.

    For a network that is not the configured one, say, or in a scope that none
    of the calls had.
    """
    calls = list(gin.config._OPERATIVE_CONFIG)

    def is_read(scope: str, selector: str) -> bool:
        return any(
            called == selector
            and (not scope or f"{own}/".startswith(f"{scope}/"))
            for own, called in calls
        )

    return sorted(
        _name(scope, selector, parameter)
        for (scope, selector), values in gin.config._CONFIG.items()
        if selector != "gin.macro" and not is_read(scope, selector)
        for parameter in values
    )


def operative_text() -> str:
    """Every parameter used so far, defaults too, as a gin file."""
    return gin.operative_config_str()


def packaged_configs() -> list[str]:
    """Names of the gin files that come with the package, sorted."""
    return sorted(
        name for name in os.listdir(_PACKAGED) if name.endswith(".gin")
    )


def title(name: str) -> str:
    """What a gin file is called in the name of a folder.

    The file's own name; of a row of the paper's tables all of it, since
    another table may have a row of that name.

    Args:
      name: as the user gave it.

    Returns:
      "san10_pair" for san10_pair.gin, "table4-pair-hadamard" for
      table4/pair/hadamard.gin.
    """
    path = pathlib.PurePath(name)
    if name in row_configs.names():
        return str(path.with_suffix("")).replace(os.sep, "-")
    return path.stem


def user_path(path: str) -> str:
    """The absolute path of something the user named on the command line.

    Under `bazel run` the working directory is not the user's.

    Args:
      path: absolute, starting with ~, or relative to the user's folder.

    Returns:
      The absolute path.
    """
    folder = os.environ.get("BUILD_WORKING_DIRECTORY", os.getcwd())
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def _find(name: str) -> str | None:
    """The path of a gin file; None if it is that of a row of the paper."""
    tried = list(
        dict.fromkeys([user_path(name), os.path.join(_PACKAGED, name)])
    )
    for path in tried:
        if os.path.isfile(path):
            return path
    rows = row_configs.names()
    if name in rows:
        return None
    raise ConfigError(
        f"gin file {name!r} not found (tried {', '.join(tried)})"
        f"{_suggest(name, packaged_configs(), rows)}; and the rows of"
        " san.paper_rows(), such as table4/pair/hadamard.gin"
    )


def _describe(
    error: Exception, source: str, files: list[str], params: Sequence[str]
) -> str:
    """One line for what gin raised while it read `source`."""
    text = str(error)
    if isinstance(error, SyntaxError):
        return _describe_syntax_error(error, source)
    macro = _NO_MACRO.match(text)
    if macro:
        return _describe_macro(macro[1], files, params)
    found = _PLACE.search(text)
    cause = _cause(error, text[: found.start()] if found else text)
    if found and found[1]:
        source = f"{found[1]}, line {found[2]}"
    elif isinstance(error, ConfigError):
        return cause
    return f"{source}: {cause}" if source else cause


def _describe_syntax_error(error: SyntaxError, source: str) -> str:
    # Python's tokenizer, which gin uses, calls the file "<tokenize>", and
    # "<string>" from Python 3.12 on.
    if error.filename not in (None, "<tokenize>", "<string>"):
        source = error.filename
    line = f" in {error.text.strip()!r}" if error.text else ""
    cause = error.msg.splitlines()[-1].strip()
    if cause.startswith("Failed to parse token"):
        cause += " (a text needs quotes)"
    return f"{source}, line {error.lineno}: syntax error{line}: {cause}"


def _cause(error: Exception, text: str) -> str:
    if isinstance(error, tokenize.TokenError):
        return "syntax error: a bracket or a quote is not closed"
    no_name = _NO_NAME.match(text)
    if no_name:
        # gin has no public list of what is registered.
        names = [
            selector.split(".")[-1]
            for selector, _ in gin.config._REGISTRY.items()
            if not selector.startswith("gin.")
        ]
        return f"unknown name {no_name[1]!r}{_suggest(no_name[1], names)}"
    if denied := _DENIED.match(text):
        owner, name = denied.groups()
        return (
            f"{owner}.{name} must not be bound: what makes a {owner} gives it"
        )
    no_parameter = _NO_PARAMETER.match(text)
    if no_parameter:
        owner, name = no_parameter.groups()
        names = list(inspect.signature(gin.get_configurable(owner)).parameters)
        return f"{owner} has no parameter {name!r}{_suggest(name, names)}"
    return " ".join(text.split())


def _drop_replaced_macros(files: list[str], params: Sequence[str]) -> None:
    """Keeps the macros that are read.

    Raises:
      ConfigError: if a value has a name that stands nowhere else.
    """
    read = set(map(repr, gin.config.iterate_references(gin.config._CONFIG)))
    for name in _macros():
        if f"%{name}" in read:
            continue
        if _place(_use(name), files, params):
            # By a binding that a later one has replaced; config.gin of a work
            # folder would have the macro alone.
            del gin.config._CONFIG[name, "gin.macro"]
            continue
        owners = [
            f"{selector.split('.')[-1]}.{name}"
            for selector, configurable in gin.config._REGISTRY.items()
            if selector.startswith("san.")
            and name in inspect.signature(configurable.wrapper).parameters
        ]
        meant = f"; did you mean {' or '.join(owners)}?" if owners else ""
        place = _place(rf"^\s*{re.escape(name)}\s*=", files, params)
        raise ConfigError(
            f"{place}nothing reads {name!r}: a name without an owner is a macro"
            f" for use as %{name}{meant}"
        )


def _describe_macro(name: str, files: list[str], params: Sequence[str]) -> str:
    """One line for an undefined macro, of which gin does not say the place."""
    place = _place(_use(name), files, params)
    return f"{place}macro %{name} is not defined{_suggest(name, _macros())}"


def _use(name: str) -> str:
    """A pattern for where a macro is read."""
    return rf"%{re.escape(name)}\b"


def _macros() -> list[str]:
    return [
        scope
        for scope, selector in gin.config._CONFIG
        if selector == "gin.macro"
    ]


def _place(pattern: str, files: list[str], params: Sequence[str]) -> str:
    """Where something stands: "my.gin, line 3: ", or "" if it is not found."""
    places = [
        f"--gin_param={param!r}: "
        for param in params
        if re.search(pattern, param, re.MULTILINE)
    ]
    for file in files:
        with open(file, encoding="utf-8") as lines:
            places += [
                f"{file}, line {number}: "
                for number, line in enumerate(lines, 1)
                if re.search(pattern, line)
            ]
    return places[0] if places else ""


def _suggest(
    name: str, known: Iterable[str], unlisted: Sequence[str] = ()
) -> str:
    known = sorted(set(known))
    if not known:
        return ""
    (nearest,) = difflib.get_close_matches(
        name, [*known, *unlisted], n=1, cutoff=0
    )
    return f"; did you mean {nearest!r}? Known: {', '.join(known)}"
