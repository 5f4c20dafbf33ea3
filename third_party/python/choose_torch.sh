#!/usr/bin/env bash
# Prints which build of torch to take, cpu or cuda, and on a second line why.
#   choose_torch.sh [ROOT]     where the machine's files begin, for its test
# SAN_TORCH decides if it is set. Otherwise it is the build for CUDA where the
# machine has a driver that can run it.
set -uo pipefail
root=${1:-}

# CUDA 13, which torch's build here is for, needs this driver or a newer one.
oldest=580

if [[ -n ${SAN_TORCH:-} ]]; then
  printf '%s\n' "$SAN_TORCH" "SAN_TORCH asks for it"
  exit
fi

version_file=$root/proc/driver/nvidia/version
if [[ -r $version_file ]]; then
  driver=$(grep -m 1 NVRM "$version_file" | grep -oE '[0-9]+(\.[0-9]+)+' |
    head -n 1)
  if [[ -n $driver && ${driver%%.*} -lt $oldest ]]; then
    printf '%s\n' cpu "NVIDIA driver $driver is older than $oldest, which CUDA \
13 needs; SAN_TORCH=cuda takes the one for CUDA nevertheless"
  else
    printf '%s\n' cuda "NVIDIA driver ${driver:-found}; SAN_TORCH=cpu takes \
the smaller one for CPUs"
  fi
  exit
fi

# Where there is no such file: containers, Windows' Linux.
for folder in usr/lib/{x86_64,aarch64}-linux-gnu usr/lib64 usr/lib/wsl/lib; do
  if [[ -e $root/$folder/libcuda.so.1 ]]; then
    printf '%s\n' cuda "NVIDIA driver /$folder/libcuda.so.1; SAN_TORCH=cpu \
takes the smaller one for CPUs"
    exit
  fi
done
printf '%s\n' cpu "no NVIDIA driver; --config=cuda takes the one for CUDA"
