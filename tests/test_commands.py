"""Every management command, as an operator types it."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import override_settings

from brokers.errors import ConfigurationError, QueryFailedError
from brokers.models import Account
from brokers.types import Health, Permissions, PositionReport, VenueStatus
from execution.models import Order, Position, Route, Signal, Strategy
from execution.states import OrderState
from fks_site import schema
from risk.models import AllowedNetwork, AuditEvent, IPAllowlist, RiskLimit, Safeguards, TradingState
from risk.rules import RULES, Start
from tests.brokers.scripted import ScriptedPlugin, registered, report_of, script_of
from tests.factories import (
    AccountFactory,
    OrderFactory,
    PositionFactory,
    SignalFactory,
    StrategyFactory,
    webhook,
)

pytestmark = pytest.mark.django_db
Accounts = Callable[..., Account]
APPS = ("brokers", "risk", "execution", "fks_site")


def run(command: str, *arguments: str) -> str:
    """What the command prints; raises CommandError where the shell would see a failure."""
    out = io.StringIO()
    try:
        call_command(command, *arguments, stdout=out)
    except CommandError as error:
        error.add_note(out.getvalue())
        raise
    return out.getvalue()


def printed(command: str, *arguments: str) -> dict[str, object]:
    """The one JSON object a command prints."""
    values: dict[str, object] = json.loads(run(command, *arguments))
    return values


@pytest.fixture
def scripted() -> Iterator[Accounts]:
    with registered() as account:
        yield account


def commands() -> list[str]:
    return sorted(
        module.name
        for app in APPS
        for module in iter_modules(import_module(f"{app}.management.commands").__path__)
    )


@pytest.mark.parametrize("command", commands())
def test_every_command_is_tested(command: str) -> None:
    tests = Path(settings.BASE_DIR, "tests")
    used = re.compile(rf'\b(run|printed|call_command)\(\s*"{command}"')
    texts = (path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
    named = list(tests.rglob(f"test_{command}.py"))
    assert named or any(used.search(text) for text in texts)


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        call_command(command, "--help")
    assert left.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


# --- add_account, check_account, list_brokers -----------------------------------------------------


def test_an_account_is_added(tmp_path: Path, scripted: Accounts) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"api_key": "key-canary-1234", "api_secret": "secret-canary"}')
    arguments = ("--broker", "scripted", "--environment", "sandbox")
    options = ("--options", '{"exchange": "kraken"}', "--credentials-file", str(keys))
    assert printed("add_account", "desk", *arguments, *options) == {
        "name": "desk",
        "broker": "scripted",
        "environment": "sandbox",
        "venue": "kraken",
        "quote_currency": "USD",
        "options": {"exchange": "kraken"},
        "has_credentials": True,
        "is_active": True,
    }
    assert Account.objects.get().config().credentials["api_secret"] == "secret-canary"


def test_an_account_added_in_the_shell_is_in_the_audit_trail(
    tmp_path: Path, scripted: Accounts
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"api_key": "key-canary-1234", "api_secret": "secret-canary"}')
    arguments = ("--broker", "scripted", "--credentials-file", str(keys))
    run("add_account", "desk", *arguments, "--reason", "a second venue")
    created, credential = AuditEvent.objects.order_by("id")
    assert (created.kind, created.subject) == ("account.created", "account desk")
    assert (created.actor, created.reason) == ("command", "a second venue")
    assert created.after is not None
    assert (created.after["broker"], created.after["is_active"]) == ("scripted", "True")
    assert (credential.kind, credential.after) == ("credential.changed", {"hint": "…1234"})
    assert "canary" not in f"{created.after} {credential.after}"


def test_an_account_that_goes_live_in_the_shell_waits_for_another_person(
    scripted: Accounts,
) -> None:
    Safeguards.objects.create(two_person=True)
    error = io.StringIO()
    arguments = ("--broker", "scripted", "--environment", "live", "--confirm", "desk")
    call_command("add_account", "desk", *arguments, stdout=io.StringIO(), stderr=error)
    assert not Account.objects.get().is_active
    assert error.getvalue().strip() == "It is switched off: going live takes another person."
    call_command("add_account", "toy", "--broker", "scripted", stdout=io.StringIO())
    assert Account.objects.get(name="toy").is_active


LIVE = ("--broker", "scripted", "--environment", "live")


@pytest.mark.parametrize(
    ("given", "typed", "added"),
    [
        (("--confirm", "desk"), None, True),
        ((), "desk", True),
        ((), None, False),
    ],
    ids=["named", "typed at a terminal", "in a script"],
)
def test_an_account_goes_live_in_the_shell_only_with_its_name_typed(
    scripted: Accounts,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    typed: str | None,
    added: bool,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal(typed is not None))
    output, error = io.StringIO(), io.StringIO()
    monkeypatch.setattr("builtins.input", lambda: asked.append(error.getvalue()) or typed)
    call_command("add_account", "desk", *LIVE, *given, stdout=output, stderr=error)
    assert Account.objects.get().is_active is added
    assert ("Say --confirm with its name" in error.getvalue()) is not added
    question = "This trades real money from now on: type desk to confirm it: "
    assert asked == ([question] if typed else [])
    assert json.loads(output.getvalue())["is_active"] is added


@pytest.mark.parametrize("typed", ["", "Desk", "yes"])
def test_another_name_adds_nothing(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    with pytest.raises(CommandError, match="that is not desk: nothing was added"):
        run("add_account", "desk", *LIVE, "--confirm", typed)
    monkeypatch.setattr(sys, "stdin", Terminal(True))
    monkeypatch.setattr("builtins.input", lambda: typed)
    with pytest.raises(CommandError, match="that is not desk: nothing was added"):
        run("add_account", "desk", *LIVE)
    assert not Account.objects.exists()


class Terminal(io.StringIO):
    """Standard input that is a person's terminal, or is not."""

    def __init__(self, is_one: bool) -> None:
        super().__init__()
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


