"""Every sender's documented alerts: files with their source, and what FKS reads in them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from execution.alerts import Alert
from execution.formats import FORMATS, format_of, option_problems
from execution.masking import mask_document
from execution.models import QuarantinedBody, Signal, Strategy
from execution.parsing import Unreadable
from execution.schema import Invalid
from risk.types import QuantityType
from tests.execution.posting import post, tables_with
from tests.factories import webhook

PAYLOADS = Path(__file__).parents[1] / "payloads"
SENDERS = sorted(set(FORMATS) - {"fks"})
CASES: dict[str, tuple[str, bytes, dict[str, Any]]] = {}
for _sender in SENDERS:
    for _name, _expected in json.loads((PAYLOADS / _sender / "expected.json").read_text()).items():
        (_file,) = (PAYLOADS / _sender).glob(f"{_name}.*")
        CASES[f"{_sender}/{_name}"] = (_sender, _file.read_bytes(), _expected)

CANARY = "canary-7f3e9a1c5b2d4860-Zq_x"
MAPPING = {"fields": {"symbol": {"path": "pair"}, "action": {"path": "side"}}}
CARRIED = {
    "fks": '{"secret": "%s", "symbol": "BTCUSDT", "action": "buy"}',
    "traderspost": '{"ticker": "BTCUSD", "action": "buy", "passphrase": "%s"}',
    "3commas": '{"secret": "%s", "tv_instrument": "BTCUSDT", "action": "buy"}',
    "okx": '{"signalToken": "%s", "instrument": "BTCUSDT", "action": "ENTER_LONG"}',
    "pineconnector": "60123456789,buy,BTCUSD,secret=%s",
    "octobot": "SYMBOL=BTCUSDT\nSIGNAL=BUY\nTOKEN=%s\n",
    "openalgo": '{"apikey": "%s", "symbol": "BTCUSDT", "action": "BUY", "quantity": "1"}',
    "keyvalue": "s=BTCUSDT b=long q=1 secret=%s",
    "mapping": '{"pair": "BTCUSDT", "side": "buy", "token": "%s"}',
}
"""How each sender carries the webhook's token."""


@pytest.mark.parametrize(("sender", "body", "expected"), CASES.values(), ids=CASES)
def test_a_senders_documented_alert(sender: str, body: bytes, expected: dict[str, Any]) -> None:
    format = format_of(sender, expected.get("options", {}))
    assert option_problems(sender, expected.get("options", {})) == [] or "errors" in expected
    if "unreadable" in expected:
        with pytest.raises(Unreadable) as unreadable:
            format.read(body)
        assert [unreadable.value.code, unreadable.value.position] == expected["unreadable"]
        return
    document = mask_document(format.read(body), (), format)
    if "errors" in expected:
        with pytest.raises(Invalid) as invalid:
            format.parse(document)
        assert [_complaint(one) for one in invalid.value.errors] == expected["errors"]
        return
    alert = format.parse(document)
    assert alert.to_json() == expected["alert"]
    assert Alert.from_json(expected["alert"]) == alert


def _complaint(error: dict[str, str]) -> list[str | int]:
    place = [int(error["position"])] if "position" in error else []
    return [error["field"], error["code"], *place]


def test_every_payload_names_its_source_and_is_expected() -> None:
    for sender in SENDERS:
        files = {path.stem for path in (PAYLOADS / sender).iterdir()} - {"expected"}
        expected = json.loads((PAYLOADS / sender / "expected.json").read_text())
        assert files == set(expected), sender
        assert all("http" in one["source"] for one in expected.values()), sender


def test_every_format_can_be_chosen() -> None:
    assert set(Strategy.Format.values) == set(FORMATS)


