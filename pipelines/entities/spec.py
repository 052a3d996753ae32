"""The dataclasses with which `entities/registry.py` declares what is mirrored, and the properties by which
the engine asks a declaration. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any

from models.base import AccountBase, Path

Record = dict[str, Any]


AccountInfo = Mapping[str, Any]


EMBEDDED = "_embedded"


UNKNOWN = object()
"""What a function of `Entity.derived` returns if the record does not say the value: the column stays as it
was."""


ACCOUNT_PATH = "account"
"""Path of the account's own record."""


class Phase(Enum):
    """When a sync reads an entity. The phases are in order: a later one needs rows that an earlier one
    loads."""

    ACCOUNT = "the account itself"
    DIRECTORIES = "lists that are read whole"
    PER_PARENT = "lists that exist once per row of a directory"
    INCREMENTAL = "lists of which only the changes are read"
    DETAILS = "records that other lists name, fetched one by one"


@dataclass(frozen=True, eq=False)
class PerParent:
    """A list that exists once per live row of another table (`model`). The list's path has `{}` for the value
    of that row's `parent_column`; `own_column` is the column of the entity's own table that holds the
    value."""

    model: type[AccountBase]
    own_column: str
    parent_column: str = "id"


@dataclass(frozen=True, eq=False)
class DetailOf(PerParent):
    """A record without a list endpoint, fetched one by one: one request per value of `parent_column`. A full
    sync fetches the record of every live row of `model`; without a `parent_column` no table has a row for
    each record, and only `due_sql` finds the values."""

    due_sql: str = field(kw_only=True)
    """Query that selects the values whose records may have changed since %(since)s (null: never read);
    {schema} stands for the account's schema."""


@dataclass(frozen=True, eq=False)
class Listing:
    """One list of the API. `constants`: columns whose values are given by the path, while the records may not
    hold them. `collection`: the key of the records in `_embedded`, if it is not the last part of the path
    (amocrm-api.md, section 0)."""

    path: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    collection: str = ""
    is_single_object: bool = False
    """True if the response is the record itself, not an envelope around a list (GET /account)."""
    per_parent: PerParent | None = None
    of_owner: str = ""
    """Path of the part of the list that belongs to one record; {} stands for that record's id."""
    nested_records: Callable[[Record], list[Any]] | None = None
    """Extracts the records from one element of the list; None: the element is the record."""
    host_attribute: str = ""
    """The attribute of the account's record that names the host of this list; empty: the account's own
    host."""
    declines: frozenset[int] = frozenset()
    """Statuses with which amoCRM documents that an account or a token does not have this list. After any
    other refusal the list has failed; empty: every account has it."""

    @property
    def embedded_key(self) -> str:
        """The key of the records in `_embedded`."""
        return self.collection or self.path.rsplit("/", 1)[-1]

    @property
    def is_detail(self) -> bool:
        """True if the API has no list: the records are fetched one by one."""
        return isinstance(self.per_parent, DetailOf)

    @property
    def is_in_account(self) -> bool:
        """True if the records are the account's record or a part of it, which every token may read."""
        return self.path == ACCOUNT_PATH


@dataclass(frozen=True, eq=False)
class EmbeddedEntity:
    """Objects of another listed entity that are embedded in a record. They are stored in that entity's table,
    unless its own list shows them too. `attributes`: those of the object that its table takes; `path`: where
    the object stands in the record; `constants`: columns of its table with a fixed value."""

    model: type[AccountBase]
    attributes: tuple[str, ...]
    path: Path = ()
    id_column: str = ""
    """The column of the record's table that holds the embedded object's id (schema.md, rule 2)."""
    constants: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Child:
    """A list inside a record that becomes rows of its own table. An absent list means unknown, an empty list
    means that there are no elements."""

    model: type[AccountBase]
    path: Path = ()
    embedded_entity: EmbeddedEntity | None = None
    """The entity of which the elements are embedded objects."""
    truncated_at: int = 0
    """Number of elements from which amoCRM may truncate the list (amocrm-api.md 6, 14): rows missing from a
    list of that length are kept. 0: never truncated."""
    read: Callable[[Record], list[Any] | None] | None = None
    """Instead of `path`: builds the elements from the record. Without `write`, the elements only repeat what
    a column holds."""
    write: Callable[[Record, list[Record]], None] | None = None
    """The inverse of `read`: writes the elements back into the record."""
    consumes: tuple[str, ...] = ()
    """The attributes of the record that `read` reads and `write` writes."""
    odd: Callable[[Record], Record] | None = None
    """Returns those of these attributes, or the elements in them, that `read` leaves out; `_extra` keeps
    them."""


