"""The report in a real browser: no request, no dialog, no error, on each page and in both languages; hostile
names are shown as they are, and filters change the figures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.bi.dashboards.pages.all import PAGES
from tests.bi.dashboards.conftest import make_report
from tests.support.chromium import Chromium
from tests.support.report_data import data_of, totals

pytestmark = pytest.mark.slow
CHARTS = ("[...document.querySelectorAll('.chart')]"
          ".every(each => each.querySelectorAll('svg path').length > 3)")
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