def test_credentials_may_come_by_standard_input(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"api_key": "k", "api_secret": "s"}'))
    output = run("add_account", "desk", "--broker", "scripted", "--credentials-file", "-")
    assert json.loads(output)["has_credentials"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("canary", r"--credentials-file is not JSON \(character 0\)"),
        ('["canary"]', "--credentials-file must be a JSON object"),
        ('{"api_key": 7}', "every value must be text"),
        (None, "--credentials-file cannot be read: No such file"),
    ],
)
def test_a_credentials_file_that_is_none_is_not_repeated(
    tmp_path: Path, scripted: Accounts, content: str | None, sentence: str
) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CommandError, match=sentence) as refused:
        run("add_account", "desk", "--broker", "scripted", "--credentials-file", str(path))
    assert "canary" not in str(refused.value)
    assert not Account.objects.exists()


def test_an_option_nobody_has_is_refused() -> None:
    with pytest.raises(CommandError, match="paper has no option 'colour'"):
        run("add_account", "desk", "--broker", "paper", "--options", '{"colour": "red"}')


def test_an_account_is_checked(scripted: Accounts) -> None:
    account = scripted()
    answer = printed("check_account", account.name)
    assert (answer["healthy"], answer["may_trade"], answer["may_withdraw"]) == (True, True, False)


@pytest.mark.parametrize(
    ("permissions", "sentence"),
    [
        (Permissions(trade=True, withdraw=True, ip_restricted=None), "this key may withdraw"),
        (Permissions(trade=False, withdraw=False, ip_restricted=None), "this key may not trade"),
    ],
)
def test_a_key_that_may_too_much_or_too_little_fails_the_check(
    scripted: Accounts,
    monkeypatch: pytest.MonkeyPatch,
    permissions: Permissions,
    sentence: str,
) -> None:
    monkeypatch.setattr(ScriptedPlugin, "check_permissions", lambda _: permissions)
    with pytest.raises(CommandError, match=sentence):
        run("check_account", scripted().name)


