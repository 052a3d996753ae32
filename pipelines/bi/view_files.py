"""Reads a view's file in sql/wide/ or sql/marts/: its query, its comment, and the comments of its columns.

The comment at the top of the file becomes the view's comment, a comment after an output column becomes that
column's, so the file and the database say the same. `{schema}` stands for the account's schema; the builder
binds the others: `{url}` (address of the account), `{account}` (its name here), `{lists}` (names of the
lists), `{stored_…}` (a step of sql/stored/: its query, or the table that holds its rows),
`{list_views}` (for each list the views that show its records).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from psycopg.sql import SQL, Composable, Composed, Identifier

SQL_FOLDER = Path(__file__).parent / "sql"
COLUMN_COMMENT = re.compile(r"(\w+)\"?,? -- (.+)$")


@dataclass(frozen=True)
class ViewFile:
    """A view's query and its comments, as its file has them."""

    name: str
    comment: str
    columns: dict[str, str]
    """Column → comment, for the columns that have a comment."""
    query: str

    @property
    def column_schema(self) -> list[tuple[str, str, str]]:
        """(name, "", comment) of each commented column. The type is left empty: only Postgres knows it."""
        return [(name, "", comment) for name, comment in self.columns.items()]

    @property
    def tables(self) -> set[str]:
        """Tables of the account's schema that the query reads."""
        own = set(re.findall(r"\{schema\}\.(\w+)", self.query))
        return own.union(*(view_file("stored", name).tables for name in self.steps))

    @property
    def steps(self) -> set[str]:
        """Steps of sql/stored/ that the query reads."""
        return set(re.findall(r"\{stored_(\w+)\}", self.query))

    def digest_input(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """What the view's definition follows from: the file, and those of `values` that its query names."""
        return (self, *(value for name, value in sorted(values.items()) if f"{{{name}}}" in self.query))

    def bind(self, schema: str, **others: Composable) -> Composed:
        """The query with the account's schema and the other placeholders filled in."""
        return SQL(self.query).format(schema=Identifier(schema), **others)


@cache
def view_file(folder: str, name: str) -> ViewFile:
    lines = (SQL_FOLDER / folder / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    top = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    body = [line for line in lines if not line.startswith("--")]
    columns = {found[1]: found[2] for line in body if (found := COLUMN_COMMENT.search(line))}
    return ViewFile(name, " ".join(top), columns,
                    "\n".join(line.partition(" -- ")[0].rstrip() for line in body).strip().rstrip(";"))


def stored_table(step: str) -> str:
    """Name of the table that holds a step's rows. Another query has another table."""
    digest = hashlib.sha256(view_file("stored", step).query.encode()).hexdigest()[:8]
    return f"stored_{step}_{digest}"


def file_names(folder: str) -> list[str]:
    """Names of the views that have a file in a folder, sorted."""
    return sorted(path.stem for path in (SQL_FOLDER / folder).glob("*.sql"))