@pytest.mark.django_db
@pytest.mark.parametrize(("sender", "template"), CARRIED.items(), ids=CARRIED)
@pytest.mark.usefixtures("new_process")
def test_the_token_is_found_where_the_sender_puts_it(
    sender: str, template: str, nudged: list[str]
) -> None:
    options = MAPPING if sender == "mapping" else {}
    strategy, secret = webhook(format=sender, format_options=options)

    wrong = post(strategy.slug, (template % "something-else-altogether").encode())
    right = post(strategy.slug, (template % secret).encode())

    assert (wrong.status_code, right.status_code) == (401, 202)
    signal = Signal.objects.get()
    assert signal.action == "buy"
    assert "BTCUSD" in signal.symbol
    assert secret not in signal.body
    assert tables_with(secret) == []


@pytest.mark.django_db
@pytest.mark.parametrize(("sender", "template"), CARRIED.items(), ids=CARRIED)
@pytest.mark.usefixtures("new_process")
def test_what_looks_like_a_token_is_kept_nowhere(
    sender: str, template: str, nudged: list[str]
) -> None:
    """The body proves itself by the path; what stands in its own field is another credential."""
    options = MAPPING if sender == "mapping" else {}
    strategy, secret = webhook(format=sender, format_options=options)
    body = template % CANARY
    broken = body.replace("}", "").replace(",buy", ',buy,"').replace("SIGNAL=", "SIGNAL")
    broken = broken.replace("b=long", "b=long b=long")

    read = post(f"{strategy.slug}/{secret}", body.encode())
    unread = post(f"{strategy.slug}/{secret}", broken.encode())

    assert (read.status_code, unread.status_code) == (202, 400)
    assert QuarantinedBody.objects.count() == 1
    assert tables_with(CANARY) == []
    assert tables_with("60123456789") == []


@pytest.mark.django_db
@pytest.mark.usefixtures("new_process")
@pytest.mark.parametrize("sender", ["pineconnector", "octobot", "keyvalue"])
@pytest.mark.parametrize("start", ["", "\ufeff "], ids=["", "indented"])
def test_json_for_a_text_format_is_kept_for_the_operator(sender: str, start: str) -> None:
    strategy, secret = webhook(format=sender)
    body = f'{start}{{"secret":"{secret}","symbol":"BTCUSDT","action":"close"}}'

    assert post(strategy.slug, body.encode()).status_code == 400
    stars = "*" * len(secret)
    kept = body.removeprefix("\ufeff").replace(secret, stars)
    assert QuarantinedBody.objects.get().body == kept


@pytest.mark.django_db
@pytest.mark.usefixtures("new_process")
def test_a_text_alert_is_complained_about_at_its_place() -> None:
    strategy, secret = webhook(format="octobot")
    body = f"SYMBOL=BTCUSDT\nSIGNAL=UP\nTOKEN={secret}"

    response = post(strategy.slug, body.encode())

    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert (error["field"], error["position"]) == ("signal", "22")
    assert "(line 2, column 8)" in error["detail"]
    row = QuarantinedBody.objects.get()
    assert row.body == f"SYMBOL=BTCUSDT\nSIGNAL=UP\nTOKEN={'*' * len(secret)}"
    assert row.body[int(error["position"]) :].startswith("UP")
    assert "line 2, column 8" in row.detail


PERCENTS = {"volume": "percent_of_equity", "targets": "price"}


def pine(fields: str, command: str = "buy") -> Alert:
    format = format_of("pineconnector", PERCENTS)
    return format.parse(format.read(f"60123456789,{command},EURUSD,{fields}".encode()))


@pytest.mark.parametrize("lot", [100, "100", 100.0])
def test_lots_are_counted_in_units_whatever_risk_counts(lot: object) -> None:
    format = format_of("pineconnector", PERCENTS | {"lot": lot})
    alert = format.parse(format.read(b"60123456789,buy,XAUUSD,vol_lots=0.05"))
    assert (alert.quantity, alert.quantity_type) == (Decimal(5), QuantityType.BASE)


def test_a_quantity_counts_units_whatever_risk_counts() -> None:
    alert = pine("quantity=50")
    assert (alert.quantity, alert.quantity_type) == (Decimal(50), QuantityType.BASE)


def test_what_risk_counts_is_still_the_options() -> None:
    alert = pine("risk=50")
    assert (alert.quantity, alert.quantity_type) == (Decimal(50), QuantityType.PERCENT_OF_EQUITY)


