"""The words that a dictionary is made of. Nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass, field

TABLE, VIEW = "table", "view"


@dataclass(frozen=True)
class Reference:
    """What a column points at. One that is not enforced may name something that is not here: a user who left, say."""

    table: str
    column: str
    is_enforced: bool = False


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    comment: str
    is_nullable: bool = True
    is_key: bool = False
    origin: str = ""
    """The attribute of the API that it holds, or who else makes it."""
    refers: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Relation:
    """A table or a view. `anchor` is its name, with the schema's ending before it where it is a view for people."""

    name: str
    kind: str
    group: str
    comment: str
    columns: tuple[Column, ...]
    owner: str = ""
    """The table that it is a child of: its rows go with their parent's."""
    sources: tuple[str, ...] = ()
    """The lists of the API that fill it."""
    schema: str = ""
    rows: int | None = None
    living: int | None = None

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def anchor(self) -> str:
        return f"bi.{self.name}" if self.group == "bi" else self.name


@dataclass(frozen=True)
class Group:
    """A chapter, as amoCRM's documentation groups things."""

    name: str
    title: str


@dataclass(frozen=True)
class CustomField:
    """A field of the account's own. `filled` of `rows` living records have it."""

    entity_type: str
    place: str
    """The kind of record as a heading: leads, or the list's name."""
    id: int
    name: str
    type: str
    code: str
    options: tuple[str, ...]
    is_live: bool
    filled: int
    rows: int
    columns: tuple[str, ...] = ()
    """Its columns in the views for people."""

    @property
    def share(self) -> float:
        return self.filled / self.rows if self.rows else 0.0

    @property
    def percent(self) -> str:
        """Nothing that is there is told as 0 %, nothing that lacks as 100 %."""
        if 0 < self.share < 0.005:
            return "< 1 %"
        return "> 99 %" if 0.995 <= self.share < 1 else f"{self.share:.0%}".replace("%", " %")


@dataclass(frozen=True)
class Dictionary:
    title: str
    subtitle: str
    groups: tuple[Group, ...]
    relations: tuple[Relation, ...]
    fields: tuple[CustomField, ...] = ()
    has_account: bool = False
    notes: tuple[str, ...] = field(default=())

    def of(self, group: Group) -> list[Relation]:
        return [relation for relation in self.relations if relation.group == group.name]

    def pointing_at(self, table: str) -> list[tuple[Relation, Column]]:
        """The columns of others that refer to a table."""
        return [(relation, column) for relation in self.relations for column in relation.columns
                for reference in column.refers if reference.table == table and relation.name != table]

    def parts(self, owner: str) -> list[Relation]:
        """The tables of a record's children."""
        return [relation for relation in self.relations if relation.owner == owner]
