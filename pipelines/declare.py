"""The words in which entities.py says what we mirror. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.base import AccountBase, Path

Record = dict[str, Any]
Facts = Mapping[str, Any]
EMBEDDED = "_embedded"


@dataclass(frozen=True, eq=False)
class Over:
    """A list that exists once per living row of another table: its path has `{}` for that row's `column`; `fixed_as` is the column of
    ours that holds it."""

    model: type[AccountBase]
    column: str = "id"
    fixed_as: str = ""
    sql: str = ""
    """Instead of the living rows: a query for the ids, with {schema} for the account's schema."""


@dataclass(frozen=True, eq=False)
class Listing:
    """One list of the API. `fixed` are the columns that its path says and its records may not; `collection` is the key of
    the records in `_embedded` where that is not the last part of the path (amocrm-api.md, section 0)."""

    path: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    collection: str = ""
    whole: bool = False
    """The answer is the record itself, not an envelope (GET /account)."""
    over: Over | None = None
    each: Callable[[Record], list[Any]] | None = None
    """The records inside each element of the list."""
    host: str = ""
    """Another host than the account's: the attribute of the account that names it."""
    query: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        return self.collection or self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, eq=False)
class Feed:
    """Objects of another listed entity met inside a record: kept where that entity's own list does not show them."""

    model: type[AccountBase]
    attributes: tuple[str, ...]
    path: Path = ()
    through: str = ""
    """The record's column that holds the embedded object's id (schema.md, rule 2)."""
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Child:
    """A list inside a record that becomes rows of its own table. An absent list means unknown, an empty one means empty."""

    model: type[AccountBase]
    path: Path = ()
    feed: Feed | None = None
    """What the elements tell of the entity that they point at."""
    cap: int = 0
    """From this many elements on the list may be truncated (amocrm-api.md 6, 14): nothing is removed on its word."""
    read: Callable[[Record], list[Any] | None] | None = None
    """Instead of `path`: the elements, made from the record. Without `write` they only repeat what a column holds."""
    write: Callable[[Record, list[Record]], None] | None = None
    consumes: tuple[str, ...] = ()
    """The attributes that `read` reads and `write` writes back."""


@dataclass(frozen=True, eq=False)
class Moving:
    """How a list that is too long to read whole tells what changed (amocrm-api.md 4.5)."""

    column: str = "updated_at"
    paid: bool = False
    """Its filter needs the account's paid filter option, and is silently ignored without it."""
    newest_first: bool = False
    """order[column] is documented, both ways."""
    immutable: bool = False
    """Its rows never change once they are there."""


@dataclass(frozen=True, eq=False)
class Entity:
    """One thing that amoCRM lists. Its name is its table's, its asset's and its tests'. Every default is the common case."""

    model: type[AccountBase]
    group: str
    listings: tuple[Listing, ...]
    limit: int = 250
    with_: tuple[str, ...] = ()
    order: str = ""
    """The column that order[…]=asc walks by, where the API documents one."""
    moving: Moving | None = None
    """None: small, re-read whole each time."""
    children: tuple[Child, ...] = ()
    feeds: tuple[Feed, ...] = ()
    values: type[AccountBase] | None = None
    """The table of its custom field values."""
    fields_of: str = ""
    """custom_fields.entity_type of those fields, where it is not the entity's name."""
    derived: Mapping[str, Callable[[Record], Any]] = field(default_factory=dict)
    """Columns that no single attribute holds."""
    repeats: Mapping[Path, str] = field(default_factory=dict)
    """Attributes that say once more what a column says: left out while they agree."""
    secret: tuple[str, ...] = ()
    """Attributes that are never mirrored."""
    prepare: Callable[[Record], Record] | None = None
    restore: Callable[[Record], Record] | None = None
    """A rewrite of the record before it is read, and its inverse."""
    unless: Callable[[Facts], str] | None = None
    """Given the account's record: why this account does not have the list, or an empty string."""
    before: tuple[str, ...] = ()
    """SQL that every landing runs between staging and upsert, in its transaction: {schema}, {table}, {stage} stand for the quoted names,
    %(values)s for the bit of the custom field values in `_lists`. What the stage tells beside what the table still holds."""
    may_empty: bool = False
    """Things leave this list in the normal course of work: that many left at once is no reason for disbelief."""

    @property
    def name(self) -> str:
        return str(self.model.__tablename__)

    @property
    def description(self) -> str:
        return str(getattr(self.model.__table__, "comment", "") or "")
