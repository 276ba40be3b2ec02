"""What this machine's processor can do, as far as it decides how we compute."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# feature: the kernel's names for it, on x86 and on ARM
_FLAGS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "amx": {"amx_tile"},
}


def _entries(key: str) -> list[str]:
    """Return the values of ``key``, one per core; none where the system has no such file."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def cpu_features() -> frozenset[str]:
    """Return which of ``bf16``, ``vnni`` and ``amx`` every core computes natively.

    The kernel's list is read (Linux only); elsewhere the set is empty, which is always safe:
    it only means that nothing is run in reduced precision.
    """
    cores = [set(flags.split()) for flags in _entries("flags") or _entries("Features")]
    if not cores:
        return frozenset()
    common = set.intersection(*cores)
    return frozenset(feature for feature, names in _FLAGS.items() if names & common)


def has_native_bf16() -> bool:
    """Return whether the processor multiplies in bfloat16 itself; emulated, it would be slower than float32."""
    return "bf16" in cpu_features()


def n_cores() -> int:
    """Return the number of cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> str:
    """Return one line for logs: the processor's name, usable cores and features."""
    name = next(iter(_entries("model name")), "") or platform.processor() or platform.machine() or "unknown processor"
    features = ", ".join(sorted(cpu_features())) or "none of bf16, vnni, amx"
    return f"{name}, {n_cores()} cores, {features}"
