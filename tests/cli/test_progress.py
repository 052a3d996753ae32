"""A sync while it works: what it shows on a terminal, how it is interrupted, and that two syncs never
overlap."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.support.commands import COMMAND, CliInstallation, wait_for
from tests.support.equality import differences

CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
KNOWN = re.compile(rb"\x1b\[(\d+(;\d+)*)?[mKAGJH]|\x1b\[\?25[lh]")


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=600) as running:
        yield running


def until(true: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def under_way(installation: CliInstallation, sandbox: SandboxProcess) -> subprocess.Popen[str]:
    """A sync that stops in the middle of the leads: some are stored, and the server no longer answers."""
    def asked() -> int:
        return int(sandbox.stats()["by_path"].get("GET /api/v4/leads", 0))

    before = asked()
    sandbox.fault("slow", match="^/api/v4/leads[?]", times=0, after=3, seconds=600)
    process = installation.start("sync")
    until(lambda: asked() - before > 3)
    return process


@pytest.mark.slow
def test_a_second_sync_is_refused_and_an_interrupted_one_resumes(
        sandbox: SandboxProcess, installation: CliInstallation, database: str) -> None:
    process = under_way(installation, sandbox)
    second = installation.call("sync")
    assert second.code == 1
    assert (
        second.error == "amocrm-mirror: another sync of the account 'amocrm' is running: wait for it to end, "
                        "then run this one again\n")
    assert installation.call("status").out.splitlines()[-1] == "A sync is running now."
    interrupted(process, signal.SIGINT)
    sandbox.clear_faults()
    status = installation.call("status")
    assert status.code == 1
    assert re.search(r"leads .* interrupted ", status.out) and not re.search(" failed ", status.out)
    interrupted(under_way(installation, sandbox), signal.SIGTERM)
    sandbox.clear_faults()
    assert installation.call("sync").code == 0, "the lock is free"
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []


def test_ctrl_c_in_a_terminal_leaves_our_sentence_alone(sandbox: SandboxProcess,
                                                        installation: CliInstallation) -> None:
    """Ctrl-C reaches every process of the terminal's group, so also those that Dagster would start."""
    sandbox.fault("slow", match="^/api/v4/leads[?]", times=0, after=3, seconds=600)
    process = subprocess.Popen([*COMMAND, "sync"], cwd=installation.folder, stderr=subprocess.PIPE, text=True,
                               encoding="utf-8", env=installation.process_environment({}),
                               start_new_session=True)
    installation.processes.append(process)
    assert process.stderr
    while "contacts" not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    sandbox.clear_faults()
    assert process.wait(60) == 1
    progress = (" records", " requests made")
    assert [line for line in rest.splitlines() if not any(word in line for word in progress)] == [
        "amocrm-mirror: interrupted; what had landed is kept, and the next sync resumes there"]


def interrupted(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    done = wait_for(process)
    assert done.code == 1
    assert "Traceback" not in done.error
    assert (done.error.splitlines()[-1]
            == "amocrm-mirror: interrupted; what had landed is kept, and the next sync resumes there")


@pytest.mark.slow
def test_a_live_display_on_a_terminal(sandbox: SandboxProcess, installation: CliInstallation) -> None:
    sandbox.latency(100)
    seen, code = on_a_terminal(installation, "sync")
    assert code == 0, seen[-3000:].decode(errors="replace")
    text = CONTROL.sub(b"", seen).decode()
    assert "records" in text
    assert "leads" in text
    assert re.search(r"\d+/s", text), "no rate was shown"
    assert re.search(r"\d+ of \d+ lists read, \d+ requests made, (at least|about) \d+ left", text)
    assert "leads, contacts, companies: read" in text
    last = text[text.rindex("entity "):]
    assert "Sync complete." in last
    assert re.search(r"leads +complete +sweep +600 ", last)
    assert CONTROL.sub(b"", KNOWN.sub(b"", seen)) == KNOWN.sub(
        b"", seen), "an escape sequence that was not expected"
    assert b"dagster" not in seen.lower(), "Dagster's log got in between"
    assert seen.rstrip().endswith(b" s."), "the display was left standing"
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h"), "the cursor was left hidden"


def on_a_terminal(installation: CliInstallation, *words: str) -> tuple[bytes, int]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen([*COMMAND, *words], cwd=installation.folder,
                               env=installation.process_environment({"TERM": "xterm-256color"}), stdin=theirs,
                               stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    while process.poll() is None or select.select([ours], [], [], 0.2)[0]:
        try:
            seen += os.read(ours, 65536) if select.select([ours], [], [], 0.2)[0] else b""
        except OSError:  # the other end is closed
            break
    os.close(ours)
    return seen, process.wait(60)
