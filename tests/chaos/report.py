"""What a run prints: a table, or its figures as JSON."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from dataclasses import asdict

from tests.chaos.result import Result

SHOWN = 20
"""Findings and cells printed one by one."""


def as_json(result: Result) -> str:
    """All figures of a run as one JSON object."""
    return json.dumps(vars(result), default=asdict)


def table(options: Namespace, result: Result, cells: int) -> str:
    """All figures of a run; what was found and the story of the first bad order at the end."""
    rows = [
        ("seed, id rule, disabled", f"{options.seed}, {options.id_rule}, {options.disable or '-'}"),
        ("alerts acknowledged", str(result.acknowledged)),
        ("orders", f"{result.orders}, of which {result.placed} reached the venue"),
        ("order states", _listed(result.states)),
        ("ended unsent", _listed(result.unsent)),
        ("kills", f"{result.kills.total()}: {_listed(result.kills)}"),
        ("stalls beyond the lease", str(result.stalls)),
        ("crash point x fault cells", f"{result.cells} of {cells}"),
        ("cells missed", ", ".join(result.cells_missed[:SHOWN]) or "none"),
        ("other troubles", _listed(result.troubles)),
        ("faults at the venue", f"{result.faults.total()}: {_listed(result.faults)}"),
        ("answers to deliveries", _listed(result.answers)),
        ("lost", str(result.count("lost"))),
        ("doubled", str(result.count("doubled"))),
        ("unknown left", str(result.count("unknown left"))),
        ("cancels ignored", str(result.count("cancel ignored"))),
        ("wrong otherwise", str(result.count("wrong"))),
        ("seconds", ", ".join(f"{name} {seconds}" for name, seconds in result.phases.items())),
        ("seconds of a processor", f"{result.processor_s.total()}: {_listed(result.processor_s)}"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += [f"{finding.kind}: {finding.what}" for finding in result.findings[:SHOWN]]
    return "\n".join([*lines, result.story]).rstrip()


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
