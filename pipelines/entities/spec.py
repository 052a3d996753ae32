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
    """Empty: no table has a row for each; only `sql` finds them."""
    fixed_as: str = ""
    sql: str = ""
    """Records that have no list and are asked for one by one: a query for those that may have changed since %(since)s (null: never read),
    with {schema} for the account's schema. A full sync asks for every living row's."""


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
class Side:
    """A link seen from its other side: a list of the record that is no table of its own. Where it disagrees with the link's table, the link's
    owner is read again."""

    name: str
    """The key in `_embedded`, and the path of the owner's list."""
    link: type[AccountBase]


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
    pointers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lists of records of other entities, and the attributes that say which ones. The rest is what those records were when they were
    looked at: their own tables say it, and go on saying it."""
    about: tuple[str, ...] = ()
    """Embedded lists of records that it is about: with one that is forgotten, it goes (forgotten.py)."""
    secret: tuple[str, ...] = ()
    """Attributes that are never mirrored."""
    veil: Callable[[Record], Record] | None = None
    """Takes a secret out of an attribute that is mirrored, for good."""
    prepare: Callable[[Record], Record] | None = None
    restore: Callable[[Record], Record] | None = None
    """A rewrite of the record before it is read, and its inverse."""
    unless: Callable[[Facts], str] | None = None
    """Given the account's record: why this account does not have the list, or an empty string."""
    before: tuple[str, ...] = ()
    """SQL that every landing runs between staging and upsert, in its transaction: {schema}, {table}, {stage} stand for the quoted names,
    %(account)s for the account's name here, %(values)s for the bit of the custom field values in `_lists`. What the stage tells beside what
    the table still holds."""
    silent_while: str = ""
    """SQL, a condition: while it holds, `before` has nothing to say about records that are new, and they need no stage. {schema}, %(account)s as
    there; %(latest)s is when the last of them happened, by `moving.column`, in seconds since 1970 (0: nobody knows)."""
    after: tuple[str, ...] = ()
    """The same, run after the upsert of a batch that changed something: {schema}; the temporary table `touched` holds the owners whose
    children changed, as ROW(key)::text."""
    gone: tuple[str, ...] = ()
    """The same, run where rows are marked deleted: {schema}, {gone} for a table of their keys and `deleted_at`."""
    sides: tuple[Side, ...] = ()
    by_rights: bool = False
    """The list is silently limited to what the token's user may see (amocrm-api.md 1.9)."""
    tier: str = ""
    """How often a schedule reads it: moving (every few minutes) or directories (hourly). Empty: moving where it tells what changed."""
    may_empty: bool = False
    """Things leave this list in the normal course of work: that many left at once is no reason for disbelief."""

    def __post_init__(self) -> None:
        told = self.moving or any(listing.over and listing.over.sql for listing in self.listings)
        object.__setattr__(self, "tier", self.tier or ("moving" if told else "directories"))

    @property
    def name(self) -> str:
        return str(self.model.__tablename__)

    @property
    def tables(self) -> set[str]:
        """Its own, and those of its children and values."""
        return {self.name, *(str(child.model.__tablename__) for child in self.children), *([str(self.values.__tablename__)] if self.values else [])}

    @property
    def by_id(self) -> bool:
        """A record of it can be asked for by its id: {path}/{id}, and filter[id] where filters are honoured."""
        return self.moving is not None and not self.moving.immutable

    @property
    def description(self) -> str:
        return str(getattr(self.model.__table__, "comment", "") or "")


DRIVE_PATH = "/v1.0/"
