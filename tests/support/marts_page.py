"""`python -m tests.support.marts_page`: rewrites the tables of docs/marts.md from the SQL files of the marts.
The text between them stays."""

from __future__ import annotations

import re

from pipelines.bi.view_files import file_names, view_file
from tests.support.commands import REPOSITORY

PAGE = REPOSITORY / "docs" / "marts.md"


def column_table(name: str) -> str:
    return "\n".join(["| column | |", "|---|---|",
                      *(f"| `{column}` | {words} |"
                        for column, words in view_file("marts", name).columns.items())])


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in file_names("marts"):
        begin = page.index(f"\n## {name}\n")
        end = page.find("\n## ", begin + 5)
        part = page[begin:end if end > 0 else len(page)]
        before, _, after = re.sub(r"\| column \| \|\n(\|.*\n)+", "@", part).partition("@")
        head, rest = before.split("\n\n", 2)[0], before.split("\n\n", 2)[2]
        comment = view_file("marts", name).comment
        page = page.replace(part, f"{head}\n\n{comment}\n\n{rest}{column_table(name)}\n{after}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
