"""The site (`make site`): it builds strictly in both languages, its links lead somewhere, it loads nothing
from a network, and the pages that the code writes are current."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.commands import REPOSITORY
from tests.support.reference_pages import OPTIONS, SETTINGS, options_page, settings_page
from tests.support.site import build_site, links, local_target, run_mkdocs

DOCS = REPOSITORY / "docs"
NO_LINE = re.compile(r"decisions/\d|dictionary\.md|[A-Z-]+\.md$(?<!README\.md)")
"""Pages without a line of what was tried: records, what the code writes, and pages of the repository."""
ONLY_ENGLISH = "Этой страницы по-русски ещё нет"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(tmp_path_factory.mktemp("site"))


def pages_of(nav: Any) -> list[str]:
    """The names of the pages in a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [name for each in (nav.values() if isinstance(nav, dict) else nav) for name in pages_of(each)]


def nav_pages() -> list[str]:
    return pages_of(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def built(name: str) -> str:
    return name.replace("README.md", "index.html").replace(".md", ".html")


def has_russian(name: str) -> bool:
    page = Path(name)
    return any((DOCS / each).is_file() for each in (Path("ru") / page, page.parent / "ru" / page.name))


def test_every_page_is_there_in_both_languages(site: Path) -> None:
    found = {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html", "ru/404.html"}
    wanted = {built(name) for name in nav_pages()}
    assert found == wanted | {f"ru/{name}" for name in wanted}


def test_a_page_without_russian_is_shown_in_english_and_says_so(site: Path) -> None:
    english = {name for name in nav_pages()
               if ONLY_ENGLISH in (site / "ru" / built(name)).read_text(encoding="utf-8")}
    assert english == {name for name in nav_pages() if not has_russian(name)}
    assert not english & {"start.md", "account.md", "accounts.md", "report.md", "views.md", "marts.md",
                          "commands.md", "settings.md", "troubleshooting.md", "guides/README.md"}
    assert not any(ONLY_ENGLISH in path.read_text(encoding="utf-8") for path in site.glob("*.html"))


def test_links_lead_to_files_and_nothing_comes_from_a_network(site: Path) -> None:
    pages = [path for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(pages) > 100
    for page in pages:
        for tag, address in links(page):
            there = local_target(page, address)
            if there is None:
                assert tag == "a" or address.startswith("data:"), f"{page.name} loads {address}"
            else:
                assert there.is_file(), f"{page.relative_to(site)} → {address}"


@pytest.mark.parametrize("name", ["index.html", "deploy.html", "guides/metabase.html"])
def test_the_header_switches_to_the_same_page(site: Path, name: str) -> None:
    for page, other in ((site / name, site / "ru" / name), (site / "ru" / name, site / name)):
        language = "ru" if other.is_relative_to(site / "ru") else "en"
        found = set(re.findall(rf'href="([^"]*)" hreflang="{language}"', page.read_text(encoding="utf-8")))
        assert {local_target(page, address) for address in found} == {other.resolve()}
    assert '<html lang="ru"' in (site / "ru" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("folder", "word"), [
    ("", "quarantine"), ("", "материал_фасада"), ("ru", "карантин")])
def test_the_search_knows_words_of_both_languages(site: Path, folder: str, word: str) -> None:
    index = json.loads((site / folder / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert index["config"]["lang"] == ["en", "ru"]
    assert any(word in each["text"] for each in index["docs"])
    assert (site / folder / "search" / "search_index.js").is_file(), "the one that is read from file://"


def test_what_github_shows_is_shown_here(site: Path) -> None:
    """A block of code inside a numbered list, an anchor in Cyrillic, the line to the other language."""
    page = (site / "CONTRIBUTING.html").read_text(encoding="utf-8")
    listed = page[page.index('id="a-new-attribute"'):page.index('id="a-new-entity"')]
    assert listed.count("<ol") == 1 and listed.count('<div class="highlight">') >= 4
    assert 'id="коды-выхода"' in (site / "ru" / "commands.html").read_text(encoding="utf-8")
    assert ">По-русски</a></p>" not in (site / "views.html").read_text(encoding="utf-8")
    settings, dictionary = ((site / f"{name}.html").read_text(encoding="utf-8")
                            for name in ("settings", "dictionary"))
    assert "<code>AMOCRM_<wbr>REQUESTS_<wbr>PER_<wbr>SECOND</code>" in settings, "breaks in a table"
    assert 'id="what-was-tried"' in dictionary


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    """And an anchor that is not there, and a page that is not in the navigation."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert makefile.count("@$(MKDOCS) build --strict") == 2 and "--quiet --strict" not in makefile
    (tmp_path / "docs").mkdir()
    top = sorted(path.name for path in REPOSITORY.glob("*.md") if not path.name.startswith("README"))
    for name in (*top, "docs/README.md", "docs/lost.md"):
        (tmp_path / name).write_text("# Page\n\n", encoding="utf-8")
    (tmp_path / "docs" / "README.md").write_text(
        "# Home\n\n[a](gone.md) [b](../SECURITY.md#gone) [c](../SECURITY.md#page) [d](../Gone)\n",
        encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump({
        "INHERIT": str(REPOSITORY / "mkdocs.yml"), "hooks": [str(REPOSITORY / ".ci" / "site" / "hooks.py")],
        "theme": {"custom_dir": str(REPOSITORY / ".ci" / "site" / "theme")}, "nav": ["README.md", *top]}),
        encoding="utf-8")
    done = run_mkdocs(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    for name in ("'gone.md'", "'SECURITY.md#gone'", "'../Gone'", "lost.md"):
        assert name in done.stderr, done.stderr
    assert done.stderr.count("WARNING") == 4


@pytest.mark.parametrize(("name", "home"), [
    ("README.md", "docs/README.md"), ("README.ru.md", "docs/ru/README.md")])
def test_readme_leads_to_the_pages_and_stays_short(name: str, home: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert f"]({home})" in text and "`make site`" in text and text.count("\n") < 160


def test_no_page_asks_for_what_the_theme_would_load() -> None:
    """Diagrams of Mermaid: the theme fetches its program from the internet."""
    assert not [path for path in DOCS.rglob("*.md") if "```mermaid" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", [name for name in nav_pages() if not NO_LINE.match(name)])
def test_each_page_says_what_was_tried(name: str) -> None:
    english = DOCS / name
    for page in filter(Path.is_file, (english, DOCS / "ru" / name, english.parent / "ru" / english.name)):
        *_, last = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.M)
        assert last == ("What was tried" if page == english else "Что проверено"), page


def test_the_pages_from_the_code_are_current() -> None:
    assert OPTIONS.read_text(encoding="utf-8") == options_page(), "outdated: run make docs"
    for language, page in SETTINGS.items():
        assert page.read_text(encoding="utf-8") == settings_page(language), f"{page.name}: run make docs"
