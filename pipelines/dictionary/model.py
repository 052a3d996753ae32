"""Dataclasses of the data dictionary. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

TABLE, VIEW = "table", "view"


@dataclass(frozen=True)
class Reference:
    """A reference to a column of another table. One that is not enforced may name a record that is not in the
    mirror, for example a deleted user."""

    table: str
    column: str
    is_enforced: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table or view. `origin` is the API attribute that it holds, or what else fills it."""

    name: str
    type: str
    comment: str
    is_nullable: bool = True
    is_key: bool = False
    origin: str = ""
    refers: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Relation:
    """A table or a view. `rows` and `live_rows` are counts of rows, `live_rows` of those that are not
    deleted; None if not counted."""

    name: str
    kind: str
    group: str
    comment: str
    columns: tuple[Column, ...]
    owner: str = ""
    """The parent table; deleting a row there deletes its rows here."""
    sources: tuple[str, ...] = ()
    """The API lists that fill it."""
    schema: str = ""
    rows: int | None = None
    live_rows: int | None = None

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def anchor(self) -> str:
        """Anchor in the HTML page and in Markdown: the name, for a BI view with the prefix "bi."."""
        return f"bi.{self.name}" if self.group == "bi" else self.name


@dataclass(frozen=True)
class Group:
    """A chapter of the dictionary, grouped like amoCRM's documentation."""

    name: str
    title: str


@dataclass(frozen=True)
class CustomField:
    """A custom field of the account. `filled` of `rows` records that are not deleted have a value."""

    entity_type: str
    heading: str
    """Kind of record, as a heading: "leads", or the name of the list."""
    id: int
    name: str
    type: str
    code: str
    options: tuple[str, ...]
    is_live: bool
    filled: int
    rows: int
    columns: tuple[str, ...] = ()
    """Its columns in the BI views, as view.column."""

    @property
    def share(self) -> float:
        return self.filled / self.rows if self.rows else 0.0

    @property
    def percent(self) -> str:
        """`share` as text. Never "0 %" while a record has a value, never "100 %" while one has none."""
        if 0 < self.share < 0.005:
            return "< 1 %"
        return "> 99 %" if 0.995 <= self.share < 1 else f"{self.share:.0%}".replace("%", " %")


@dataclass(frozen=True)
class Dictionary:
    """The whole data dictionary. `has_account` is False if it was made from the models alone."""

    title: str
    subtitle: str
    groups: tuple[Group, ...]
    relations: tuple[Relation, ...]
    fields: tuple[CustomField, ...] = ()
    has_account: bool = False
    language: str = "en"
    notes: tuple[str, ...] = field(default=())

    def relations_in(self, group: Group) -> list[Relation]:
        """The tables and views of a chapter."""
        return [relation for relation in self.relations if relation.group == group.name]

    def referring_columns(self, table: str) -> list[tuple[Relation, Column]]:
        """The columns of other tables that refer to a table."""
        return [(relation, column) for relation in self.relations for column in relation.columns
                for reference in column.refers if reference.table == table and relation.name != table]

    def children_of(self, owner: str) -> list[Relation]:
        """The child tables of a table."""
        return [relation for relation in self.relations if relation.owner == owner]
