"""What an account leaves behind where it trades: until then it cannot go to another environment."""

from __future__ import annotations

from brokers import accounts
from brokers.models import Account
from execution.models import Order
from execution.states import WORKING


def orders_under_way(account: Account) -> str:
    """Why the account cannot leave its environment now; nothing when all its orders have ended."""
    count = Order.objects.filter(account=account, state__in=WORKING).count()
    if not count:
        return ""
    orders = "1 order has" if count == 1 else f"{count} orders have"
    return (
        f"{orders} not ended, and would be looked for in the other environment: cancel first, or add "
        "another account for it"
    )


accounts.objections.append(orders_under_way)
