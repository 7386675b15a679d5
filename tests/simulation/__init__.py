"""The order machine under chance: the product's own decisions, without a database or a real clock."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fks_site.settings")
# The settings want keys even where nothing is signed or sealed.
os.environ.setdefault("SECRET_KEY", "simulation")
os.environ.setdefault("CREDENTIAL_KEYS", "c2ltdWxhdGlvbiBzaW11bGF0aW9uIHNpbXVsYXRpb24=")
django.setup()