def test_an_account_that_cannot_work_fails_the_check(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, wrong = scripted(), scripted()
    script_of(silent).failure = QueryFailedError("timeout")
    with pytest.raises(CommandError, match="VENUE_UNREACHABLE: timeout"):
        run("check_account", silent.name)
    script_of(wrong).init_failure = ConfigurationError("no such exchange")
    with pytest.raises(CommandError, match="ACCOUNT_MISCONFIGURED: no such exchange"):
        run("check_account", wrong.name)
    with pytest.raises(CommandError, match="there is no account 'nobody'"):
        run("check_account", "nobody")
    monkeypatch.setattr(
        ScriptedPlugin, "health_check", lambda _: Health(False, "asks for patience")
    )
    with pytest.raises(CommandError, match="asks for patience"):
        run("check_account", scripted().name)


@pytest.mark.django_db(transaction=True)
def test_a_checked_account_rehearses_but_never_a_live_one() -> None:
    options = '{"prices": {"BTC/USDT": "60000"}, "faults": [{"fault": "reject", "order": 2}]}'
    printed("add_account", "desk", "--broker", "paper", "--options", options)
    lines = run("check_account", "desk", "--rehearse", "BTC/USDT").splitlines()
    steps = [json.loads(line) for line in lines[1:]]
    assert [step["ok"] for step in steps] == [True] * 6
    with pytest.raises(CommandError, match="failed: place"):
        run("check_account", "desk", "--rehearse", "BTC/USDT")
    with pytest.raises(CommandError, match="failed: prepare"):
        run("check_account", "desk", "--rehearse", "")
    Account.objects.update(environment="live")
    with pytest.raises(CommandError, match="a live account does not rehearse"):
        run("check_account", "desk", "--rehearse", "BTC/USDT")


@pytest.mark.django_db(transaction=True)
def test_a_live_account_rehearses_only_on_two_words() -> None:
    options = '{"prices": {"BTC/USDT": "60000"}}'
    printed("add_account", "desk", "--broker", "paper", "--options", options)
    Account.objects.update(environment="live")
    words = ("check_account", "desk", "--rehearse", "BTC/USDT", "--with-real-money")
    with pytest.raises(CommandError, match="with FKS_LIVE_TRADING on"):
        run(*words)
    with override_settings(FKS_LIVE_TRADING=True):
        steps = [json.loads(line) for line in run(*words).splitlines()[1:]]
    assert [step["ok"] for step in steps] == [True] * 6


def test_brokers_are_listed() -> None:
    assert "paper: Paper" in run("list_brokers")
    listed = json.loads(run("list_brokers", "--json"))
    assert {"ccxt", "paper"} <= {one["name"] for one in listed}
    assert {"name", "label", "credentials", "options"} <= set(listed[0])


def test_brokers_are_listed_with_what_they_can_and_what_is_left_to_prove() -> None:
    text = run("list_brokers")
    schwab = text.partition("  at Charles Schwab (experimental)\n")[2].splitlines()[:6]
    assert [line.partition(":")[0].strip() for line in schwab] == [
        *("orders", "also", "stop loss", "our id", "found again by", "order book"),
    ]
    assert schwab[0] == "    orders: limit, market, stop, stop_limit, trailing_stop; day, gtc"
    assert schwab[3] == "    our id: not kept there"
    listed = {one["name"]: one for one in json.loads(run("list_brokers", "--json"))}
    venues = {venue["venue"]: venue for one in listed.values() for venue in one["venues"]}
    assert {"MetaTrader 5", "NinjaTrader 8", "Interactive Brokers", "OANDA v20"} <= set(venues)
    with_stop = {name for name, one in venues.items() if one["attached_stop"]}
    assert with_stop == {"Interactive Brokers", "OANDA v20"}
    assert [name for name, one in venues.items() if not one["keeps_our_id"]] == [
        "Charles Schwab (experimental)"
    ]
    assert all(one["venues"] for one in listed.values())
    assert all(venue["to_prove"] and venue["lookup"] for venue in venues.values())


# --- add_strategy, send_signal --------------------------------------------------------------------


@pytest.mark.parametrize(("auth", "secret"), [("token", "token"), ("hmac", "hmac_secret")])
def test_a_strategy_is_added_and_its_secret_shown_once(auth: str, secret: str) -> None:
    first, second = AccountFactory.create(), AccountFactory.create()
    options = json.dumps({"quantity": 0.5, "max_age": 60, "allowlist": "none"})
    answer = printed(
        *("add_strategy", "demo", "--accounts", f"{first.name}, {second.name}"),
        *("--auth", auth, "--options", options, "--http", "fks.example:80"),
    )
    assert answer["webhook_url"] == "http://fks.example:80/webhook/demo"
    assert answer["accounts"] == [first.name, second.name]
    assert len(str(answer[secret])) >= 32
    assert str(answer[secret]) not in str(answer["webhook_url"])
    assert Strategy.objects.get().max_age == 60
    created = AuditEvent.objects.get(kind="strategy.created")
    assert (created.subject, created.actor) == ("strategy demo", "command")
    assert [str(route.quantity) for route in Route.objects.all()] == ["0.5", "0.5"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--accounts", "nobody"), "there is no account 'nobody'"),
        (("--accounts", "", "--options", "{"), "--options is not JSON"),
        (("--accounts", "", "--options", "[]"), "--options must be a JSON object"),
        (("--accounts", "desk", "--options", '{"colour": 1}'), "there is no option 'colour'"),
        (("--accounts", ""), "--accounts names none"),
        (("--accounts", ", ,"), "--accounts names none"),
    ],
)
def test_a_strategy_that_cannot_work_is_refused(arguments: tuple[str, ...], sentence: str) -> None:
    IPAllowlist.objects.create(name="tradingview")
    with pytest.raises(CommandError, match=sentence):
        run("add_strategy", "demo", *arguments)
    assert not Strategy.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("auth", ["token", "hmac"])
