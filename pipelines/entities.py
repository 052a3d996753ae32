"""What we mirror, on one page. To add an entity: a model for its table, a line in ENTITIES, a migration. Nothing else.

An **entity** is a thing that amoCRM lists; its name is its table's, its asset's and its tests'. Every default is the common case.
Where an entity needs code, it is a named function in a field of its declaration, defined right above it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from models import account, crm, links, reference
from models.base import AccountBase, Path

Record = dict[str, Any]
Context = Mapping[str, Any]

EMBEDDED = "_embedded"


@dataclass(frozen=True, eq=False)
class Listing:
    """One list of the API. `fixed` are the columns that its path says and its records may not; `collection` is the key of
    the records in `_embedded` where that is not the last part of the path (amocrm-api.md, section 0)."""

    path: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    collection: str = ""
    whole: bool = False
    """The answer is the record itself, not an envelope (GET /account)."""

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
    """order[column]=desc is documented."""


@dataclass(frozen=True, eq=False)
class Entity:
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
    derived: Mapping[str, Callable[[Record], Any]] = field(default_factory=dict)
    """Columns that no single attribute holds."""
    prepare: Callable[[Record], Record] | None = None
    restore: Callable[[Record], Record] | None = None
    """A rewrite of the record before it is read, and its inverse."""
    unless: Callable[[Context], str] | None = None
    """Given the account's record: why this account does not have the list, or an empty string."""

    @property
    def name(self) -> str:
        return str(self.model.__tablename__)

    @property
    def description(self) -> str:
        return str(getattr(self.model.__table__, "comment", "") or "")


def per_kind(template: str, kinds: tuple[str, ...], collection: str = "", **fixed: Any) -> tuple[Listing, ...]:
    """The same list for each kind of entity: per_kind("{}/tags", ("leads", "contacts"))."""
    return tuple(Listing(template.format(kind), {"entity_type": kind} | fixed, collection) for kind in kinds)


KINDS = ("leads", "contacts", "companies")

ACCOUNT_WITH = ("amojo_id", "amojo_rights", "users_groups", "task_types", "version", "entity_names", "datetime_settings",
                "drive_url", "is_api_filter_enabled", "invoices_settings", "uuid")


def rights_rows(record: Record) -> list[Any] | None:
    """The rights object {leads: {view…}, …, mail_access: bool} as one element per kind of entity (3.3)."""
    rights = record.get("rights")
    if not isinstance(rights, dict):
        return None
    return [{"entity_type": kind} | actions for kind, actions in rights.items() if isinstance(actions, dict)]


def status_rights_rows(record: Record) -> list[Any] | None:
    rights = record.get("rights")
    if not isinstance(rights, dict):
        return None
    return [right for right in rights.get("status_rights") or [] if isinstance(right, dict)]


def first_id(embedded: str, fallback: str) -> Callable[[Record], Any]:
    """The id of a user's first embedded group or role; `rights` names it too, but often as null (3.3)."""

    def read(record: Record) -> Any:
        inside = record.get(EMBEDDED)
        found = inside.get(embedded) if isinstance(inside, dict) else None
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return found[0].get("id")
        rights = record.get("rights")
        return rights.get(fallback) if isinstance(rights, dict) else None

    return read


def field_options(record: Record) -> list[Any] | None:
    """A field's `enums` and, for category fields, `nested` (3.8): one table holds both."""
    if "enums" not in record and "nested" not in record:
        return None
    enums, nested = record.get("enums") or [], record.get("nested") or []
    if isinstance(enums, dict):
        enums = list(enums.values())
    return [option | {"is_nested": is_nested} if isinstance(option, dict) else option
            for options, is_nested in ((enums, False), (nested, True)) for option in options]


def write_field_options(record: Record, options: list[Any]) -> None:
    for name, is_nested in (("enums", False), ("nested", True)):
        record[name] = [{key: value for key, value in option.items() if key != "is_nested"}
                        for option in options if option.get("is_nested") is is_nested]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def price_with_minor_units(record: Record) -> Record:
    """`price` becomes the exact one where the account has minor units (3.11); the rounded one stays where it differs."""
    exact = record.get("price_with_minor_units")
    if not _is_number(exact):
        return record
    rounded = {} if record.get("price") == exact else {"price_rounded": record.get("price")}
    return record | {"price": exact} | rounded


