"""How much memory there is, as far as the system tells: Linux does, others only in part."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# Of version 2 and of version 1: the folder below CGROUPS, the limit, and what is used of it.
LIMITS = (("", "memory.max", "memory.current"),
          ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))  # fmt: skip


def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its control group's; 0: unknown."""
    limits = [limit for limit, _ in control_groups()]
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        pass
    return min(limits, default=0)


def free_memory() -> int | None:
    """Bytes that can still be had; None where the system does not tell (it is no Linux)."""
    found = field("/proc/meminfo", "MemAvailable")
    if found is None:
        return None
    return max(0, min([found, *(limit - used for limit, used in control_groups())]))


def control_groups() -> list[tuple[int, int]]:
    """Limit and use in bytes of the control groups that hold this process and have a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, place = line.split(":", 2)
        for folder, most, used in LIMITS:
            if kinds.split(",") != [folder]:
                continue
            for path in (CGROUPS / folder / place.lstrip("/"), CGROUPS / folder):
                try:
                    found.append((int((path / most).read_text()), int((path / used).read_text())))
                    break
                except (OSError, ValueError):  # not there, or "max"
                    continue
    return found


def resident() -> int:
    """Bytes of this process that lie in memory; 0 where the system does not tell."""
    return field("/proc/self/status", "VmRSS") or 0


def field(path: str, name: str) -> int | None:
    """A size from a file of ``NAME: NUMBER kB`` lines, in bytes."""
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return None