def test_a_signal_is_signed_and_posted(
    auth: str, live_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, secret = webhook(auth=auth)
    if auth == "token":
        monkeypatch.setenv("FKS_WEBHOOK_TOKEN", secret)
    fields = ("--field", "symbol=BTC/USDT", "--field", "action=buy", "--field", "quantity=0.01")
    address = str(live_server).removeprefix("http://")
    answer = printed("send_signal", strategy.slug, *fields, "--http", address)
    assert (answer["status"], answer["signal_id"]) == ("accepted", str(Signal.objects.get().pk))


FIELDS = {
    "fks": ("symbol=BTCUSDT", "action=buy"),
    "traderspost": ("ticker=BTCUSDT", "action=buy"),
    "3commas": ("tv_instrument=BTCUSDT", "action=enter_long"),
    "okx": ("instrument=BTCUSDT", "action=ENTER_LONG"),
    "pineconnector": ("command=buy", "symbol=BTCUSDT", "quantity=1", "comment=one, two"),
    "octobot": ("SYMBOL=BTCUSDT", "SIGNAL=BUY", "VOLUME=1"),
    "openalgo": ("symbol=BTCUSDT", "action=BUY", "quantity=1"),
    "keyvalue": ("s=BTCUSDT", "b=long", "comment=two words"),
    "mapping": ("pair=BTCUSDT", "side=buy"),
}
MAPPED = {
    "reads": "lines",
    "fields": {
        "symbol": {"path": "pair"},
        "action": {"path": "side"},
        "timestamp": {"path": "at"},
    },
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("auth", ["token", "hmac"])
def test_a_signal_is_written_in_its_strategys_format(auth: str, live_server: object) -> None:
    address = str(live_server).removeprefix("http://")
    for number, (sender, fields) in enumerate(FIELDS.items()):
        options = MAPPED if sender == "mapping" else {}
        strategy, secret = webhook(auth=auth, format=sender, format_options=options)
        given = [word for one in fields for word in ("--field", one)]
        answer = printed("send_signal", strategy.slug, *given, "--token", secret, "--http", address)
        signal = Signal.objects.get(pk=answer["signal_id"])
        assert (signal.symbol, signal.action) == ("BTCUSDT", "buy"), sender
        assert signal.sent_at is not None, f"{number}: {sender} has its time in another field"


@pytest.mark.django_db(transaction=True)
def test_the_token_may_stand_in_its_field_and_targets_in_a_list(live_server: object) -> None:
    strategy, secret = webhook()
    targets = '[{"price": 110.50, "percent": 50}, {"price": "120", "percent": 50}]'
    fields = (f"passphrase={secret}", "symbol=BTCUSDT", "action=buy", f"take_profit={targets}")
    given = [word for one in fields for word in ("--field", one)]
    address = str(live_server).removeprefix("http://")
    answer = printed("send_signal", strategy.slug, *given, "--http", address)
    signal = Signal.objects.get(pk=answer["signal_id"])
    assert [target["price"] for target in signal.alert["take_profit"]] == ["110.5", "120"]
    assert secret not in signal.body


def test_what_a_format_cannot_say_is_not_sent() -> None:
    strategy, secret = webhook(format="octobot")
    with pytest.raises(CommandError, match="the format OctoBot cannot say tag=a;b=c"):
        run("send_signal", strategy.slug, "--token", secret, "--field", "tag=a;b=c")


def test_a_signal_that_cannot_be_sent() -> None:
    strategy, secret = webhook()
    with pytest.raises(CommandError, match="there is no strategy 'nobody'"):
        run("send_signal", "nobody")
    with pytest.raises(CommandError, match="give --token"):
        run("send_signal", strategy.slug)
    with pytest.raises(CommandError, match="--field wants NAME=VALUE"):
        run("send_signal", strategy.slug, "--token", secret, "--field", "symbol")
    with pytest.raises(CommandError, match="--field take_profit begins like JSON and is none"):
        run("send_signal", strategy.slug, "--token", secret, "--field", "take_profit=[110")
    with pytest.raises(CommandError, match="nothing answers at"):
        run("send_signal", strategy.slug, "--token", secret, "--http", "127.0.0.1:9")


# --- set_limit, halt, resume, reconcile -----------------------------------------------------------


def test_a_limit_is_set_and_leaves_a_trace() -> None:
    account = AccountFactory.create()
    arguments = ("--account", account.name, "--symbol", "BTC/USDT", "--mode", "observe")
    assert printed("set_limit", "max_order_value", "1e3", *arguments, "--reason", "start") == {
        "rule": "max_order_value",
        "value": "1000",
        "mode": "observe",
        "parameters": {},
        "scope": f"account {account.name}, symbol BTC/USDT",
    }
    hours = ("--parameter", "zone=Europe/Zurich", "--parameter", "closes=17:30")
    told = printed("set_limit", "trading_hours", "5", *hours, "--reason", "exchange hours")
    assert told["parameters"] == {"zone": "Europe/Zurich", "closes": "17:30"}
    trace = AuditEvent.objects.last()
    assert trace is not None
    assert (trace.actor, trace.reason) == ("command", "start")


@pytest.mark.parametrize("written", ["BTCUSDT", "BTC/USDT", "btc-usdt", "BINANCE:BTCUSDT"])
def test_a_limit_for_a_symbol_is_set_for_what_orders_carry(written: str) -> None:
    AccountFactory.create()
    arguments = ("max_order_value", "10", "--symbol", written, "--reason", "test")
    assert printed("set_limit", *arguments)["scope"] == "symbol BTC/USDT"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("max_order_value", "much"), "'much' is not a number"),
        (("max_order_value", "-1"), "at least 0"),
        (("risk_per_trade", "2"), "0.02 means 2 %"),
        (("trading_hours", "0", "--parameter", "zone"), "a parameter is written NAME=TEXT"),
        (("max_order_value", "1", "--account", "nobody"), "there is no account 'nobody'"),
        (("max_order_value", "1", "--strategy", "tpyo"), "there is no strategy 'tpyo'"),
        (("max_order_value", "1", "--account", ""), "--account names none"),
        (("max_order_value", "1", "--strategy", ""), "--strategy names none"),
        (("max_order_value", "1", "--symbol", ""), "--symbol names none"),
        (("max_order_value", "1", "--symbol", "BTC*"), "'BTC\\*' is not a symbol FKS can place"),
        (("max_order_value", "1", "--symbol", "ES1!"), "'ES1!' changes its contract"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run("set_limit", *arguments, "--reason", "test")
    assert not RiskLimit.objects.exists()


@pytest.mark.parametrize(
    ("mode", "state", "said"),
    [("halt", "halted", "halted"), ("reduce_only", "reducing", "reduce only")],
)
def test_trading_is_halted_and_resumed(mode: str, state: str, said: str) -> None:
    assert run("halt", "--mode", mode, "--reason", "outage") == f"everything is {said} now.\n"
    row = TradingState.objects.get()
    assert (row.state, row.reason, row.changed_by) == (state, "outage", "command")
    assert run("resume", "--reason", "fixed") == "The switch over everything is released.\n"
    row.refresh_from_db()
    assert (row.state, row.reason) == ("active", "fixed")


def test_reduce_only_after_a_halt_is_a_release_and_waits_for_another_person() -> None:
    Safeguards.objects.create(two_person=True)
    run("halt", "--reason", "outage")
    assert run("halt", "--mode", "reduce_only", "--reason", "a bit").startswith("Proposed: another")
    assert TradingState.objects.get().state == "halted"


def test_a_halt_may_concern_one_account_or_strategy() -> None:
    account, strategy = AccountFactory.create(), StrategyFactory.create()
    run("halt", "--account", account.name, "--reason", "test")
    run("halt", "--strategy", strategy.slug, "--reason", "test")
    rows = TradingState.objects.values_list("scope", "key", "state")
    assert sorted(rows) == [
        ("account", account.name, "halted"),
        ("strategy", strategy.slug, "halted"),
    ]


@pytest.mark.parametrize("command", ["halt", "resume"])
@pytest.mark.parametrize("scope", ["account", "strategy", "venue", "symbol"])
@pytest.mark.parametrize("name", ["typo", ""])
def test_a_name_nobody_has_halts_nothing(command: str, scope: str, name: str) -> None:
    """Nor everything, where a script's variable is empty."""
    with pytest.raises(CommandError, match=f"there is no {scope} '{name}'"):
        run(command, f"--{scope}", name, "--reason", "test")
    assert not TradingState.objects.exists()


def test_a_release_names_what_still_stands_and_how_it_is_released() -> None:
    account = AccountFactory.create(name="paper")
    strategy = StrategyFactory.create(slug="trend")
    PositionFactory.create(account=account, symbol="BTC/USDT")
    run("halt", "--reason", "a drill")
    run("halt", "--account", account.name, "--reason", "test")
    run("halt", "--mode", "reduce_only", "--strategy", strategy.slug, "--reason", "test")
    run("halt", "--symbol", "BTC/USDT", "--reason", "test")
    narrower = [
        "still reduce only: strategy trend (manage.py resume --strategy trend --reason …)",
        "still halted: symbol BTC/USDT (manage.py resume --symbol BTC/USDT --reason …)",
    ]
    assert run("resume", "--account", "paper", "--reason", "over").splitlines() == [
        "The switch over account paper is released.",
        "still halted: everything (manage.py resume --reason …)",
        *narrower,
    ]
    assert run("resume", "--reason", "over").splitlines() == [
        "The switch over everything is released.",
        *narrower,
    ]


def test_a_switch_over_what_is_gone_can_be_released() -> None:
    account = AccountFactory.create(name="desk")
    run("halt", "--account", "desk", "--reason", "test")
    account.delete()
    assert run("resume", "--account", "desk", "--reason", "gone") == (
        "The switch over account desk is released.\n"
    )
    with pytest.raises(CommandError, match="there is no account 'desk'"):
        run("halt", "--account", "desk", "--reason", "test")


def test_a_halt_may_cancel_what_works_and_names_what_is_left(scripted: Accounts) -> None:
    account, silent = scripted(), scripted()
    orders = [
        OrderFactory.create(account=one, state=OrderState.OPEN, broker_order_id="V1")
        for one in (account, silent)
    ]
    for order in orders:
        script_of(order.account).reports[order.identity] = report_of(order, VenueStatus.OPEN)
    said = run("halt", "--account", account.name, "--mode", "cancel_all", "--reason", "test")
    assert said.splitlines()[-1] == "All working orders are cancelled."
    assert Order.objects.get(pk=orders[0].pk).state == OrderState.CANCELED
    script_of(silent).failure = QueryFailedError("timeout")
    out = io.StringIO()
    stubborn = ("halt", "--mode", "cancel_all", "--reason", "test", "--seconds", "0")
    with pytest.raises(CommandError, match="not everything is done"):
        call_command(*stubborn, stdout=out)
    assert f"still to be cancelled: order {orders[1].pk}" in out.getvalue()
    assert "All working orders" not in out.getvalue()


def test_a_halt_may_close_what_is_held_by_itself(scripted: Accounts) -> None:
    account = scripted()
    PositionFactory.create(account=account)
    said = run("halt", "--symbol", "BTC/USDT", "--mode", "flatten", "--reason", "test")
    assert said.splitlines() == [
        "symbol BTC/USDT is halted now.",
        "All working orders are cancelled.",
        "All positions are closed.",
    ]
    assert Position.objects.get().quantity == 0
    run("resume", "--symbol", "BTC/USDT", "--reason", "test")
    assert not TradingState.objects.filter(flatten=True).exists()


def test_the_books_are_compared(scripted: Accounts) -> None:
    agreeing, other = scripted(), scripted()
    foreign = report_of(OrderFactory.build(account=other), VenueStatus.OPEN)
    script_of(other).reports["foreign"] = foreign
    assert run("reconcile", "--account", agreeing.name) == f"{agreeing.name}: agrees\n"
    with pytest.raises(CommandError, match="not everything agrees"):
        run("reconcile")
    for name in ("nobody", ""):
        with pytest.raises(CommandError, match=f"there is no account '{name}'"):
            run("reconcile", "--account", name)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (OrderState.SUBMITTING, "submitting"),
        (OrderState.UNKNOWN, "unknown"),
        (OrderState.NEEDS_OPERATOR, "needs operator"),
        (OrderState.OPEN, "open"),
    ],
)
def test_a_coin_that_was_not_compared_agrees_with_nothing(
    scripted: Accounts, monkeypatch: pytest.MonkeyPatch, state: OrderState, said: str
) -> None:
    account = scripted()
    held = [PositionReport("BTC/USDT", Decimal(1), None)]
    monkeypatch.setattr(ScriptedPlugin, "positions", lambda _: held)
    order = OrderFactory.create(account=account, state=state, broker_order_id="V1")
    monkeypatch.setattr("execution.reconcile.check_order", lambda _: None)

    out = io.StringIO()
    with pytest.raises(CommandError, match="not everything agrees"):
        call_command("reconcile", stdout=out)

    sentence = f"{account.name} BTC: not compared, order {order.pk} is {said}\n"
    assert out.getvalue() == sentence


