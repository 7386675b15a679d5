"""Write docs/licences.md and deploy/sbom.json from what requirements.txt pins and pip installed.

Run by ``make lock``. The bill of materials is CycloneDX 1.6; checksums of every file that may be
installed into the image are in deploy/image.lock.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)(?:[^#\n]*#\s*(.*))?", re.MULTILINE)
_CLASSIFIER = "License :: OSI Approved :: "
_LONGEST_NAME = 60
_NOT_ON_EVERY_PYTHON = {"async-timeout": "Apache-2.0"}


def pins() -> dict[str, tuple[str, str]]:
    """Every pinned package: its version and, of direct ones, why it is there."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = {name: (version, why) for name, version, why in PIN.findall(text)}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def licence(name: str) -> str:
    """As the package declares it; of several ways to do so, the most exact."""
    if name in _NOT_ON_EVERY_PYTHON:
        return _NOT_ON_EVERY_PYTHON[name]
    try:
        metadata = distribution(name).metadata
    except PackageNotFoundError:
        return "not installed here"
    declared = metadata.get("License-Expression") or ""
    classifiers = [
        value.removeprefix(_CLASSIFIER)
        for value in metadata.get_all("Classifier") or []
        if value.startswith(_CLASSIFIER)
    ]
    text = (metadata.get("License") or "").strip()
    short = text if text and len(text) <= _LONGEST_NAME and "\n" not in text else ""
    return declared or ", ".join(classifiers) or short or "see its files"


def page() -> str:
    lines = [
        "# Licences of what FKS runs on",
        "",
        "As the packages declare them. `make lock` writes this page; the same list is in",
        "`deploy/sbom.json` (CycloneDX).",
        "",
        "| package | version | licence | why |",
        "|---|---|---|---|",
    ]
    rows = (f"| {n} | {v} | {licence(n)} | {w} |" for n, (v, w) in pins().items())
    return "\n".join([*lines, *rows]) + "\n"


def bill() -> dict[str, Any]:
    """CycloneDX, without a time or a serial number: the same pins make the same file."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "fks", "bom-ref": "fks"}},
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
                "licenses": [{"license": {"name": licence(name)}}],
            }
            for name, (version, _) in pins().items()
        ],
    }


def main() -> None:
    (ROOT / "docs" / "licences.md").write_text(page(), encoding="utf-8")
    text = json.dumps(bill(), indent=1, ensure_ascii=False) + "\n"
    (ROOT / "deploy" / "sbom.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
