"""The clock of periodic tasks: Celery's, and not held up where the machine's is set back."""

from __future__ import annotations

from typing import Any

from celery.beat import PersistentScheduler


class SteadyScheduler(PersistentScheduler):
    """Goes on when the machine's clock is set back. Celery's own would wait until the time at which it
    last did something has come again, and nothing would be swept meanwhile."""

    def tick(self, *args: Any, **options: Any) -> float:
        """Do what is due; returns the seconds until something is."""
        now = self.app.now()
        entries = self.schedule.values()
        ahead = [one for one in entries if one.last_run_at and one.last_run_at > now]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            self._heap = None
        seconds: float = super().tick(*args, **options)
        return seconds
