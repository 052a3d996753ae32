"""The site from the disk, in Chromium: both languages, the search, the switch between them, a phone's width.
The browser asks no network for anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import Chromium
from tests.support.site import build_site

pytestmark = pytest.mark.slow
PHONE = 400
"""Pixels."""
RESULTS = "[...document.querySelectorAll('a.md-search-result__link')].map(a => a.href)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder whose name has to be written in codes, as people's folders have."""
    return build_site(tmp_path_factory.mktemp("pages") / "мой сайт #1")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "profile") as running:
        yield running
        outside = [each for each in running.requested if not each.startswith(("file:", "data:", "about:"))]
        assert outside == [] and running.problems == []


def search(browser: Chromium, words: str) -> list[str]:
    """Types words into the search, as a reader does, and returns the addresses of what is found."""
    browser.value("document.querySelector('[data-md-toggle=search]').click(), "
                  "document.querySelector('.md-search__input').focus(), "
                  "document.querySelector('.md-search__input').value = ''")
    browser.type(words)
    for _ in range(100):
        if found := browser.value(RESULTS):
            return [str(each) for each in found]
        time.sleep(0.1)
    return []


@pytest.mark.parametrize(("start", "words", "wanted"), [
    ("index.html", "quarantine", "/commands.html"),
    ("index.html", "AMOCRM_BATCH_AT_ONCE", "/settings.html"),
    ("guides/metabase.html", "deals_by_field", "/marts.html"),
    ("ru/index.html", "карантине", "/ru/commands.html"),
    ("ru/guides/index.html", "воронка", "/ru/marts.html"),
    ("ru/index.html", "PgBouncer", "/ru/deploy.html")])
def test_search_finds_without_a_server(site: Path, browser: Chromium, start: str, words: str,
                                       wanted: str) -> None:
    browser.open((site / start).as_uri())
    found = search(browser, words)
    assert any(wanted in each for each in found), found
    russian = "/ru/" in wanted
    assert all((f"{site.as_uri()}/ru/" in each) is russian for each in found), "of this language only"
    browser.open(found[0].partition("?")[0])
    assert browser.value("document.querySelector('h1').textContent") != ""


def test_the_header_leads_to_the_same_page_and_back(site: Path, browser: Chromium) -> None:
    browser.open((site / "guides" / "metabase.html").as_uri())
    for language, title in (("ru", "Metabase"), ("en", "Metabase")):
        address = browser.value(f"document.querySelector('a.md-select__link[hreflang={language}]').href")
        browser.open(str(address))
        assert browser.value("document.documentElement.lang") == language
        assert title in str(browser.value("document.querySelector('h1').textContent"))


@pytest.mark.parametrize("name", ["index", "commands", "settings", "marts", "dictionary", "options",
                                  "CONTRIBUTING", "ru/index", "ru/commands", "ru/account"])
def test_a_page_fits_a_phone_and_a_desk(site: Path, browser: Chromium, name: str) -> None:
    for width in (1400, PHONE):
        browser.send_command("Emulation.setDeviceMetricsOverride", width=width, height=900,
                             deviceScaleFactor=1, mobile=width == PHONE)
        browser.open((site / f"{name}.html").as_uri())
        assert browser.value("document.documentElement.scrollWidth") <= width, width
        tabs = browser.value("getComputedStyle(document.querySelector('.md-tabs') || document.body).display")
        assert (tabs != "none") is (width > PHONE)
