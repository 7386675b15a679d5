"""Colours, menu and texts of the admin; the pages themselves live in ``admin.py`` and
``templates/``.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def _stylesheet(_request: HttpRequest) -> str:
    return static("fks/fks.css")


def _script(_request: HttpRequest) -> str:
    return static("fks/fks.js")


def _copy_script(_request: HttpRequest) -> str:
    return static("fks/copy.js")


def _palette_script(_request: HttpRequest) -> str:
    return static("fks/palette.js")


def _favicon(_request: HttpRequest) -> str:
    return static("fks/favicon.svg")


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "FKS",
    "SITE_HEADER": "FKS",
    "SITE_SUBHEADER": "Trading alerts into orders",
    "SITE_SYMBOL": "candlestick_chart",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _favicon}],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "ENVIRONMENT": "fks_site.menu.environment",
    "DASHBOARD_CALLBACK": "fks_site.dashboard.index_context",
    "STYLES": [_stylesheet],
    "SCRIPTS": [_script, _copy_script, _palette_script],
    "LOGIN": {"redirect_after": reverse_lazy("admin:index")},
    "ACCOUNT": {"navigation": "fks_site.menu.account"},
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": False,
        "navigation": "fks_site.menu.navigation",
    },
    "TABS": "fks_site.menu.tabs",
    "COLORS": {
        "base": {
            "50": "oklch(98.4% .003 247.858)",
            "100": "oklch(96.8% .007 247.896)",
            "200": "oklch(92.9% .013 255.508)",
            "300": "oklch(86.9% .022 252.894)",
            "400": "oklch(70.4% .04 256.788)",
            "500": "oklch(55.4% .046 257.417)",
            "600": "oklch(44.6% .043 257.281)",
            "700": "oklch(37.2% .044 257.287)",
            "800": "oklch(27.9% .041 260.031)",
            "900": "oklch(20.8% .042 265.755)",
            "950": "oklch(12.9% .042 264.695)",
        },
        "primary": {
            "50": "oklch(98.4% .014 180.72)",
            "100": "oklch(95.3% .051 180.801)",
            "200": "oklch(91% .096 180.426)",
            "300": "oklch(85.5% .138 181.071)",
            "400": "oklch(77.7% .152 181.912)",
            "500": "oklch(70.4% .14 182.503)",
            "600": "oklch(51.1% .096 186.391)",
            "700": "oklch(43.7% .078 188.216)",
            "800": "oklch(38.6% .063 188.416)",
            "900": "oklch(33.6% .05 189.1)",
            "950": "oklch(27.7% .046 192.524)",
        },
    },
}