def rounded_price(record: Record) -> Record:
    exact = record.get("price_with_minor_units")
    return record | {"price": record.pop("price_rounded", exact)} if _is_number(exact) else record


def tags(model: type[AccountBase], kind: str) -> Child:
    """The tags on every record of a kind, and what they are called."""
    return Child(model, (EMBEDDED, "tags"), Feed(reference.Tag, ("id", "name", "color"), fixed={"entity_type": kind}))


ACCOUNT = Listing("account", whole=True)

ENTITIES: tuple[Entity, ...] = (
    Entity(account.Account, "account", (ACCOUNT,), with_=ACCOUNT_WITH),
    Entity(account.UserGroup, "account", (Listing("account", collection="users_groups"),), with_=ACCOUNT_WITH),
    Entity(account.TaskType, "account", (Listing("account", collection="task_types"),), with_=ACCOUNT_WITH),
    Entity(account.Role, "account", (Listing("roles"),), with_=("users",),
           children=(Child(account.RoleRight, read=rights_rows), Child(account.RoleStatusRight, read=status_rights_rows))),
    Entity(account.User, "account", (Listing("users"),), with_=("role", "group", "uuid", "amojo_id", "user_rank", "phone_number"),
           children=(Child(account.UserRight, read=rights_rows), Child(account.UserStatusRight, read=status_rights_rows)),
           derived={"group_id": first_id("groups", "group_id"), "role_id": first_id("roles", "role_id")}),
    Entity(reference.Pipeline, "reference", (Listing("leads/pipelines"),),
           children=(Child(reference.Status, (EMBEDDED, "statuses")),)),
    Entity(reference.LossReason, "reference", (Listing("leads/loss_reasons"),)),
    Entity(reference.Source, "reference", (Listing("sources"),)),
    Entity(reference.CustomFieldGroup, "reference", per_kind("{}/custom_fields/groups", KINDS, "custom_field_groups", catalog_id=0)),
    Entity(reference.CustomField, "reference", per_kind("{}/custom_fields", KINDS, catalog_id=0), limit=50, order="id",
           children=(Child(reference.CustomFieldEnum, read=field_options, write=write_field_options,
                           consumes=("enums", "nested")),
                     Child(reference.CustomFieldRequiredStatus, ("required_statuses",)),
                     Child(reference.CustomFieldHiddenStatus, ("hidden_statuses",)))),
    Entity(reference.Tag, "reference", per_kind("{}/tags", KINDS)),
    Entity(crm.Lead, "crm", (Listing("leads"),), order="id", moving=Moving(paid=True, newest_first=True),
           with_=("contacts", "loss_reason", "source_id", "source", "is_price_modified_by_robot"),
           values=crm.LeadCustomFieldValue,
           children=(tags(crm.LeadTag, "leads"),
                     Child(links.LeadContact, (EMBEDDED, "contacts"), cap=50),
                     Child(links.LeadCompany, (EMBEDDED, "companies"))),
           feeds=(Feed(reference.LossReason, ("id", "name", "sort", "created_at", "updated_at"), (EMBEDDED, "loss_reason"),
                       through="loss_reason_id"),
                  Feed(reference.Source, ("id", "name"), (EMBEDDED, "source"), through="source_id")),
           prepare=price_with_minor_units, restore=rounded_price),
    Entity(crm.Contact, "crm", (Listing("contacts"),), order="id", moving=Moving(paid=True, newest_first=True),
           values=crm.ContactCustomFieldValue,
           children=(tags(crm.ContactTag, "contacts"), Child(links.ContactCompany, (EMBEDDED, "companies")))),
    Entity(crm.Company, "crm", (Listing("companies"),), order="id", moving=Moving(paid=True, newest_first=True),
           values=crm.CompanyCustomFieldValue,
           children=(tags(crm.CompanyTag, "companies"),)),
)


def entity(name: str) -> Entity:
    """The entity of that name. Raises LookupError naming the ones there are."""
    for candidate in ENTITIES:
        if candidate.name == name:
            return candidate
    raise LookupError(f"there is no entity {name!r}; there are {', '.join(each.name for each in ENTITIES)}")
