"""The live report of `serve`, over a real socket: the same page as the file's, to this machine only, made at
most once a minute, as the BI role if there is one."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from pipelines.installation import Installation
from pipelines.monitoring import live_report
from pipelines.monitoring.live_report import LiveReport
from pipelines.monitoring.server import Monitor, StateReader, make_server
from pipelines.postgres.connections import open_connection
from pipelines.postgres.embedded.postmaster import free_port
from tests.support.commands import CliInstallation
from tests.support.report_data import data_of, totals
from tests.support.webhooks import serving


@contextmanager
def running(connect: Callable[[], psycopg.Connection[Any]], is_asked_for: bool = True) -> Iterator[str]:
    port, nothing = free_port(), partial(open_connection, "", autocommit=True)
    live = LiveReport(connect, "amocrm") if is_asked_for else None
    server = make_server(Monitor(StateReader(nothing, "amocrm"), 26, report=live), "127.0.0.1", port)
    with serving(server, port) as address:
        yield f"{address}/report"


def ask(address: str, **headers: str) -> requests.Response:
    return requests.get(address, headers=headers, timeout=60)


def test_the_page_is_that_of_the_file_and_a_minute_old_at_most(account: str, report: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def connect() -> psycopg.Connection[Any]:
        opened.append(1)
        return open_connection(account)

    filed = data_of(report.read_bytes())
    with running(connect) as address, psycopg.connect(account, autocommit=True) as other:
        first = ask(address)
        shown = data_of(first.content)
        assert first.status_code == 200 and first.headers["content-type"] == "text/html; charset=utf-8"
        assert shown["cubes"] == filed["cubes"] and shown["filters"] == filed["filters"]
        assert first.headers["cache-control"] == "no-store"
        assert first.headers["content-security-policy"] == "frame-ancestors 'none'"
        try:
            other.execute("UPDATE amocrm.leads SET _deleted_at = now() WHERE _deleted_at IS NULL")
            asked = [threading.Thread(target=ask, args=[address]) for _ in range(3)]
            for each in asked:
                each.start()
            for each in asked:
                each.join()
            assert ask(address).content == first.content and len(opened) == 1
            monkeypatch.setattr(live_report, "FRESH_SECONDS", 0.0)
            assert totals(data_of(ask(address).content), "open_deals") == [0]
            assert len(opened) == 2
        finally:
            other.execute("UPDATE amocrm.leads SET _deleted_at = NULL WHERE id % 50 <> 0")


@pytest.mark.parametrize(("host", "code"), [
    ("localhost", 200), ("127.0.0.1:8781", 200), ("[::1]:8781", 200), ("evil.example:8781", 403),
    ("127.0.0.1.evil.example", 403), ("localhost.evil.example", 403), ("[", 403), ("192.168.1.5:8781", 403)])
def test_a_name_that_was_made_to_lead_here_is_refused(account: str, host: str, code: int) -> None:
    """DNS rebinding: the browser believes that it asks its own site, and says so in the header Host."""
    with running(partial(open_connection, account)) as address:
        answer = ask(address, Host=host)
        assert answer.status_code == code
        assert (b"Secret deal" in answer.content or b"application/gzip" in answer.content) == (code == 200)


def test_it_reads_as_the_bi_role(account: str, report: Path, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    installation = CliInstallation(tmp_path, account)
    with psycopg.connect(account, autocommit=True) as owner:
        try:
            granted = installation.call("grants", "--role", "live_report_reader")
            assert granted.code == 0, granted.output
            [url] = re.findall(r"^postgresql://live_report_reader:.*$", granted.out, re.M)
            installation.environment["MIRROR_READER_URL"] = url
            installation.apply_environment(monkeypatch)
            from pipelines.config.settings import load_settings
            with running(Installation(load_settings()).connect_to_read) as address:
                shown = data_of(ask(address).content)
                assert owner.execute("SELECT count(*) > 0 FROM pg_stat_activity "
                                     "WHERE usename = 'live_report_reader'").fetchone() == (False,)
            assert shown["cubes"] == data_of(report.read_bytes())["cubes"]
            assert shown["freshness_of_deals"] is not None
        finally:
            owner.execute("DROP OWNED BY live_report_reader")
            owner.execute("DROP ROLE live_report_reader")


def test_a_reason_where_it_cannot_be_made() -> None:
    address_of_nothing = f"postgresql://someone:hidden-word@127.0.0.1:{free_port()}/base"
    with running(partial(open_connection, address_of_nothing)) as address:
        answer = ask(address)
        assert answer.status_code == 503
        assert answer.text.startswith("the report cannot be made: ")
        assert "`amocrm-mirror status`" in answer.text
        assert "hidden-word" not in answer.text


def test_it_is_there_only_if_asked_for_and_for_this_machine(account: str, tmp_path: Path) -> None:
    with running(partial(open_connection, account), is_asked_for=False) as address:
        assert ask(address).status_code == 404
    installation = CliInstallation(tmp_path, account)
    for words, why in {("serve", "--report", "--metrics-host", "0.0.0.0"): "Leave --metrics-host out",
                       ("metrics", "--port", "1", "--report", "--host", "::"): "Leave --host out",
                       ("serve", "--report", "--metrics-port", "0"): "--metrics-port, which is 0 here",
                       ("metrics", "--report"): "--report go with --port"}.items():
        refused = installation.call(*words, *(["--no-dagster"] if words[0] == "serve" else []))
        assert refused.code == 2 and why in refused.output, refused.output
