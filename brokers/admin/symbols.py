"""What senders call a symbol, and what a venue's rules for it are."""

from __future__ import annotations

from django.contrib import admin

from brokers.admin.base import CarefulAdmin, ReadOnlyAdmin
from brokers.display import moment_column, number_column
from brokers.models import Instrument, SymbolAlias


@admin.register(SymbolAlias)
class SymbolAliasAdmin(CarefulAdmin):
    list_display = ("alias", "symbol", "account", "valid_from", "valid_until")
    list_filter = ("account",)
    list_select_related = ("account",)
    search_fields = ("alias", "symbol")


@admin.register(Instrument)
class InstrumentAdmin(ReadOnlyAdmin):
    list_display = (
        "symbol",
        "account",
        "venue_symbol",
        number_column("quantity_step"),
        number_column("price_tick"),
        number_column("min_quantity", "smallest quantity"),
        number_column("min_value", "smallest value"),
        moment_column("refreshed_at", "read"),
    )
    list_filter = ("account",)
    list_select_related = ("account",)
    search_fields = ("symbol", "venue_symbol")
    nothing_yet = "A venue's rules for a symbol are read with its first order."