@pytest.mark.parametrize(
    ("fields", "command", "wrong"),
    [
        ("vol_lots=1,risk=2", "buy", [("vol_lots", "DUPLICATE_KEY")]),
        (
            "vol_lots=1,quantity=2",
            "buy",
            [("quantity", "DUPLICATE_KEY"), ("vol_lots", "UNSUPPORTED")],
        ),
        ("vol_lots=1", "buy", [("vol_lots", "UNSUPPORTED")]),
        ("vol_pct_bal_loss=1", "buy", [("vol_pct_bal_loss", "UNSUPPORTED")]),
        ("risk=1,sl_atr=2", "sell", [("sl_atr", "UNSUPPORTED")]),
        ("tp_rr=2,sl_atr=2", "buy", [("sl_atr", "UNSUPPORTED"), ("tp_rr", "UNSUPPORTED")]),
    ],
)
def test_an_amount_nobody_knows_is_refused(
    fields: str, command: str, wrong: list[tuple[str, str]]
) -> None:
    with pytest.raises(Invalid) as invalid:
        pine(fields, command)
    assert [(one["field"], one["code"]) for one in invalid.value.errors] == wrong


@pytest.mark.parametrize("command", ["closelong", "closeall"])
def test_a_close_does_not_fail_over_a_stop_nobody_knows(command: str) -> None:
    alert = pine("sl_atr=2,tp_rr=3", command)
    assert (alert.quantity, alert.stop_loss, alert.take_profit) == (None, None, ())
    assert alert.extras == {"license": "60123456789", "sl_atr": "2", "tp_rr": "3"}


@pytest.mark.parametrize("options", [PERCENTS, {}], ids=["with options", "without"])
@pytest.mark.parametrize("command", ["closelong", "closeshort", "closeall"])
@pytest.mark.parametrize("fields", ["risk=0.1", "vol_lots=0.1", "vol_pct_bal=5", "sl=50,tp=60"])
def test_a_plain_close_closes_all_of_its_side(
    options: dict[str, str], command: str, fields: str
) -> None:
    """PineConnector closes a part by commands of their own."""
    format = format_of("pineconnector", options)
    alert = format.parse(format.read(f"60123456789,{command},EURUSD,{fields}".encode()))
    assert (alert.quantity, alert.quantity_type) == (None, QuantityType.BASE)
    assert alert.reduce_only or alert.wants_flat


@pytest.mark.parametrize(
    "command", ["closelongvol", "closeshortvol", "closelongpct", "closeshortpct"]
)
def test_a_close_of_a_part_is_refused_and_says_what_there_is(command: str) -> None:
    with pytest.raises(Invalid) as invalid:
        pine("risk=0.1", command)
    (error,) = invalid.value.errors
    assert error["code"] == "UNSUPPORTED"
    assert error["detail"].startswith("closing a part is not supported; closelong and closeshort")


LONG = "\N{LATIN SMALL LETTER SHARP S}" * 25
"""Twice as long in capitals."""
TICKER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.django_db
@pytest.mark.usefixtures("new_process", "nudged")
@pytest.mark.parametrize(
    ("sender", "body", "field"),
    [
        ("keyvalue", f"e={LONG} s={TICKER} b=buy", "e"),
        ("octobot", f"EXCHANGE={LONG}\nSYMBOL={TICKER}\nSIGNAL=BUY", "exchange"),
    ],
)
def test_a_symbol_too_long_in_capitals_is_the_senders_mistake(
    sender: str, body: str, field: str
) -> None:
    strategy, secret = webhook(format=sender)
    refused = post(f"{strategy.slug}/{secret}", body.encode())
    assert refused.status_code == 400
    assert [one["field"] for one in refused.json()["errors"]] == [field]
    assert QuarantinedBody.objects.count() == 1
    fits = post(f"{strategy.slug}/{secret}", body.replace(LONG, "x" * 25).encode())
    assert fits.status_code == 202
    assert Signal.objects.get().symbol == f"{'X' * 25}:{TICKER}"
