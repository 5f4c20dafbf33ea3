#!/usr/bin/env bash
# Prints the interpreter that everything is built and run with, alone on a
# line; or says on stderr why there is none. ./bazelw and install.bzl both ask
# this, so they agree.
#
# SAN_PYTHON names one. Otherwise it is the newest supported one that can build
# an extension (headers) and an environment (venv): the distribution's own,
# /usr/bin, before other folders of PATH. Scripts named like an interpreter (a
# version manager's shims) are none. With --any, one that lacks headers or venv
# will do where no other is found.
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
mapfile -t supported <"$here/supported.txt"

# What keeps an interpreter from being used, or nothing.
flaw() {
  "$1" -I - "${supported[@]}" 2>/dev/null <<'PY' || echo "cannot run"
import os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
try:
    import ensurepip, venv
except ImportError:
    venv = None
if version not in sys.argv[1:] or sys.implementation.name != "cpython":
    print("is %s %s" % (sys.implementation.name, version))
elif sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("is without GIL")
elif not os.path.exists(header):
    print("lacks %s" % header)
elif not venv:
    print("lacks venv")
PY
}

# Candidates, best first.
candidates() {
  local folders folder version
  IFS=: read -ra folders <<<"$PATH"
  for folder in /usr/bin "${folders[@]}"; do
    for version in "${supported[@]}"; do
      local path=$folder/python$version
      [[ -x $path && $(head -c 2 "$path" | tr -d '\0') != '#!' ]] &&
        echo "$path"
    done
  done
}

if [[ -n ${SAN_PYTHON:-} ]]; then
  found=$(command -v "$SAN_PYTHON") || found=$SAN_PYTHON
  # The real executable, where this is a shim.
  real=$("$found" -I -c 'import sys; print(sys.executable)' 2>/dev/null)
  found=${real:-$found}
  flaw=$(flaw "$found")
  if [[ -n $flaw && ! (${1:-} == --any && $flaw == lacks*) ]]; then
    echo "SAN_PYTHON must be CPython $(paste -sd/ "$here/supported.txt")" \
      "with headers and venv, got $found, which $flaw" >&2
    exit 1
  fi
  echo "$found"
  exit
fi

incomplete=() why=()
while read -r path; do
  flaw=$(flaw "$path")
  [[ -z $flaw ]] && { echo "$path"; exit; }
  [[ $flaw == lacks* ]] && incomplete+=("$path")
  why+=("$path $flaw")
done < <(candidates)
if [[ ${1:-} == --any && ${#incomplete[@]} -gt 0 ]]; then
  echo "${incomplete[0]}"
  exit
fi
printf -v text '; %s' "${why[@]:-none}"
echo "CPython must be $(paste -sd/ "$here/supported.txt") with headers and" \
  "venv, got ${text#; }: ./bazelw installs what apt has (python3, python3-dev," \
  "python3-venv), SAN_PYTHON names one that lies elsewhere" >&2
exit 1
