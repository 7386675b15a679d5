"""The agent under pythonw, which gives it neither stdout nor stderr."""

from __future__ import annotations

from pathlib import Path

from tests.brokers.terminals import mt5
from tests.brokers.terminals.rigs import mt5_agent

PYTHONW = (
    "-c",
    "import sys; sys.stdout = sys.stderr = None\n"
    "from brokers.bridge.__main__ import main; sys.exit(main())",
)


def test_it_serves_without_a_console(tmp_path: Path) -> None:
    terminal = mt5.Mt5Terminal()
    with mt5.running(terminal) as address:
        agent = mt5_agent(tmp_path, terminal, address)
        agent.program = PYTHONW
        agent.start()
        assert agent.process is not None
        try:
            assert agent.plugin().health_check().ok
            agent.process.terminate()
            assert agent.process.wait(20) == 0
        finally:
            agent.kill()


def test_what_stops_its_start_is_in_its_log(tmp_path: Path) -> None:
    agent = mt5_agent(tmp_path, mt5.Mt5Terminal(), "127.0.0.1:1", table='deviation = "wide"')
    agent.program = PYTHONW
    done = agent.command("serve", str(agent.file))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    log = (tmp_path / "agent.log").read_text()
    assert "ERROR brokers.bridge ended: [mt5] takes path (a text) and deviation" in log
    assert agent.key not in log


def test_an_error_nobody_expected_is_in_its_log_too(tmp_path: Path) -> None:
    agent = mt5_agent(tmp_path, mt5.Mt5Terminal(), "127.0.0.1:1")
    broken = "from brokers.bridge import drivers; drivers.make = None\n"
    agent.program = (PYTHONW[0], broken + PYTHONW[1])
    done = agent.command("serve", str(agent.file))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    log = (tmp_path / "agent.log").read_text()
    assert "CRITICAL brokers.bridge ended: 'NoneType' object is not callable" in log
    assert "Traceback" in log


def test_an_unreadable_file_ends_it_without_a_word(tmp_path: Path) -> None:
    """No log is known yet; the exit status is all there is."""
    agent = mt5_agent(tmp_path, mt5.Mt5Terminal(), "127.0.0.1:1")
    agent.file.write_text("driver = ")
    agent.program = PYTHONW
    done = agent.command("serve", str(agent.file))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert not (tmp_path / "agent.log").exists()