def test_a_venue_that_does_not_answer_is_no_agreement(scripted: Accounts) -> None:
    script_of(scripted()).failure = QueryFailedError("timeout")
    with pytest.raises(CommandError, match="not everything agrees"):
        run("reconcile")


# --- first_start ----------------------------------------------------------------------------------


def test_a_first_start_makes_what_is_needed_and_a_second_one_nothing() -> None:
    said = run("first_start", "--http", "127.0.0.1:8123")
    assert re.search(r"Admin +http://127\.0\.0\.1:8123/admin/ +user admin +password \S{16}", said)
    assert "curl -H 'Prefer: wait=5' http://127.0.0.1:8123/webhook/demo/" in said
    assert "http://127.0.0.1:8123/webhook/tradingview/" in said
    counts = [
        model.objects.count()
        for model in (User, Account, Strategy, RiskLimit, IPAllowlist, AllowedNetwork)
    ]
    started = [rule for rule in RULES.values() if rule.start is not Start.UNSET]
    assert counts == [1, 1, 2, len(started), 1, 6]
    modes = dict(RiskLimit.objects.values_list("rule", "mode"))
    assert modes == {rule.name: rule.start.value for rule in started}
    assert run("first_start").strip() == ""
    assert counts == [
        model.objects.count()
        for model in (User, Account, Strategy, RiskLimit, IPAllowlist, AllowedNetwork)
    ]


