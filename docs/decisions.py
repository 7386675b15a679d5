"""A hook of MkDocs: every decision of ``docs/adr`` stands under *Decisions* by itself."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

SECTION = "Decisions"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    folder = Path(config.docs_dir, "adr")
    pages = sorted(f"adr/{path.name}" for path in folder.glob("*.md"))
    config.nav = [{SECTION: pages} if SECTION in entry else entry for entry in config.nav or []]
    return config
