"""The report's file: whole and safe by itself, private, small, of one moment, and a sentence where something
is missing."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.dashboards import cubes, html, queries, reading
from pipelines.bi.dashboards.file import write_report
from pipelines.bi.dashboards.html import data_block, html_page
from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.payload import Options, payload
from pipelines.bi.dashboards.reading import read_report
from pipelines.bi.dashboards.spec import Kind
from pipelines.erasure import NOT_REACHED
from pipelines.postgres.connections import open_connection
from tests.bi.dashboards.conftest import make_report
from tests.support.commands import CliInstallation
from tests.support.report_data import data_of, rows_of, tile_of, totals

HARMLESS = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/2000/xmlns/",
            "http://www.w3.org/XML/1998/namespace", "https://echarts.apache.org"}
"""Names of XML namespaces, which no browser asks for, and the address in a licence's line."""
VENDOR = Path(html.__file__).parent / "vendor"


def test_it_is_private_and_small(report: Path) -> None:
    assert report.stat().st_mode & 0o777 == 0o600
    assert report.stat().st_size < 1_500_000
    assert [path.name for path in report.parent.iterdir()] == ["report.html"], "no draft is left"
    assert "files that `amocrm-mirror report` wrote" in NOT_REACHED


def test_it_names_no_address_but_those_of_cards(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'\\)<>;]+", text))
    assert {each for each in addresses if not each.startswith("https://mill.kommo.com/")} <= HARMLESS
    assert any(each.startswith("https://mill.kommo.com/leads/detail/") for each in addresses)
    assert not re.search(r"<(?:script|img|iframe|object|embed)[^>]*\bsrc=|@import|url\(",
                         text.partition('id="data"')[0])


def test_its_policy_allows_its_own_scripts_only(report: Path) -> None:
    """Names of the account hold `</script>`, `<!--`, quotes and braces: there is no script but ours."""
    text = report.read_text(encoding="utf-8")
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == len(html.SCRIPTS)
    assert re.findall(r"'sha256-([^']+)'", policy) == [
        base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    assert len(re.findall("<script", text)) == len(scripts) + 1
    assert "alert(1)</script>" not in text


def test_hostile_names_are_data(report: Path) -> None:
    content = report.read_bytes()
    block = content.decode("utf-8").partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in block
    data = data_of(content)
    assert data["account"] == "</script><script>alert(1)</script>"
    assert {"</script>", "{{ 1 }}"} <= set(next(each["values"] for each in data["filters"]
                                                if each["name"] == "pipeline"))
    for name in ("report.js", "charts.js", "texts.js"):
        script = (Path(html.__file__).parent / "assets" / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function",
                             script)


def test_long_data_are_compressed_and_the_same() -> None:
    data = {"language": "ru", "account": "Mill", "names": "<" * 400_000}
    content = html_page(data)
    assert b"application/gzip" in content
    assert len(content) < 900_000
    assert data_of(content)["names"] == data["names"]


def test_short_data_are_json_that_no_name_can_end() -> None:
    data = {"name": "</script><!-- <script>\u2028", "{{ 1 }}": '"'}
    block = data_block(data)
    assert block.startswith('<script type="application/json" id="data">')
    assert block.count("<") == 2
    assert data_of(block.encode()) == data


def test_what_is_vendored_is_what_its_page_says() -> None:
    page, bundle = ((VENDOR / "README.md").read_text(encoding="utf-8"),
                    (VENDOR / "echarts.min.js").read_bytes())
    assert f"`{hashlib.sha256(bundle).hexdigest()}`" in page
    assert html.ECHARTS_VERSION in page
    assert f"Apache ECharts {html.ECHARTS_VERSION}".encode() in bundle.splitlines()[0]
    assert "Apache License" in (VENDOR / "LICENSE.txt").read_text(encoding="utf-8")


def test_without_names(account: str, report: Path, tmp_path: Path) -> None:
    named = str(data_of(report.read_bytes()))
    plain = str(data_of(make_report(account, tmp_path / "r.html", has_names=False)))
    for hidden in ("Anna", "Bruno", "Secret deal", "Secret task", "Hidden Person", "Hidden Customer",
                   "9220345518"):
        assert hidden in named
        assert hidden not in plain
    assert "'user 1'" in plain


def test_no_records(account: str, tmp_path: Path) -> None:
    data = data_of(make_report(account, tmp_path / "r.html", deals=0))
    assert tile_of(data, "stuck_deals")["rows"] == []
    assert totals(data, "overdue_count")[0]
    assert "Secret" not in str(data)


def test_every_figure_is_of_one_moment(account: str, tmp_path: Path) -> None:
    """Another session deletes all deals while the report is read; it may not write itself."""
    with psycopg.connect(account, autocommit=True) as other, open_connection(account) as connection:

        def interfere(what: str, done: int, of: int) -> None:
            if done == 1:
                other.execute("UPDATE amocrm.leads SET _deleted_at = now() WHERE _deleted_at IS NULL")

        try:
            reading = read_report(connection, "amocrm", PAGES, 10, interfere)
            data = payload(reading, PAGES, Options("en"))
            assert totals(data, "open_deals")[0]
            assert totals(data, "created_deals")[0] == reading.deals == 882
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("DELETE FROM amocrm.leads")
        finally:
            other.execute("UPDATE amocrm.leads SET _deleted_at = NULL WHERE id % 50 <> 0")


def test_a_view_that_is_not_there_costs_its_tiles(account: str, tmp_path: Path) -> None:
    with psycopg.connect(account, autocommit=True) as other, open_connection(account) as connection:
        other.execute("ALTER VIEW amocrm_bi.funnel RENAME TO aside; "
                      "ALTER VIEW amocrm_bi.duplicates RENAME TO aside2; "
                      "ALTER VIEW amocrm_bi.overdue_tasks RENAME COLUMN task_type TO t")
        other.execute("UPDATE amocrm.bi_views SET fault = 'no <room>' WHERE name = 'forecast'")
        try:
            written = write_report(connection, "amocrm", tmp_path / "r.html", "en", 10, True, lambda *_: None)
        finally:
            other.execute("ALTER VIEW amocrm_bi.aside RENAME TO funnel; "
                          "ALTER VIEW amocrm_bi.aside2 RENAME TO duplicates; "
                          "ALTER VIEW amocrm_bi.overdue_tasks RENAME COLUMN t TO task_type")
            other.execute("UPDATE amocrm.bi_views SET fault = NULL")
    data = data_of((tmp_path / "r.html").read_bytes())
    assert data["cubes"][tile_of(data, "funnel")["cube"]]["fault"] == "the view funnel does not exist"
    assert tile_of(data, "duplicates")["fault"] == "the view duplicates does not exist"
    assert 'column "task_type" does not exist' in tile_of(data, "overdue_tasks")["fault"]
    assert totals(data, "overdue_count")[0], "its cube does not need that column"
    assert totals(data, "won_deals")[0]
    assert data["notices"] == ["The view forecast could not be rebuilt, and its figures are those of its "
                               "older definition: no <room>"]
    assert [note.partition(":")[0] for note in written.notes] == [
        "funnel", "duplicates", "overdue_tasks",
        "view forecast could not be rebuilt; the report shows it as it was"]


def test_an_account_without_anything(database: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, database).call("report")
    assert done.code == 0
    assert "There are no deals in this mirror yet: run `amocrm-mirror sync`" in done.output
    data = data_of((tmp_path / "report.html").read_bytes())
    assert data["notices"] == ["There are no deals in this mirror yet. Run `amocrm-mirror sync`, then make "
                               "the report again."]
    assert [cube["fault"] for cube in data["cubes"] if cube["fault"]] == []


def test_the_command(account: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, account, AMOCRM_SCHEMA="amocrm").call(
        "report", "--out", "deep/r.html", "--lang", "ru", "--deals", "3")
    assert done.code == 0
    assert re.search(r"deep/r.html: [\d,]+ kB, 882 deals, made in [\d.]+ s. Deals are complete up to "
                     r"2026-03-02 00:05 \(Asia/Kathmandu\)", done.output)
    data = data_of((tmp_path / "deep" / "r.html").read_bytes())
    assert (data["language"], data["currency"], len(tile_of(data, "stuck_deals")["rows"])) == ("ru", "BRL", 3)
    assert data["freshness_of_deals"] == ["сделки", "2026-03-02 00:05", "полностью", "2026-03-02 00:05",
                                          "совпадает"]
    refused = CliInstallation(tmp_path, account, AMOCRM_SCHEMA="amocrm").call(
        "report", "--out", "deep/r.html/x.html")
    assert refused.code == 2
    assert "give another file with --out" in refused.output


@pytest.mark.parametrize("share", [0.9, 0.6, 0.2])
def test_a_large_account_is_made_to_fit(account: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reduced keeps its sums; the first day that is exact is said, and each filter that was
    dropped."""
    with open_connection(account) as connection:
        reading = read_report(connection, "amocrm", PAGES, 0)
    whole = payload(reading, PAGES, Options("en"))
    monkeypatch.setattr(cubes, "SMALL_CUBE", 300)
    whole_size = sum(cubes.packed_size(cubes.pack(each)) for each in reading.cubes)
    monkeypatch.setattr(cubes.fit, "__defaults__", (int(share * whole_size),))
    small = payload(reading, PAGES, Options("en"))
    assert small["exact_from"] is not None
    begin = queries.DAY_ZERO + datetime.timedelta(days=small["exact_from"])
    assert begin.day == 1
    assert any(cube["dropped"] for cube in small["cubes"]) or share > 0.5
    for name in ("won_value", "created_deals", "calls", "open_value"):
        cube = small["cubes"][tile_of(small, name)["cube"]]
        assert cube["fault"] or totals(small, name) == pytest.approx(totals(whole, name))
        for keys, _ in rows_of(cube) if cube["dated"] else ():
            assert (keys[0] is None or keys[0] >= small["exact_from"]
                    or (queries.DAY_ZERO + datetime.timedelta(days=keys[0])).day == 1)


@pytest.mark.parametrize("max_rows", [400, 60, 5])
def test_rows_are_made_fewer_before_they_are_read(account: str, max_rows: int,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a very large account: first by filters, then by values; sums stay as they are."""
    def read() -> dict[str, Any]:
        with open_connection(account) as connection:
            return payload(read_report(connection, "amocrm", PAGES, 0), PAGES, Options("en"))

    monkeypatch.setattr(reading, "EXACT_DAYS", {1: 100})
    monkeypatch.setattr(reading, "MAX_ROWS", 1_000_000)
    whole = read()
    monkeypatch.setattr(reading, "MAX_ROWS", max_rows)
    monkeypatch.setattr(queries, "MAX_VALUES", 1)
    small = read()
    for name in (tile.name for page in PAGES for tile in page.tiles if tile.kind is not Kind.LIST):
        before, after = (data["cubes"][tile_of(data, name)["cube"]] for data in (whole, small))
        assert after["fault"] == "" and before["dropped"] == []
        assert totals(small, name) == pytest.approx(totals(whole, name), rel=1e-3), "but for rounding"
        order = [each for each in queries.DROP_ORDER if each in before["filters"]]
        assert set(after["dropped"]) == set(order[:len(after["dropped"])]), "the least missed goes first"
        if len(rows_of(before)) <= max_rows:
            assert len(rows_of(after)) == len(rows_of(before)) and after["dropped"] == []
        elif after["dropped"] == before["filters"]:
            assert all(len(values) <= 3 for values in after["values"]) or len(rows_of(after)) <= max_rows
        else:
            assert len(rows_of(after)) <= max_rows and after["dropped"]
    dropped = {each for cube in small["cubes"] for each in cube["dropped"]}
    assert "source" in dropped and (max_rows == 400 or dropped == set(queries.DROP_ORDER))
