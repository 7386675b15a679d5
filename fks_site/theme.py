"""Colours, menu and texts of the admin; the pages themselves live in ``admin.py`` and
``templates/``.
"""

from __future__ import annotations

from typing import Any

UNFOLD: dict[str, Any] = {"SITE_TITLE": "FKS", "SITE_HEADER": "FKS"}
