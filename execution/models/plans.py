"""How an order is worked in slices: what remains the same while they are sent, and what is next."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models

from brokers.fields import MoneyField
from execution.models.orders import Order
from execution.models.strategies import Strategy


class SlicePlan(models.Model):
    """The plan of one order in state ``slicing``; its slices are orders of their own."""

    order = models.OneToOneField(
        Order, on_delete=models.CASCADE, primary_key=True, related_name="plan"
    )
    algorithm = models.CharField(max_length=10, choices=Strategy.Execution.choices)
    slices = models.PositiveSmallIntegerField(help_text="How many are planned.")
    seconds = models.PositiveIntegerField(help_text="What they are spread over; 0 without a time.")
    slice_quantity = MoneyField(help_text="An equal part, or what is shown at a time.")
    ladder_percent = models.DecimalField(
        max_digits=6,
        decimal_places=4,
        default=Decimal(0),
        db_default=Decimal(0),
        help_text="How many percent of the alert's price one rung is from the next.",
    )
    started = models.PositiveSmallIntegerField(default=0, help_text="How many have been made.")
    begins_at = models.DateTimeField()
    next_at = models.DateTimeField(
        null=True, help_text="The next slice may start then; empty: no further one does."
    )
    detail = models.TextField(blank=True, help_text="Why it waits, or why it ended early.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-order_id"]

    def __str__(self) -> str:
        if self.algorithm == Strategy.Execution.TWAP:
            return f"TWAP: {self.slices} slices over {self.seconds} s"
        if self.algorithm == Strategy.Execution.LADDER:
            return f"ladder: {self.slices} rungs, {self.ladder_percent.normalize():f} % apart"
        return f"iceberg: {self.slices} slices, one after the other"
