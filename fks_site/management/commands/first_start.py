"""``manage.py first_start``: what a new installation begins with. A second run changes nothing."""

from __future__ import annotations

import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.checks import Tags
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.db.models import Q

from brokers.errors import ConfigurationError
from brokers.models import Account
from brokers.types import Environment
from execution.authentication import new_secret
from execution.models import Strategy
from execution.strategies import TRADINGVIEW, Created, create_strategy
from fks_site import roles
from risk import audit
from risk.accounts import add_account
from risk.limits import first_limits
from risk.models import AllowedNetwork, IPAllowlist, RateLimit, RiskLimit

TRADINGVIEW_ADDRESSES = ("52.89.214.238", "34.212.75.30", "54.218.53.128", "52.32.178.7")
THIS_MACHINE = ("127.0.0.0/8", "::1/128")


class Command(BaseCommand):
    help = "Create the first user, account, strategies and limits; keeps whatever exists."
    requires_system_checks = [Tags.security]  # noqa: RUF012  (of the settings, not of the code)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--http", default=settings.HTTP_ADDRESS, metavar="HOST:PORT")
        parser.add_argument("--no-demo", action="store_true", help="Make no demo strategy.")
        parser.add_argument("--migrate", action="store_true", help="Migrate before it.")

    def handle(self, *_args: Any, **options: Any) -> None:
        address = options["http"]
        if options["migrate"]:
            call_command("migrate", interactive=False, verbosity=0, skip_checks=False)
        lines: list[str] = []
        settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
        with transaction.atomic(), audit.acting(audit.Actor("first start")):
            _allowlist()
            _rate_limit()
            _limits()
            roles.install()
            # The workers compare each account with its venue before they trade again.
            Account.objects.update(reconciled_at=None)
            password = _admin_user()
            if password:
                lines += [f"Admin     http://{address}/admin/   user admin   password {password}"]
                lines += ["          (shown once; change it after the first login)"]
            try:
                account, created = _first_account()
            except ConfigurationError as error:
                raise CommandError(f"DEFAULT_EXCHANGE: {error}") from error
            if created and not account.is_active:
                lines += [f"Account   {account} is switched off: it would trade real money."]
                lines += [
                    "          Switch it on on its page, where its name is typed to confirm it"
                ]
            lines += _tradingview(account, address)
            if not options["no_demo"]:
                lines += _demo(address)
        self.stdout.write("\n".join(lines))


def _allowlist() -> None:
    preset, created = IPAllowlist.objects.get_or_create(
        name=TRADINGVIEW, defaults={"note": "TradingView's published webhook addresses"}
    )
    if not created:
        return
    AllowedNetwork.objects.bulk_create(
        [AllowedNetwork(allowlist=preset, cidr=f"{one}/32") for one in TRADINGVIEW_ADDRESSES]
        + [
            AllowedNetwork(
                allowlist=preset,
                cidr=one,
                note="this machine, for curl and send_signal; remove it behind a reverse proxy",
            )
            for one in THIS_MACHINE
        ]
    )


def _rate_limit() -> None:
    given = settings.FIRST_START
    RateLimit.objects.get_or_create(
        pk=1,
        defaults={"requests": given["rate_limit_requests"], "window": given["rate_limit_window"]},
    )


def _limits() -> None:
    if RiskLimit.objects.exists():
        return
    given = ("max_order_value", "max_position_value", "risk_per_trade")
    first_limits({rule: settings.FIRST_START[rule] for rule in given})


def _admin_user() -> str:
    """The new administrator's password; empty when there is one already, or one who is none now."""
    if User.objects.filter(Q(is_superuser=True) | Q(username="admin")).exists():
        return ""
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser("admin", password=password)
    return password


def _first_account() -> tuple[Account, bool]:
    """The paper account, or the exchange account the environment describes and whether it was made
    now. One that would trade live is switched off: nobody has typed its name yet.
    """
    paper = Account.objects.filter(name="paper").first()
    if paper is None:
        paper = add_account(
            "paper",
            broker="paper",
            environment=Environment.DRY_RUN.value,
            options={},
            credentials={},
        )
    given = settings.FIRST_START
    exchange = given["default_exchange"]
    if not exchange or not given["api_key"] or Account.objects.filter(name=exchange).exists():
        return paper, False
    account = add_account(
        exchange,
        broker="ccxt",
        environment=(Environment.SANDBOX if given["testnet"] else Environment.LIVE).value,
        options={"exchange": exchange},
        credentials={"api_key": given["api_key"], "api_secret": given["api_secret"]},
        is_active=given["testnet"],
    )
    return account, True


def _tradingview(account: Account, address: str) -> list[str]:
    """The strategy of the known path ``/webhook/tradingview``; its secret may come as WEBHOOK_SECRET,
    which then also signs, as senders of the older service do."""
    if Strategy.objects.filter(slug=TRADINGVIEW).exists():
        return []
    given = settings.FIRST_START["webhook_secret"]
    created = create_strategy(
        TRADINGVIEW,
        accounts=[account.name],
        sizing="risk",
        options={"risk_percent": str(settings.FIRST_START["risk_per_trade"])},
        secret=given,
    )
    _set_confidence(created, required=False)
    if given:
        new_secret(created.strategy, Strategy.Auth.HMAC, given)
    path = f"/{created.secret}" if not given else "   with WEBHOOK_SECRET as token, or signing"
    return [
        f"Webhook   http://{address}/webhook/{TRADINGVIEW}{path}",
        "          posts come from TradingView or this machine (add others to its allowlist);",
        "          entries are sized by risk, so they need a stop_loss",
        "",
    ]


def _demo(address: str) -> list[str]:
    if Strategy.objects.filter(slug="demo").exists():
        return []
    created = create_strategy(
        "demo",
        accounts=["paper"],
        options={"quantity": "0.001", "allowlist": "none"},
    )
    _set_confidence(created, required=False)
    return [
        "Trade on paper:",
        f"  curl -H 'Prefer: wait=5' http://{address}/webhook/demo/{created.secret} \\",
        '    -d \'{"symbol": "BINANCE:BTCUSDT", "action": "buy", "quantity": "0.001", '
        '"price": "60000", "confidence": 0.8}\'',
        "",
    ]


def _set_confidence(created: Created, *, required: bool) -> None:
    strategy = created.strategy
    strategy.min_confidence = settings.FIRST_START["min_confidence"]
    strategy.requires_confidence = required
    strategy.save()
