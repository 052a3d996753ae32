"""Hooks of mkdocs: docs/ is written for GitHub, and read there as well; this makes the site of it.

- A language is a build. Of a page `a/b.md`, the Russian one is `ru/a/b.md` or `a/ru/b.md`; the Russian site
  shows it in the same place, and where there is none, the English one with a line that says so.
- CONTRIBUTING.md and other pages at the top of the repository are pages of the site, too. Files that pages
  link to (`deploy/Caddyfile`) are copied into its folder `files`.
- Links, anchors and lists are GitHub's; mkdocs' own rules for them differ.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "THIRD-PARTY-LICENSES.md")
"""Pages of the site from the top of the repository."""
HOMES = {"README.md": "docs/README.md", "README.ru.md": "docs/ru/README.md"}
"""Pages of the repository → what the site has instead."""
TRIED = """
## What was tried

The command writes this page from the models; a test compares both. That each column holds what is said,
others do.
"""
"""The last section of the one page whose file the program writes as it does for every account."""
LANGUAGES = {"en": "English", "ru": "По-русски"}
SWITCH = re.compile(r"^\[(По-русски|In English)\]\([^)]*\)\n+", re.M)
"""The line at a page's top that links to the other language: the site's header has that link."""
ONLY_ENGLISH = '!!! note ""\n    Этой страницы по-русски ещё нет: ниже английская.\n\n'
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
HEADING = re.compile(r"^#+ (.+)$", re.M)
FENCE = re.compile(r" *(```+|~~~+)")
ITEM = re.compile(r"( *)([-*+]|\d+[.)])( +)(?=\S)")
HEAD_LINK = re.compile(r'<link rel="alternate" href="#\w\w:"[^>]*>\s*')
"""For search engines. The theme would read a sitemap for each, which a browser refuses from a disk."""
CELL = re.compile(r"<td>.*?</td>", re.S)
LONG_NAME = re.compile(r"(?<=<code>)\w{16,}(?=</code>)")
"""In a table, where a name that does not break takes the room of the text."""
TABLE_RULE = re.compile(r" *\|( *:?-+:? *\|)+ *$")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.mdx_configs.setdefault("toc", {})["slugify"] = github_anchor
    if language(config) == "ru":
        config.nav = russian_nav(config.nav, config)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Leaves the pages of this build's language, in the places of the English ones, and adds those from the
    top of the repository."""
    for file in list(files.documentation_pages()):
        english = english_name(file.src_uri)
        if file.src_uri != shown_name(english, config):
            files.remove(file)
        elif english != file.src_uri:
            file.dest_uri = File(english, config.docs_dir, config.site_dir, False).dest_uri
    for name in TOP_PAGES:
        text = (repository(config) / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    for path in sorted(set(linked_files(files, config))):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(repository(config) / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    text = SWITCH.sub("", markdown, count=1)
    if language(config) == "ru" and english_name(page.file.src_uri) == page.file.src_uri:
        title, _, rest = text.partition("\n")
        text = f"{title}\n\n{ONLY_ENGLISH}{rest}"
    if page.file.src_uri == "dictionary.md":
        text += TRIED
    return indent_lists(relink(text, page.file, config))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return CELL.sub(lambda cell: LONG_NAME.sub(lambda name: name[0].replace("_", "_<wbr>"), cell[0]), html)


def on_page_context(context: Any, page: Page, config: MkDocsConfig, nav: Any) -> Any:
    """The header's links between the languages. mkdocs would shorten an address that leaves the site."""
    config.extra["alternate"] = [{"name": name, "lang": each, "link": f"#{each}:"}
                                 for each, name in LANGUAGES.items()]
    return context


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Leads these links to this page in the other language: it is in the same place there."""
    output = HEAD_LINK.sub("", output)
    here, folder = page.file.dest_uri, posixpath.dirname(page.file.dest_uri) or "."
    to_other = posixpath.relpath({"en": "ru", "ru": ".."}[language(config)], folder)
    for each in LANGUAGES:
        target = posixpath.relpath(here, folder)
        if each != language(config):
            target = posixpath.join(to_other, here)
        output = output.replace(f'href="#{each}:"', f'href="{target}"')
    return output


# Languages


def language(config: MkDocsConfig) -> str:
    return str(config.theme["language"])


def repository(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent


def english_name(name: str) -> str:
    """The name of the English page that this one translates, or its own."""
    return "/".join(part for part in name.split("/") if part != "ru")


def shown_name(english: str, config: MkDocsConfig) -> str:
    """The name of the page that this build shows for an English one."""
    folder, name = posixpath.split(english)
    if language(config) == "ru":
        for candidate in (posixpath.join("ru", english), posixpath.join(folder, "ru", name)):
            if (Path(config.docs_dir) / candidate).is_file():
                return candidate
    return english


def russian_nav(nav: Any, config: MkDocsConfig) -> Any:
    """The navigation with Russian pages where there are, and the Russian names of its sections."""
    if isinstance(nav, str):
        return shown_name(nav, config)
    if isinstance(nav, dict):
        return {config.extra["sections"][title]: russian_nav(below, config) for title, below in nav.items()}
    return [russian_nav(each, config) for each in nav]


# Links


def source_path(file: File, config: MkDocsConfig) -> str:
    """Where a page is in the repository."""
    return file.src_uri if file.src_uri in TOP_PAGES else f"docs/{file.src_uri}"


def site_name(path: str, config: MkDocsConfig) -> str | None:
    """The name in the site of a file of the repository; None of a folder, and of what does not exist."""
    path = HOMES.get(path, path)
    inside = path.removeprefix("docs/") if path.startswith("docs/") else None
    if inside is not None and inside.endswith(".md"):
        return shown_name(english_name(inside), config)
    if inside is not None or path in TOP_PAGES:
        return inside or path
    return f"files/{path}" if (repository(config) / path).is_file() else None


def target_path(link: str, file: File, config: MkDocsConfig) -> str:
    """The file of the repository that a link names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source_path(file, config)), unquote(link)))


