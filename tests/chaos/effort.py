"""What a run costs: seconds of processor time, by what used them."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Mapping

import psutil  # type: ignore[import-untyped]


def spent(dead: Mapping[str, float], alive: Mapping[int, str]) -> Counter[str]:
    """Seconds by role: of ``dead`` processes as given, of ``alive`` ones and those they started as they
    are now. What this process has waited for itself are servers and what made them.
    """
    used = Counter[str]({role: round(seconds) for role, seconds in dead.items()})
    for pid, role in alive.items():
        used[role] += round(_of_tree(pid))
    used["driver"] += round(sum(os.times()[:2]))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    used["ended servers and migrations"] += round(ended.ru_utime + ended.ru_stime)
    return +used


def _of_tree(pid: int) -> float:
    """The process, its children, and those it has waited for; 0 for one that is gone."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        own = float(times.user + times.system + times.children_user + times.children_system)
        return own + sum(_of_tree(child.pid) for child in process.children())
    except psutil.NoSuchProcess:
        return 0.0