@pytest.mark.django_db(transaction=True)
def test_a_first_start_migrates_before_it_where_it_is_told_to() -> None:
    call_command("migrate", "risk", "0001", verbosity=0)
    lacking = schema.unapplied()
    try:
        said = run("first_start", "--migrate")
        left = schema.unapplied()
    finally:
        call_command("migrate", verbosity=0)
    assert (lacking, left) == (["risk.0002_audit_guard"], [])
    assert said.startswith("Admin ")


def test_a_start_works_where_nobody_is_a_superuser_any_more() -> None:
    run("first_start")
    User.objects.update(is_superuser=False)
    assert run("first_start").strip() == ""
    assert User.objects.get().username == "admin"


def test_a_first_start_without_a_demo() -> None:
    assert "curl" not in run("first_start", "--no-demo")
    assert list(Strategy.objects.values_list("slug", flat=True)) == ["tradingview"]


BINANCE_KEYS = {"default_exchange": "binance", "api_key": "k" * 64, "api_secret": "s" * 64}


@pytest.mark.parametrize("testnet", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_an_account_the_environment_describes_never_goes_live_by_itself(
    testnet: bool, allowed: bool
) -> None:
    """Real money takes a name that somebody typed, here as with ``add_account``."""
    given = settings.FIRST_START | BINANCE_KEYS | {"testnet": testnet}
    with override_settings(FIRST_START=given, FKS_LIVE_TRADING=allowed):
        said = run("first_start")
        again = run("first_start")
    account = Account.objects.get(name="binance")
    assert (account.environment, account.is_active) == ("sandbox" if testnet else "live", testnet)
    assert ("binance is switched off" in said) is not testnet
    assert again.strip() == ""
    assert "kkkk" not in said
    assert "ssss" not in said


@override_settings(FIRST_START=settings.FIRST_START | {"webhook_secret": "w" * 32})
def test_a_secret_that_was_given_is_not_shown() -> None:
    said = run("first_start")
    assert "wwww" not in said
    assert "/webhook/tradingview   with WEBHOOK_SECRET as token, or signing\n" in said
    assert "from TradingView or this machine (add others to its allowlist)" in said


def test_a_signal_is_replayed_without_a_trace() -> None:
    strategy, _ = webhook()
    signal = SignalFactory.create(strategy=strategy, body='{"symbol": "BTCUSDT", "action": "buy"}')

    replayed = printed("replay_signal", str(signal.pk))

    assert replayed["signal_id"] == str(signal.pk)
    assert replayed["alert"] == {"symbol": "BTCUSDT", "action": "buy"}
    assert not Order.objects.exists()


def test_an_alert_from_a_file_is_judged_like_one_that_came(tmp_path: Path) -> None:
    strategy, _ = webhook(format="keyvalue")
    (tmp_path / "alert").write_text("s=BTCUSDT b=long q=0.01")
    arguments = ("--strategy", strategy.slug, "--file", str(tmp_path / "alert"))

    assert printed("replay_signal", *arguments)["alert"] == {
        "symbol": "BTCUSDT",
        "action": "buy",
        "quantity": "0.01",
    }


def test_an_alert_from_a_file_is_tried_in_another_format(tmp_path: Path) -> None:
    strategy, _ = webhook(format="mapping", format_options=MAPPED)
    (tmp_path / "alert").write_text("s=BTCUSDT b=long")
    arguments = ("--strategy", strategy.slug, "--file", str(tmp_path / "alert"))
    found = printed("replay_signal", *arguments, "--format", "keyvalue")
    assert found["alert"] == {"symbol": "BTCUSDT", "action": "buy"}

    Strategy.objects.update(format="fks", format_options={})
    with pytest.raises(CommandError, match='--format-options: "fields" is an object'):
        run("replay_signal", *arguments, "--format", "mapping")
    with pytest.raises(CommandError, match="--format-options is not JSON"):
        run("replay_signal", *arguments, "--format", "mapping", "--format-options", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give a signal's id"),
        (("x",), "is no signal id"),
        (("x", "--format", "3commas"), "--format goes with a file"),
        (("x", "--format-options", "{}"), "--format-options goes with a file"),
        (("x", "--strategy", "x"), "--strategy goes with a file"),
        (("x", "--file", "x"), "--file goes with a file"),
        (("--strategy", "x"), "give a signal's id, or --strategy and --file"),
        (("00000000-0000-7000-8000-000000000000",), "there is no signal"),
        (("--strategy", "x", "--file", "/nowhere"), "there is no strategy"),
    ],
)
def test_what_cannot_be_replayed(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run("replay_signal", *arguments)


# --- serve ----------------------------------------------------------------------------------------


def test_a_worker_serves_only_queues_that_exist() -> None:
    with pytest.raises(CommandError, match="there is no queue everything"):
        run("serve", "worker", "--queues", "exits,everything")
