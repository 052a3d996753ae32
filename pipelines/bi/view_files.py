"""A view's file in sql/wide/ or sql/marts/ → its query, its comment, and the comments of its columns.

The comment at the top is the view's, a comment behind an output column is that column's: what a reader of the file sees is what a reader of the
database sees. `{schema}` stands for the account's schema, and other braces for what the caller binds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from psycopg.sql import SQL, Composable, Composed, Identifier

FILES = Path(__file__).parent / "sql"
COLUMN = re.compile(r"(\w+)\"?,? -- (.+)$")


@dataclass(frozen=True)
class ViewFile:
    name: str
    comment: str
    columns: dict[str, str]
    """Name → comment, of the columns that have one."""
    query: str

    @property
    def described(self) -> list[tuple[str, str, str]]:
        """Name, type and comment of each column; the type is Postgres' affair."""
        return [(name, "", comment) for name, comment in self.columns.items()]

    @property
    def tables(self) -> set[str]:
        return set(re.findall(r"\{schema\}\.(\w+)", self.query))

    def bound(self, schema: str, **others: Composable) -> Composed:
        return SQL(self.query).format(schema=Identifier(schema), **others)


@cache
def view_file(folder: str, name: str) -> ViewFile:
    lines = (FILES / folder / f"{name}.sql").read_text().splitlines()
    top = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    body = [line for line in lines if not line.startswith("--")]
    columns = {found[1]: found[2] for line in body if (found := COLUMN.search(line))}
    return ViewFile(name, " ".join(top), columns, "\n".join(line.partition(" -- ")[0].rstrip() for line in body).strip().rstrip(";"))


def names_in(folder: str) -> list[str]:
    return sorted(path.stem for path in (FILES / folder).glob("*.sql"))
