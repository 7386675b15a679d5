"""The REST API under ``/api/v1/``."""

from __future__ import annotations

from rest_framework.pagination import CursorPagination


class NewestFirst(CursorPagination):
    """Keyset pages, newest first: no counts, no offsets."""

    ordering = "-id"
    page_size_query_param = "page_size"
    max_page_size = 500
