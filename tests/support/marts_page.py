"""`python -m tests.support.marts_page`: rewrites the tables of docs/marts.md and docs/ru/marts.md from the
SQL files of the marts. The text between them stays."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.bi.view_files import file_names, view_file
from pipelines.schema.texts import translate
from tests.support.commands import REPOSITORY

PAGES = {"en": REPOSITORY / "docs" / "marts.md", "ru": REPOSITORY / "docs" / "ru" / "marts.md"}
"""Language → page."""
HEADS = {"en": "column", "ru": "столбец"}


def column_table(name: str, language: str = "en") -> str:
    return "\n".join([f"| {HEADS[language]} | |", "|---|---|",
                      *(f"| `{column}` | {translate(words, language)} |"
                        for column, words in view_file("marts", name).columns.items())])


def main() -> None:
    for language, path in PAGES.items():
        _rewrite(path, language)


def _rewrite(path: Path, language: str) -> None:
    page = path.read_text(encoding="utf-8")
    for name in file_names("marts"):
        begin = page.index(f"\n## {name}\n")
        end = page.find("\n## ", begin + 5)
        part = page[begin:end if end > 0 else len(page)]
        before, _, after = re.sub(rf"\| {HEADS[language]} \| \|\n(\|.*\n)+", "@", part).partition("@")
        head, rest = before.split("\n\n", 2)[0], before.split("\n\n", 2)[2]
        comment = translate(view_file("marts", name).comment, language)
        page = page.replace(part, f"{head}\n\n{comment}\n\n{rest}{column_table(name, language)}\n{after}")
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
