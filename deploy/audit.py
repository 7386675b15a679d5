"""Ask whether anything FKS runs on has a known weakness: pip-audit over deploy/image.lock.

pip-audit says that nothing was found also where it could ask about nothing; this says how much was
asked. Exit status 0: every package was asked about and none is known for one. 1: some are; they are
printed. 3: the service could not be reached, or does not know some of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WEAK, UNKNOWN = 1, 3
_PIP_AUDIT = "pip-audit==2.10.1"
COMMAND = (
    *(sys.executable, "-m", "uv", "tool", "run", _PIP_AUDIT),
    *("-r", str(ROOT / "deploy" / "image.lock"), "--require-hashes", "--disable-pip"),
    *("--progress-spinner", "off", "--format", "json"),
)


def verdict(answer: str) -> tuple[int, list[str]]:
    """Exit status and what to print for what pip-audit wrote on its standard output."""
    try:
        packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except ValueError:
        return UNKNOWN, ["nothing could be asked: the advisory service cannot be reached from here"]
    weak = [
        f"{one['name']} {one['version']}: {found['id']}, fixed in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for one in packages
        for found in one.get("vulns", [])
    ]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    asked = len(packages) - len(skipped)
    lines = [
        *weak,
        f"{asked} of {len(packages)} packages asked about, {len(weak)} known weaknesses",
    ]
    if skipped:
        lines.append(f"the service knows nothing about {', '.join(skipped)}")
    if weak:
        return WEAK, lines
    return (0 if asked and not skipped else UNKNOWN), lines


def main(arguments: Sequence[str]) -> int:
    """``arguments`` go to pip-audit, for example ``--vulnerability-service osv``."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)  # noqa: S603
    status, lines = verdict(done.stdout)
    sys.stdout.write("\n".join(lines) + "\n")
    if status == UNKNOWN and done.returncode:
        sys.stderr.write(done.stderr.strip().rpartition("\n")[2] + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
