"""Alerts the webhook never got: found, stored once, traded only while they are fresh."""

from __future__ import annotations

import csv
import html
import json
import mailbox
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.utils import timezone

from execution import intake, tasks
from execution.alert_log import BadLog, read_log
from execution.ids import uuid7_at
from execution.models import Order, QuarantinedBody, Signal, Strategy
from execution.parsing import Unreadable
from execution.second_channel import take_out
from risk.models import AuditEvent
from tests.execution.posting import body_of, forget, post, signature_of
from tests.execution.test_profiles import standard
from tests.factories import webhook

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("new_process")]


def a_minute_ago() -> datetime:
    """When an alert fired that will not come by the webhook any more."""
    return timezone.now() - timedelta(minutes=1)


def at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def alert(secret: str, number: int = 0, **fields: Any) -> str:
    body = {"secret": secret, "symbol": "BTC/USDT", "action": "buy", "quantity": "0.001"}
    return json.dumps(body | {"price": str(60000 + number)} | fields)


def as_csv(path: Path, rows: Iterable[tuple[datetime, str]], **columns: str) -> Path:
    names = {"message": "Description", "time": "Time"} | columns
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["Alert ID", "Ticker", "Name", *names.values()])
        writer.writeheader()
        for moment, body in rows:
            writer.writerow({"Alert ID": "1", names["message"]: body, names["time"]: at(moment)})
    return path