@dataclass(frozen=True, eq=False)
class ReverseLink:
    """A link as shown by the record on its other side: a list in that record without a table of its own.
    Where the list disagrees with the link's table, a hint to re-read the link's owner is queued."""

    name: str
    """The key in `_embedded`, and also the path of the owner's list."""
    link: type[AccountBase]


@dataclass(frozen=True, eq=False)
class Incremental:
    """How to read only the changes of a list that is too long to read whole each time (amocrm-api.md 4.5).
    `column`: the change time."""

    column: str = "updated_at"
    needs_paid_filter: bool = False
    """True if the filter by change time needs the account's paid filter option; without the option amoCRM
    silently ignores the filter."""
    newest_first: bool = False
    """True if order[column] is documented in both directions."""
    append_only: bool = False
    """True if records never change once created."""
    has_filter: bool = True
    """False if the list has no filter by change time, nor by id."""


@dataclass(frozen=True, eq=False)
class Entity:
    """One thing that amoCRM lists. Its name is also the name of its table, its Dagster asset and its tests.
    Every default is the common case. The fields come in four groups: how the list is read, the parts of a
    record, functions on records, and SQL around a load. The engine asks the properties below; it does not
    combine fields."""

    model: type[AccountBase]
    group: str
    listings: tuple[Listing, ...]
    _: KW_ONLY

    # Reading

    limit: int = 250
    """Records per page."""
    with_: tuple[str, ...] = ()
    """Values of the API's parameter `with`: attributes that amoCRM includes only on request."""
    order_column: str = ""
    """The column by which order[…]=asc sorts, if the API documents one."""
    incremental: Incremental | None = None
    """How changes are read. None: the list is small and re-read whole each time."""
    is_read_first: bool = False
    """True of what people look at first, and of what its views name: the first sync reads it before all
    else."""
    tier: str = ""
    """Schedule that reads it: "moving" (every few minutes) or "directories" (hourly). Empty: "moving" if
    changes can be read without reading everything, else "directories"."""
    missing_feature: Callable[[AccountInfo], str] | None = None
    """Returns, given the account's record, the reason why this account cannot be asked for the list, or an
    empty string. The engine asks `unavailable_because`."""
    doubtful_feature: Callable[[AccountInfo], str] | None = None
    """Returns the reason why, by the account's record, this account does not seem to have the list. It is
    asked nevertheless, because a feature's state is what its list answers: with records it is read, else it
    is skipped with that reason."""
    limited_by_permissions: bool = False
    """True if amoCRM silently limits the list to what the token's user may see (amocrm-api.md 1.9)."""
    allow_mass_delete: bool = False
    """True if records leave this list in normal use, so that the mass-delete guard does not apply."""

    # Parts of a record

    children: tuple[Child, ...] = ()
    embedded_entities: tuple[EmbeddedEntity, ...] = ()
    """Objects of other entities that its records embed."""
    field_values: type[AccountBase] | None = None
    """The table of its custom field values."""
    field_entity_type: str = ""
    """`custom_fields.entity_type` of those fields, if it is not the entity's name."""
    reverse_links: tuple[ReverseLink, ...] = ()
    """Lists of its records that show links owned by other records."""
    concerns: tuple[str, ...] = ()
    """Embedded lists of the records that the record is about: if one of them has been erased, the record is
    dropped too (`normalize/suppression.py`)."""

    # Functions on records

    derived: Mapping[str, Callable[[Record], Any]] = field(default_factory=dict)
    """Column → function that computes its value from the record, for columns that no single attribute
    holds."""
    redundant: Mapping[Path, str] = field(default_factory=dict)
    """Path of an attribute → column of the same content. The attribute is dropped if the two agree, else kept
    in `_extra`."""
    keep_only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Attribute with a list of records of other entities → the attributes that identify them, which are kept.
    The rest is dropped: it is a copy of those records at the time of the read, and their own tables hold it
    up to date."""
    secret: tuple[str, ...] = ()
    """Secret attributes, which are never mirrored."""
    redact: Callable[[Record], Record] | None = None
    """Removes a secret from an attribute that is mirrored. There is no inverse."""
    prepare: Callable[[Record], Record] | None = None
    restore: Callable[[Record], Record] | None = None
    """`prepare` rewrites the record before it is normalized; `restore` is the inverse."""

    # SQL around a load

    before_upsert: tuple[str, ...] = ()
    """SQL that every load runs between stage and upsert, in its transaction, where the new rows (stage) can
    be compared with the previous ones (table). {schema}, {table}, {stage} stand for the quoted names,
    %(account)s for the account's name in the mirror, %(values)s for the bit of the custom field values in
    `_lists`."""
    skip_before_when: str = ""
    """SQL condition under which `before_upsert` has nothing to do for new records, so that they need no
    stage. {schema} and %(account)s as there; %(latest)s is the latest `incremental.column` among the records,
    in seconds since 1970 (0: unknown)."""
    after_upsert: tuple[str, ...] = ()
    """The same, run after the upsert of a batch that changed something. {schema} as above; the temporary
    table `touched` holds the keys of the owners whose children changed, as ROW(key)::text."""
    on_delete: tuple[str, ...] = ()
    """The same, run when rows are marked deleted. {schema} as above; {gone} stands for a table of their keys
    and `deleted_at`."""

    def __post_init__(self) -> None:
        reports_changes = self.phase in (Phase.INCREMENTAL, Phase.DETAILS)
        object.__setattr__(self, "tier", self.tier or ("moving" if reports_changes else "directories"))

    @property
    def name(self) -> str:
        return str(self.model.__tablename__)

    @property
    def description(self) -> str:
        return str(getattr(self.model.__table__, "comment", "") or "")

    @property
    def tables(self) -> set[str]:
        """Names of its own table and of the tables of its children and custom field values."""
        return {self.name, *(str(child.model.__tablename__) for child in self.children),
                *([str(self.field_values.__tablename__)] if self.field_values else [])}

    @property
    def fields_kind(self) -> str:
        """`custom_fields.entity_type` of its custom fields."""
        return self.field_entity_type or self.name

    @property
    def is_account(self) -> bool:
        """True of the account itself, whose record governs how all other entities are read."""
        return any(listing.is_in_account and listing.is_single_object for listing in self.listings)

    @property
    def phase(self) -> Phase:
        if self.has_details:
            return Phase.DETAILS
        if self.is_account:
            return Phase.ACCOUNT
        if self.incremental:
            return Phase.INCREMENTAL
        return Phase.PER_PARENT if any(each.per_parent for each in self.listings) else Phase.DIRECTORIES

    @property
    def has_details(self) -> bool:
        """True if records are fetched one by one that no list shows, or that the entity's list may lack."""
        return any(listing.is_detail for listing in self.listings)

    @property
    def is_append_only(self) -> bool:
        """True if its records never change once created."""
        return self.incremental is not None and self.incremental.append_only

    @property
    def is_readable_by_id(self) -> bool:
        """True if its records can be fetched by id: {path}/{id}, or filter[id] where amoCRM honours
        filters."""
        return self.incremental is not None and not self.incremental.append_only

    def unavailable_because(self, account_info: AccountInfo) -> str:
        """Returns the reason why the account cannot be asked for the list; an empty string if it can."""
        return self.missing_feature(account_info) if self.missing_feature else ""

    def doubtful_because(self, account_info: AccountInfo) -> str:
        """Returns the reason why the account does not seem to have the list; an empty string if it does."""
        return self.doubtful_feature(account_info) if self.doubtful_feature else ""


OWNER_KEY = "of/"
"""A hint's key with this prefix and a record's id concerns the part of the list that belongs to that record
(`Listing.of_owner`)."""


DRIVE_PATH = "/v1.0/"
"""Base path of the API of a list's own host, the file service (amocrm-api.md 3.22)."""
