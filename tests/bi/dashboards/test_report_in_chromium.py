"""The report in a real browser: no request, no dialog, no error, on each page and in both languages; hostile
names are shown as they are, and filters change the figures."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.bi.builder import build_views
from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.postgres.connections import open_connection
from tests.bi.dashboards.conftest import ACCOUNT, make_report
from tests.conftest import temporary_database
from tests.support.chromium import Chromium
from tests.support.report_data import data_of, totals

pytestmark = pytest.mark.slow
CHARTS = ("[...document.querySelectorAll('.chart')]"
          ".every(each => each.querySelectorAll('svg path').length > 3)")
BLANK = """[...document.querySelectorAll('main .card')]
  .filter(card => !(card.querySelector('.figure, .nothing, .fault, tbody td')
    && [...card.querySelectorAll('.chart')].every(chart => chart.querySelectorAll('svg path').length > 3)))
  .map(card => card.dataset.tile)"""
"""Tiles that show neither a figure, nor a chart with its table, nor a sentence."""
ODD_ACCOUNTS = {"nothing at all": ""} | dict(re.findall(
    r"^-- ([\w ]+)\n(.+?)(?=^-- |\Z)",
    (Path(__file__).parent / "odd_accounts.sql").read_text(encoding="utf-8"), re.M | re.S))
"""SQL that makes an odd account of account.sql; empty: nothing was ever read."""
WON = "document.querySelector('[data-tile=won_deals] .figure').textContent"


def shown(tab: Chromium, expression: str, seconds: float = 10) -> Any:
    """The expression's value, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := tab.value(expression)) and time.monotonic() < end:
        time.sleep(0.05)
    return value


@pytest.mark.parametrize(("language", "width"), [("en", 1400), ("ru", 400)])
def test_every_page(account: str, tmp_path: Path, language: str, width: int) -> None:
    path = tmp_path / "r.html"
    data = data_of(make_report(account, path, language, 20))
    with Chromium(tmp_path / "profile") as tab:
        tab.send_command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                         mobile=width < 600)
        for page in PAGES:
            tab.open("about:blank")
            tab.open(f"file://{path}#page={page.name}&period=all")
            assert shown(tab, "document.querySelectorAll('main .card').length")
            assert shown(tab, CHARTS)
            assert tab.value("document.documentElement.scrollWidth") <= width
            assert tab.value("document.querySelectorAll('.fault').length") == 0
            assert tab.value("document.querySelector('h1').textContent") == data["account"]
        tab.open("about:blank")
        tab.open(f"file://{path}#period=all")
        assert shown(tab, WON) == str(totals(data, "won_deals")[0])
        tab.value("(() => { const chosen = document.querySelector('select[name=pipeline]'); "
                  "chosen.value = '1'; chosen.dispatchEvent(new Event('change')); })()")
        assert tab.value(WON) == str(totals(data, "won_deals", pipeline=1)[0])
        assert "pipeline=" in tab.value("location.hash")
        assert tab.problems == []
        assert [each for each in tab.requested if not each.startswith(("file://", "data:", "about:"))] == []


@pytest.mark.parametrize("what", ODD_ACCOUNTS)
def test_no_tile_is_blank_without_a_word(postgres_server: str, template_database: str, tmp_path: Path,
                                         what: str) -> None:
    path, change = tmp_path / "r.html", ODD_ACCOUNTS[what]
    with temporary_database(postgres_server, template_database) as database:
        with open_connection(database, autocommit=True) as connection:
            connection.execute(f"{ACCOUNT if change else ''}".encode())
            assert [each.reason for each in build_views(connection, "amocrm") if each.reason] == []
            connection.execute(change.encode())
        make_report(database, path)
    assert path.stat().st_size < 1_500_000
    with Chromium(tmp_path / "profile") as tab:
        for page in PAGES:
            for period in ("all", "last_7_days"):
                tab.open("about:blank")
                tab.open(f"file://{path}#page={page.name}&period={period}")
                assert shown(tab, "document.querySelectorAll('main .card').length")
                assert shown(tab, f"({BLANK}).length === 0"), tab.value(BLANK)
                assert "undefined" not in tab.value("document.body.innerText")
                assert "NaN" not in tab.value("document.body.innerText")
                assert tab.value("document.documentElement.scrollWidth") <= 1400
        assert tab.problems == []