def relink(text: str, file: File, config: MkDocsConfig) -> str:
    """Links of the repository become links of the site. One that leads nowhere stays, and the build says so.
    Of one that leads to a translation, the anchor goes if that page has no such heading."""
    def changed(found: re.Match[str]) -> str:
        path = target_path(found[1], file, config)
        name = site_name(path, config)
        if name is None:
            return found[0]
        anchor = found[2] or ""
        if name != path.removeprefix("docs/") and anchor and anchor[1:] not in anchors(name, config):
            anchor = ""
        return posixpath.relpath(name, posixpath.dirname(file.src_uri) or ".") + anchor
    return LINK.sub(changed, text)


def anchors(name: str, config: MkDocsConfig) -> set[str]:
    """The anchors of the headings of a page in docs/."""
    page = Path(config.docs_dir) / name
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return {github_anchor(heading, "-") for heading in HEADING.findall(text)}


def linked_files(files: Files, config: MkDocsConfig) -> Iterator[str]:
    """The files outside docs/ that pages link to."""
    for file in files.documentation_pages():
        for link, _ in LINK.findall(file.content_string):
            path = target_path(link, file, config)
            if (site_name(path, config) or "").startswith("files/"):
                yield path


def github_anchor(heading: str, separator: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", separator)


# Lists


def indent_lists(text: str) -> str:
    """Indents what belongs to an item of a list by four spaces a level, and puts an empty line before a list
    or a table that follows a paragraph: Markdown here needs that, GitHub's does not."""
    lines: list[str] = []
    contents: list[int] = []
    fence, shift = "", 0
    source = text.splitlines()
    for number, line in enumerate(source):
        begins = FENCE.match(line)
        if fence:
            lines.append(" " * shift + line if shift > 0 and line else line)
            fence = "" if line.strip() == fence else fence
            continue
        if not line.strip():
            lines.append("")
            continue
        indent = len(line) - len(line.lstrip())
        while contents and indent < contents[-1]:
            contents.pop()
        base = contents[-1] if contents else 0
        level, item = len(contents), ITEM.match(line) if indent - base < 4 else None
        shift = 4 * level - base
        is_table = line.lstrip().startswith("|") and TABLE_RULE.match("".join(source[number + 1:number + 2]))
        if lines and lines[-1] and (is_table or item and not level and not in_list(lines)):
            lines.append("")
        lines.append(" " * (4 * level + indent - base) + line.lstrip())
        if item:
            contents.append(len(item[0]))
        if begins:
            fence = begins[1]
    return "\n".join(lines) + "\n"


def in_list(lines: list[str]) -> bool:
    """Whether the last paragraph is of a list."""
    for line in reversed(lines):
        if not line:
            return False
        if ITEM.match(line):
            return True
    return False