def imported(slug: str, path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    call_command("import_alerts", slug, str(path))
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


@pytest.mark.parametrize("with_id", [True, False], ids=["with an id", "without one"])
def test_one_alert_dropped_in_a_hundred_is_found_within_a_bar(
    with_id: bool, tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    bodies = [
        alert(secret, number % 50, **({"id": f"alert {number}"} if with_id else {}))
        for number in range(100)
    ]
    if not with_id:
        strategy.dedupe_window = 0
        strategy.save()
    for number, body in enumerate(bodies):
        if number != 37:
            assert post(strategy.slug, body.encode()).status_code == 202
    path = as_csv(tmp_path / "log.csv", ((now, body) for body in bodies))
    nudged.clear()

    report = imported(strategy.slug, path, capsys)

    assert (report["read"], report["received_already"]) == (100, 99)
    (found,) = report["imported"]
    assert (report["missed"], report["unreadable"]) == ([], [])
    signal = Signal.objects.get(pk=found)
    assert (signal.auth, signal.address) == ("import", None)
    assert signal.alert["price"] == "60037"
    assert secret not in signal.body
    assert nudged == [found]
    assert Signal.objects.count() == 100


def test_the_same_file_again_stores_nothing_more(
    tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    rows = [(now, alert(secret, number)) for number in range(3)]
    path = as_csv(tmp_path / "log.csv", rows)

    first, second = (imported(strategy.slug, path, capsys) for _ in range(2))

    assert len(first["imported"]) == 3
    assert (second["imported"], second["received_already"]) == ([], 3)
    assert Signal.objects.count() == 3


def test_what_was_imported_takes_no_delivery_from_the_next_one_alike(
    tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two alike, two minutes apart: the first is lost and imported, the second comes."""
    strategy, secret = webhook(dedupe_window=60)
    body, begun = alert(secret), timezone.now().replace(microsecond=0)
    lines = [(begun, body), (begun + timedelta(minutes=2), body)]
    with time_machine.travel(begun + timedelta(minutes=1), tick=False):
        first = imported(strategy.slug, as_csv(tmp_path / "log.csv", lines[:1]), capsys)
    with time_machine.travel(begun + timedelta(minutes=2, seconds=1), tick=False):
        assert post(strategy.slug, body.encode()).status_code == 202
    with time_machine.travel(begun + timedelta(minutes=3), tick=False):
        second = imported(strategy.slug, as_csv(tmp_path / "log.csv", lines), capsys)

    assert len(first["imported"]) == 1
    assert (second["received_already"], second["imported"]) == (2, [])
    assert Signal.objects.count() == 2


def test_an_import_answers_for_one_of_two_lines_of_the_same_moment(
    tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two came and the other was imported: neither answers for the third, which is missing."""
    strategy, secret = webhook(dedupe_window=0)
    body, begun = alert(secret), timezone.now().replace(microsecond=0)
    lines = [(begun, body), (begun, body), (begun + timedelta(minutes=2), body)]
    with time_machine.travel(begun + timedelta(seconds=1), tick=False):
        assert post(strategy.slug, body.encode()).status_code == 202
    with time_machine.travel(begun + timedelta(minutes=1), tick=False):
        first = imported(strategy.slug, as_csv(tmp_path / "log.csv", lines[:2]), capsys)
    with time_machine.travel(begun + timedelta(minutes=3), tick=False):
        second = imported(strategy.slug, as_csv(tmp_path / "log.csv", lines), capsys)

    assert (first["received_already"], len(first["imported"])) == (1, 1)
    assert (second["received_already"], len(second["imported"])) == (2, 1)


def test_an_old_alert_is_recorded_as_missed_and_not_traded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    close = alert(secret, action="close")
    rows = [(now - timedelta(hours=5), alert(secret)), (now - timedelta(hours=4), close)]

    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)
    for signal_id in report["imported"]:
        tasks.process_signal(signal_id)

    assert len(report["missed"]) == 2
    told = Signal.objects.order_by("id").values_list("state", "reason")
    assert list(told) == [("expired", "STALE")] * 2
    assert not Order.objects.exists()


def test_a_fresh_one_trades_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    path = as_csv(tmp_path / "log.csv", [(a_minute_ago(), alert(secret))])

    (signal_id,) = imported(strategy.slug, path, capsys)["imported"]
    tasks.process_signal(signal_id)

    assert Signal.objects.get().state == "executed"


def carried_out_close(slug: str, secret: str) -> None:
    """A close of everything by the webhook, just now."""
    body = alert(secret, action="close", market_position="flat")
    assert post(slug, body.encode()).status_code == 202
    tasks.process_signal(str(Signal.objects.get().pk))
    assert Signal.objects.get().state == "ignored"


def test_one_older_than_a_close_that_came_opens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    carried_out_close(strategy.slug, secret)
    path = as_csv(tmp_path / "log.csv", [(a_minute_ago(), alert(secret))])

    (signal_id,) = imported(strategy.slug, path, capsys)["imported"]
    tasks.process_signal(signal_id)

    late = Signal.objects.get(pk=signal_id)
    assert (late.state, late.reason) == ("ignored", "CANCELED_BY_SIGNAL")
    assert not Order.objects.filter(signal=late).exists()


@pytest.mark.parametrize("seconds", [0, 1])
def test_an_entry_that_followed_a_close_is_not_put_before_it(
    seconds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    """The log tells whole seconds and no way to us: the close arrives 1.2 s after its line's time."""
    strategy, secret = webhook()
    now = a_minute_ago().replace(microsecond=0)
    close = alert(secret, action="close", market_position="flat")
    with time_machine.travel(now + timedelta(seconds=1, milliseconds=200), tick=False):
        carried_out_close(strategy.slug, secret)
    rows = [(now, close), (now + timedelta(seconds=seconds), alert(secret))]

    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)

    assert report["received_already"] == 1
    (signal_id,) = report["imported"]
    tasks.process_signal(signal_id)
    assert Signal.objects.get(pk=signal_id).state == "executed"


FLAT = {"action": "close", "market_position": "flat"}


@pytest.mark.parametrize(("before", "closed_after"), [(FLAT, 10), ({}, 3)], ids=["close", "entry"])
def test_an_entry_opens_nothing_after_a_close_though_the_one_before_it_came_late(
    before: dict[str, str],
    closed_after: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nudged: list[str],
) -> None:
    """What is before the entry that is missing came with its sender's fourth attempt."""
    strategy, secret = webhook()
    now = a_minute_ago().replace(microsecond=0)
    around = [alert(secret, id="first", **before), alert(secret, id="second", **FLAT)]
    for body, delay in zip(reversed(around), (closed_after, 16), strict=True):
        with time_machine.travel(now + timedelta(seconds=delay), tick=False):
            assert post(strategy.slug, body.encode()).status_code == 202
            tasks.process_signal(str(Signal.objects.latest("id").pk))
    rows = [(now, around[0]), (now + timedelta(seconds=1), alert(secret))]
    rows.append((now + timedelta(seconds=closed_after), around[1]))

    (signal_id,) = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)["imported"]
    tasks.process_signal(signal_id)

    late = Signal.objects.get(pk=signal_id)
    assert (late.state, late.reason) == ("ignored", "CANCELED_BY_SIGNAL")


def test_alerts_of_one_second_keep_the_order_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    rows = [(now, alert(secret, number)) for number in range(20)]
    ids = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)["imported"]
    told = Signal.objects.order_by("id")
    assert [str(one.pk) for one in told] == ids
    assert [one.alert["price"] for one in told] == [str(60000 + number) for number in range(20)]


def test_a_log_that_lists_the_newest_first_is_read_from_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    rows = [(now + timedelta(seconds=number // 10), alert(secret, number)) for number in range(20)]

    imported(strategy.slug, as_csv(tmp_path / "log.csv", reversed(rows)), capsys)

    told = [one.alert["price"] for one in Signal.objects.order_by("id")]
    assert told == [str(60000 + number) for number in range(20)]


def test_two_alerts_alike_of_which_one_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    post(strategy.slug, alert(secret).encode())
    path = as_csv(tmp_path / "log.csv", [(now - timedelta(1), alert(secret)), (now, alert(secret))])
    report = imported(strategy.slug, path, capsys)
    assert (report["received_already"], len(report["imported"])) == (1, 1)


def test_an_alert_whose_id_was_anothers_was_not_delivered(
    tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy, secret = webhook()
    bought, closed = alert(secret, id="a"), alert(secret, id="a", action="close")
    assert post(strategy.slug, bought.encode()).status_code == 202
    assert post(strategy.slug, closed.encode()).status_code == 200
    now = a_minute_ago()
    path = as_csv(tmp_path / "log.csv", [(now, bought), (now, closed)])

    report, again = (imported(strategy.slug, path, capsys) for _ in range(2))

    assert (report["received_already"], again["received_already"]) == (1, 2)
    assert Signal.objects.get(pk=report["imported"][0]).action == "close"
    assert again["imported"] == []


@pytest.mark.parametrize("symbol", ["btc/usdt", "BINANCE:BTC/USDT"])
def test_an_alert_is_known_by_its_id_however_its_symbol_is_written(
    symbol: str, tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy, secret = webhook()
    assert post(strategy.slug, alert(secret, id="a").encode()).status_code == 202
    rows = [(a_minute_ago(), alert(secret, id="a", symbol=symbol))]

    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)

    assert (report["received_already"], report["imported"]) == (1, [])


def test_an_alert_that_was_delivered_by_another_id_than_its_own_is_not_imported(
    tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard Webhooks: the delivery's id is the key, whatever the alert's own."""
    strategy, secret = webhook(auth=Strategy.Auth.STANDARD)
    now, came, lost = a_minute_ago(), alert("", id="a"), alert("", id="b")
    assert standard(strategy.slug, secret, came.encode()).status_code == 202
    log = as_csv(tmp_path / "log.csv", [(now, came), (now, lost)])

    report, again = (imported(strategy.slug, log, capsys) for _ in range(2))

    assert (report["received_already"], len(report["imported"])) == (1, 1)
    assert (again["received_already"], again["imported"]) == (2, [])


def test_a_mended_mapping_makes_no_other_alerts_of_those_that_came(
    tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"path": "action", "words": {"up": "sell"}}
    fields: dict[str, Any] = {"symbol": {"path": "symbol"}, "action": rule, "id": {"path": "id"}}
    strategy, secret = webhook(format="mapping", format_options={"fields": fields})
    body = alert(secret, id="a", action="up")
    assert post(strategy.slug, body.encode()).status_code == 202
    rule["words"] = {"up": "buy"}
    strategy.save()

    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", [(a_minute_ago(), body)]), capsys)

    assert (report["received_already"], report["imported"]) == (1, [])
    assert Signal.objects.get().action == "sell"


def test_what_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    now = a_minute_ago()
    rows = [(now, "BTCUSDT crossing 60000"), (now, alert(secret, quantity="NaN"))]
    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)
    told = [(one["place"], one["code"]) for one in report["unreadable"]]
    assert told == [("line 2", "NOT_JSON"), ("line 3", "INVALID")]


def test_a_mailbox(tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]) -> None:
    strategy, secret = webhook()
    body = alert(secret)
    post(strategy.slug, body.encode())
    box = mailbox.mbox(str(tmp_path / "mails"))
    for number, text in enumerate((body, alert(secret, 5))):
        mail = EmailMessage()
        mail["Subject"], mail["From"] = f"Alert {number}", "noreply@tradingview.com"
        mail["Date"] = a_minute_ago().strftime("%a, %d %b %Y %H:%M:%S +0000")
        mail.set_content(f"Your alert was triggered\n\n{text}\n\nManage your alerts: …")
        box.add(mail)
    box.close()

    report = imported(strategy.slug, tmp_path / "mails", capsys)

    assert (report["read"], report["received_already"], len(report["imported"])) == (2, 1, 1)
    assert Signal.objects.get(pk=report["imported"][0]).alert["price"] == "60005"


def test_what_is_young_may_still_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    """Else the same alert, without an id, would be stored twice: from the log, and a moment later."""
    strategy, secret = webhook()
    body = alert(secret)
    path = as_csv(tmp_path / "log.csv", [(timezone.now(), body)])

    early = imported(strategy.slug, path, capsys)
    assert post(strategy.slug, body.encode()).status_code == 202
    with time_machine.travel(timezone.now() + timedelta(minutes=2)):
        late = imported(strategy.slug, path, capsys)

    assert (early["still_coming"], early["imported"]) == (1, [])
    assert (late["received_already"], late["imported"]) == (1, [])
    assert Signal.objects.count() == 1


@pytest.mark.parametrize(("apart", "found"), [(0, 1), (59, 1), (60, 2)])
def test_what_the_webhook_would_count_as_one_is_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nudged: list[str],
    apart: int,
    found: int,
) -> None:
    strategy, secret = webhook()
    begun = timezone.now() - timedelta(minutes=3)
    rows = [(begun + timedelta(seconds=late), alert(secret)) for late in (0, apart)]

    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)

    assert (report["read"], len(report["imported"])) == (2, found)


def test_the_webhook_after_the_log_brings_nothing_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    strategy, secret = webhook()
    body = alert(secret, id="1")
    path = as_csv(tmp_path / "log.csv", [(a_minute_ago(), body)])
    (stored,) = imported(strategy.slug, path, capsys)["imported"]

    answer = post(strategy.slug, body.encode())

    assert (answer.status_code, answer.json()["signal_id"]) == (200, stored)


def test_a_log_lists_the_alerts_of_every_strategy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    (strategy, secret), (_, another) = webhook(), webhook()
    now = a_minute_ago()
    rows = [(now, alert(secret, 1)), (now, alert(another, 2)), (now, alert("never a secret", 3))]

    report = imported(strategy.slug, as_csv(tmp_path / "log.csv", rows), capsys)

    assert (report["read"], report["others"], len(report["imported"])) == (3, 2, 1)
    assert Signal.objects.get().alert["price"] == "60001"


def test_a_token_in_the_address_tells_nothing_so_the_alert_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str]
) -> None:
    """The columns of TradingView's own export."""
    strategy, _ = webhook()
    now, body = at(a_minute_ago()), '""symbol"": ""BTC/USDT"", ""action"": ""buy""'
    path = tmp_path / "log.csv"
    path.write_text(
        "Alert ID,Ticker,Name,Description,Time,Webhook status\n"
        f'206960060,"BINANCE:BTCUSDT, 1m",Trend,"{{{body}, ""price"": 60001}}",{now},Delivered\n'
        f'206960061,"BINANCE:BTCUSDT, 1m",Other,"{{{body}, ""price"": 60002}}",{now},\n'
    )

    with pytest.raises(CommandError, match="--alert names none"):
        call_command("import_alerts", strategy.slug, str(path), "--alert", "")
    for name in ("Trend", "206960060", "Nobody's"):
        call_command("import_alerts", strategy.slug, str(path), "--alert", name)

    reports = [json.loads(part + "}") for part in capsys.readouterr().out.split("}\n")[:-1]]
    assert [(one["read"], len(one["imported"])) for one in reports] == [(1, 1), (1, 0), (0, 0)]
    assert Signal.objects.get().alert["price"] == "60001"


@pytest.mark.parametrize("charset", ["utf-8", "no-such-charset"])
def test_a_mail_of_html_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nudged: list[str], charset: str
) -> None:
    strategy, secret = webhook()
    shown = html.escape(alert(secret, 5)).replace(", ", ",<br>")
    page = f"<style>p {{color: red}}</style><p>Your alert was triggered</p><td>{shown}</td>"
    mail = EmailMessage()
    mail["Date"] = a_minute_ago().strftime("%a, %d %b %Y %H:%M:%S +0000")
    mail.set_content(page, subtype="html")
    mail.set_param("charset", charset)
    box = mailbox.mbox(str(tmp_path / "mails"))
    box.add(mail)
    box.close()

    report = imported(strategy.slug, tmp_path / "mails", capsys)

    assert (len(report["imported"]), report["unreadable"]) == (1, [])
    assert Signal.objects.get().alert["price"] == "60005"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "no column description or message"),
        ("", "it has: none"),
        ("Description,Time\n{},yesterday\n", "line 2: 'yesterday' is no ISO 8601 time"),
    ],
)
def test_a_file_that_is_no_log(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(BadLog, match=sentence):
        read_log(tmp_path / "log.csv")


def test_what_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no strategy"):
        call_command("import_alerts", "nobody", "x")
    strategy, _ = webhook()
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_alerts", strategy.slug, str(tmp_path / "nothing"))


def test_names_of_columns_may_differ(tmp_path: Path) -> None:
    now = datetime(2026, 3, 2, 14, 5, 7, tzinfo=UTC)
    path = as_csv(tmp_path / "log.csv", [(now, "{}")], message="Message", time="Date")
    (one,) = read_log(path)
    assert (one.at, one.bodies) == (now, (b"{}",))


class TestTakingOutOfQuarantine:
    def quarantined(self, **strategy: Any) -> QuarantinedBody:
        row, secret = webhook(**strategy)
        assert post(row.slug, alert(secret, action="up").encode()).status_code == 400
        return QuarantinedBody.objects.get()

    def mend(self, row: QuarantinedBody) -> None:
        row.strategy.format = "mapping"
        rule = {"path": "action", "words": {"up": "buy"}}
        fields = {name: {"path": name} for name in ("symbol", "quantity", "id")} | {"action": rule}
        row.strategy.format_options = {"fields": fields}
        row.strategy.save()

    def test_what_can_be_read_by_now_becomes_a_signal_once(self, nudged: list[str]) -> None:
        row = self.quarantined()
        with pytest.raises(Exception, match="must be one of"):
            take_out(row, reason="too early")
        self.mend(row)

        first, second = (take_out(row, reason="the mapping is mended") for _ in range(2))

        assert (first.is_duplicate, second.is_duplicate) == (False, True)
        assert first.signal_id == second.signal_id
        assert nudged == [str(first.signal_id)]
        assert Signal.objects.get().action == "buy"
        event = AuditEvent.objects.filter(kind="quarantine.accepted").first()
        assert event is not None
        assert event.reason == "the mapping is mended"

    @pytest.mark.parametrize("named", [{}, {"id": "a"}], ids=["without an id", "with one"])
    @pytest.mark.parametrize("auth", [Strategy.Auth.TOKEN, Strategy.Auth.STANDARD])
    def test_what_its_sender_brought_again_is_not_let_in_as_well(
        self, auth: Strategy.Auth, named: dict[str, str], nudged: list[str]
    ) -> None:
        strategy, secret = webhook(auth=auth)
        send = partial(standard, strategy.slug, secret)
        if auth == Strategy.Auth.TOKEN:
            send = partial(post, strategy.slug)
        body = alert(secret, action="up", **named).encode()
        assert send(body).status_code == 400
        row = QuarantinedBody.objects.get()
        self.mend(row)
        forget()
        assert send(body).status_code == 202

        accepted = take_out(row, reason="the mapping is mended")

        assert accepted == intake.Accepted(Signal.objects.get().pk, is_duplicate=True)
        assert nudged == [str(accepted.signal_id)]

    def test_what_came_before_it_or_long_after_is_not_the_same_delivery(
        self, nudged: list[str]
    ) -> None:
        row = self.quarantined(dedupe_window=0, max_age=300)
        self.mend(row)
        for seconds in (-1, 301):
            Signal.objects.create(
                id=uuid7_at(row.received_at + timedelta(seconds=seconds)),
                strategy=row.strategy,
                received_at=row.received_at + timedelta(seconds=seconds),
                auth=Strategy.Auth.TOKEN,
                body=row.body,
                alert={"symbol": "BTC/USDT", "action": "buy"},
                symbol="BTC/USDT",
                action="buy",
            )

        assert not take_out(row, reason="the mapping is mended").is_duplicate

    def test_a_body_that_could_not_be_taken_apart_is_known_when_it_comes_again(
        self, nudged: list[str]
    ) -> None:
        strategy, secret = webhook()
        body = f"s=BTCUSDT b=long q=1 secret={secret}".encode()
        assert post(strategy.slug, body).status_code == 400
        row = QuarantinedBody.objects.get()
        strategy.format = "keyvalue"
        strategy.save()
        forget()
        assert post(strategy.slug, body).status_code == 202

        assert take_out(row, reason="the format is mended").is_duplicate

    @pytest.mark.parametrize(
        ("field", "auth"),
        [("secret", Strategy.Auth.TOKEN), ("key", Strategy.Auth.HMAC)],
        ids=["its token", "a field of a signed body"],
    )
    def test_json_that_came_under_a_text_format_is_let_in_once(
        self, field: str, auth: Strategy.Auth, nudged: list[str]
    ) -> None:
        strategy, secret = webhook(auth=auth, format="keyvalue")
        value = secret if auth == Strategy.Auth.TOKEN else "of the sender's own"
        now = int(timezone.now().timestamp())
        body = body_of(action="close", timestamp=now)[:-1] + f', "{field}": "{value}"}}'.encode()
        send = partial(
            post, strategy.slug, body, HTTP_X_WEBHOOK_SIGNATURE=signature_of(body, secret)
        )
        assert send().json()["code"] == "NOT_A_PAIR"
        row = QuarantinedBody.objects.get()
        assert (value in row.body, len(row.body)) == (False, len(body))
        strategy.format = "fks"
        strategy.save()

        first = take_out(row, reason="the format is mended")
        assert Signal.objects.get(pk=first.signal_id).action == "close"
        Signal.objects.all().delete()
        forget()
        assert send().status_code == 202
        assert take_out(row, reason="once more").is_duplicate

    def test_a_field_that_only_the_mended_format_masks_makes_it_no_other_delivery(
        self, nudged: list[str]
    ) -> None:
        strategy, secret = webhook()
        told = {"action": "enter_long", "tv_instrument": "BTCUSDT", "bot_uuid": "b-1"}
        body = json.dumps(told | {"secret": secret, "timestamp": at(timezone.now())}).encode()
        assert post(strategy.slug, body).status_code == 400
        strategy.format = "3commas"
        strategy.save()
        forget()
        assert post(strategy.slug, body).status_code == 202

        assert take_out(QuarantinedBody.objects.get(), reason="the format is mended").is_duplicate

    @pytest.mark.parametrize("name", [math.nan, "a"], ids=["no id", "an id"])
    def test_what_had_no_value_has_none_in_a_body_that_is_written_anew(
        self, name: float | str, nudged: list[str]
    ) -> None:
        strategy, secret = webhook()
        body = alert(secret, action="up", atr=math.nan, comment="of two\nlines", id=name)
        assert post(strategy.slug, body.encode()).status_code == 400
        row = QuarantinedBody.objects.get()
        rule = {"path": "action", "words": {"up": "buy"}}
        names = ("symbol", "quantity", "id", "atr", "comment")
        row.strategy.format = "mapping"
        row.strategy.format_options = {
            "fields": {name: {"path": name} for name in names} | {"action": rule}
        }

        accepted = take_out(row, reason="the mapping is mended")

        told = Signal.objects.get(pk=accepted.signal_id).alert
        assert told.get("idempotency_key") == (name if isinstance(name, str) else None)
        assert ("atr" in told, told["comment"]) == (False, "of two\nlines")

    def test_an_alert_whose_id_was_anothers_is_let_in_without_it(self, nudged: list[str]) -> None:
        strategy, secret = webhook()
        for action in ("buy", "close"):
            post(strategy.slug, alert(secret, id="a", action=action).encode())
        row = QuarantinedBody.objects.get()

        first, second = (take_out(row, reason="it was an exit") for _ in range(2))

        assert (first.is_duplicate, second.is_duplicate) == (False, True)
        assert first.signal_id == second.signal_id
        assert Signal.objects.get(pk=first.signal_id).action == "close"

    @pytest.mark.parametrize("is_imported_first", [False, True], ids=["accepted", "imported"])
    def test_two_exits_of_one_bar_under_one_id_are_both_let_in_once(
        self,
        is_imported_first: bool,
        tmp_path: Path,
        nudged: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Two targets of a script fill at once, and what its message has for an id is the same."""
        strategy, secret = webhook()
        half, rest = (
            alert(secret, id="BTCUSDT-1700", action="sell", market_position=after)
            for after in ("long", "flat")
        )
        assert [post(strategy.slug, one.encode()).status_code for one in (half, rest)] == [202, 200]
        row = QuarantinedBody.objects.get()
        assert row.code == "KEY_REUSED"
        now = a_minute_ago()
        log = as_csv(tmp_path / "log.csv", [(now, half), (now, rest)])

        if is_imported_first:
            assert len(imported(strategy.slug, log, capsys)["imported"]) == 1
        accepted = take_out(row, reason="it is the rest")
        report = imported(strategy.slug, log, capsys)

        first, second = Signal.objects.order_by("received_at")
        assert (first.alert["market_position"], second.alert["market_position"]) == ("long", "flat")
        assert accepted == intake.Accepted(second.pk, is_duplicate=is_imported_first)
        assert (report["received_already"], report["imported"]) == (2, [])
        assert nudged == [str(first.pk), str(second.pk)]

    @pytest.mark.parametrize("is_imported_first", [False, True], ids=["accepted", "imported"])
    def test_an_alert_whose_id_was_anothers_is_traded_once_on_whatever_way(
        self,
        is_imported_first: bool,
        tmp_path: Path,
        nudged: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        strategy, secret = webhook()
        bought, other, resent = (
            alert(secret, id="1700", symbol=symbol)
            for symbol in ("BTCUSDT", "ETHUSDT", "BINANCE:ethusdt")
        )
        for body in (bought, other, resent):
            post(strategy.slug, body.encode())
        now = a_minute_ago()
        log = as_csv(tmp_path / "log.csv", [(now, bought), (now, other), (now, resent)])
        rows = list(QuarantinedBody.objects.order_by("pk"))
        assert len(rows) == 2

        if is_imported_first:
            assert len(imported(strategy.slug, log, capsys)["imported"]) == 1
        accepted = [take_out(row, reason="it is another alert") for row in rows]
        report = imported(strategy.slug, log, capsys)

        first, second = Signal.objects.order_by("received_at")
        assert (first.symbol, second.symbol) == ("BTCUSDT", "ETHUSDT")
        assert [one.signal_id for one in accepted] == [second.pk] * 2
        assert [one.is_duplicate for one in accepted] == [is_imported_first, True]
        assert (report["received_already"], report["imported"]) == (3, [])
        assert nudged == [str(first.pk), str(second.pk)]

    def test_one_ticker_of_three_exchanges_is_three_alerts_on_whatever_way(
        self, tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        strategy, secret = webhook()
        symbols = ["NSE:RELIANCE", "BSE:RELIANCE", "MCX:RELIANCE"]
        bodies = [alert(secret, id="1700", symbol=one, action="close") for one in symbols]
        for body in bodies:
            post(strategy.slug, body.encode())
        rows = list(QuarantinedBody.objects.order_by("pk"))
        log = as_csv(tmp_path / "log.csv", [(a_minute_ago(), body) for body in bodies])

        accepted = [take_out(row, reason="it is another alert") for row in [*rows, *rows]]
        report = imported(strategy.slug, log, capsys)

        assert [one.is_duplicate for one in accepted] == [False, False, True, True]
        assert (
            list(Signal.objects.order_by("received_at").values_list("symbol", flat=True)) == symbols
        )
        assert (report["received_already"], report["imported"]) == (3, [])

    def test_what_was_let_in_is_not_imported_as_well(
        self, tmp_path: Path, nudged: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Two alike came within the second and could not be read; one of them was let in."""
        strategy, secret = webhook(dedupe_window=0)
        body, now = alert(secret, action="up"), a_minute_ago()
        with time_machine.travel(now + timedelta(seconds=1), tick=False):
            assert post(strategy.slug, body.encode()).status_code == 400
        row = QuarantinedBody.objects.get()
        self.mend(row)
        accepted = take_out(row, reason="the mapping is mended")
        log = as_csv(tmp_path / "log.csv", [(now, body), (now + timedelta(seconds=1), body)])

        report, again = (imported(strategy.slug, log, capsys) for _ in range(2))

        assert (report["received_already"], len(report["imported"])) == (1, 1)
        assert (again["received_already"], again["imported"]) == (2, [])
        assert nudged == [str(accepted.signal_id), *report["imported"]]

    def test_an_alert_whose_id_was_anothers_is_told_of_no_more_once_it_is_let_in(
        self, nudged: list[str]
    ) -> None:
        strategy, secret = webhook()
        bodies = [alert(secret, id="a", action=action).encode() for action in ("buy", "close")]
        for body in bodies:
            post(strategy.slug, body)
        take_out(QuarantinedBody.objects.get(), reason="it was an exit")

        assert post(strategy.slug, bodies[1]).status_code == 200
        assert QuarantinedBody.objects.count() == 1
        assert post(strategy.slug, alert(secret, id="a", action="sell").encode()).status_code == 200
        assert QuarantinedBody.objects.count() == 2

    def test_one_read_otherwise_by_then_is_the_same_body(self, nudged: list[str]) -> None:
        row = self.quarantined()
        self.mend(row)
        first = take_out(row, reason="the mapping is mended")
        row.strategy.format_options["fields"]["action"]["words"] = {"up": "sell"}
        row.strategy.save()

        assert take_out(row, reason="again") == intake.Accepted(first.signal_id, is_duplicate=True)

    def test_its_age_counts_from_its_arrival(self, nudged: list[str]) -> None:
        row = self.quarantined()
        self.mend(row)
        QuarantinedBody.objects.update(received_at=timezone.now() - timedelta(hours=1))
        row.refresh_from_db()

        accepted = take_out(row, reason="late")
        tasks.process_signal(str(accepted.signal_id))

        signal = Signal.objects.get()
        assert (signal.state, signal.reason) == ("expired", "STALE")

    def test_one_older_than_a_close_that_came_opens_nothing(self, nudged: list[str]) -> None:
        row, secret = webhook()
        assert post(row.slug, alert(secret, action="up").encode()).status_code == 400
        carried_out_close(row.slug, secret)
        body = QuarantinedBody.objects.get()
        self.mend(body)
        accepted = take_out(body, reason="the mapping is mended")
        tasks.process_signal(str(accepted.signal_id))
        late = Signal.objects.get(pk=accepted.signal_id)
        assert (late.state, late.reason) == ("ignored", "CANCELED_BY_SIGNAL")

    def test_what_is_no_text_stays(self, nudged: list[str]) -> None:
        row = self.quarantined()
        row.body = "{"
        with pytest.raises(Unreadable):
            take_out(row, reason="x")
        assert not Signal.objects.exists()
