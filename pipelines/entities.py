"""What we mirror, on one page. To add an entity: a model for its table, a line in ENTITIES, a migration. Nothing else.

An **entity** is a thing that amoCRM lists; the words of a declaration are explained in declare.py. Where an entity needs code, it is a
named function in a field of its declaration, defined above it. Section numbers are those of amocrm-api.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from models import account, activity, catalogs, crm, customers, links, reference, wiring
from models.base import AccountBase
from pipelines import hint_rules as rules
from pipelines import observe
from pipelines.declare import EMBEDDED, Child, Entity, Facts, Feed, Listing, Moving, Over, Record, Side
from pipelines.wanted import FILES, TALKS


def per_kind(template: str, kinds: tuple[str, ...], collection: str = "", **fixed: Any) -> tuple[Listing, ...]:
    """The same list for each kind of record: per_kind("{}/tags", ("leads", "contacts"))."""
    return tuple(Listing(template.format(kind), {"entity_type": kind} | fixed, collection) for kind in kinds)


KINDS = rules.KINDS

OUR_ADDRESS = re.compile(r"(/amocrm/[^/]+/)[^/]+$")
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
    price = record.get("price")
    if price == exact:
        return record if type(price) is type(exact) else record | {"price": exact}
    return record | {"price": exact, "price_rounded": price}


def our_address(record: Record) -> Record:
    """Where amoCRM tells us of events is a secret, which nobody needs who reads tables."""
    destination = record.get("destination")
    return record | {"destination": OUR_ADDRESS.sub(r"\1…", destination)} if isinstance(destination, str) else record


def rounded_price(record: Record) -> Record:
    exact = record.get("price_with_minor_units")
    return record | {"price": record.pop("price_rounded", exact)} if _is_number(exact) else record


def tags(model: type[AccountBase], kind: str) -> Child:
    """The tags on every record of a kind, and what they are called."""
    return Child(model, (EMBEDDED, "tags"), Feed(reference.Tag, ("id", "name", "color"), fixed={"entity_type": kind}))


def embedded(model: type[AccountBase], name: str, cap: int = 0) -> Child:
    return Child(model, (EMBEDDED, name), cap=cap)


def customers_off(facts: Facts) -> str:
    """3.15: look at the mode first; the lists answer with any of half a dozen errors when the feature is off."""
    mode = facts.get("customers_mode")
    return f"customers are {mode} in this account" if mode in ("unavailable", "disabled") else ""


def no_segments(facts: Facts) -> str:
    return customers_off(facts) or ("" if facts.get("customers_mode") == "segments" else "customers are not in the mode with segments")


def no_periodicity(facts: Facts) -> str:
    return customers_off(facts) or ("customers have no stages in the mode with segments" if facts.get("customers_mode") == "segments" else "")


def no_drive(facts: Facts) -> str:
    return "" if facts.get("drive_url") else "the account names no file service"


def descriptions(status: Record) -> list[Any]:
    found = status.get("descriptions")
    return found if isinstance(found, list) else []


def hung_on(kind: str) -> Callable[[Record], list[Any] | None]:
    """The records of one kind that a file hangs on."""

    def read(record: Record) -> list[Any] | None:
        found = record.get("entities", "")
        if found is not None and not isinstance(found, list):
            return None
        return [each for each in found or [] if isinstance(each, dict) and each.get("entity_type") == kind]

    return read


CATALOGS = Over(catalogs.Catalog, fixed_as="catalog_id")
ACCOUNT = Listing("account", whole=True)
REASON = Feed(reference.LossReason, ("id", "name", "sort", "created_at", "updated_at"), (EMBEDDED, "loss_reason"), through="loss_reason_id")
SOURCE = Feed(reference.Source, ("id", "name"), (EMBEDDED, "source"), through="source_id")
BY_CHANGE = Moving(paid=True, newest_first=True)
SEGMENT_FIELDS = Listing("customers/segments/custom_fields", {"entity_type": "segments", "catalog_id": 0})

VALUES = tuple((kind, str(model.__tablename__), owner) for kind, model, owner in (
    ("leads", crm.LeadCustomFieldValue, "lead_id"), ("contacts", crm.ContactCustomFieldValue, "contact_id"),
    ("companies", crm.CompanyCustomFieldValue, "company_id"), ("customers", customers.CustomerCustomFieldValue, "customer_id"),
    ("segments", customers.SegmentCustomFieldValue, "segment_id"), ("catalogs", catalogs.CatalogElementCustomFieldValue, "catalog_element_id")))
HINTED_VALUES = tuple((kind, kind, values, owner) for kind, values, owner in VALUES if kind in KINDS)

ENTITIES: tuple[Entity, ...] = (
    Entity(account.Account, "account", (ACCOUNT,), with_=ACCOUNT_WITH),
    Entity(account.UserGroup, "account", (Listing("account", collection="users_groups"),), with_=ACCOUNT_WITH),
    Entity(account.TaskType, "account", (Listing("account", collection="task_types"),), with_=ACCOUNT_WITH),
    Entity(account.Role, "account", (Listing("roles"),), with_=("users",),
           children=(Child(account.RoleRight, read=rights_rows), Child(account.RoleStatusRight, read=status_rights_rows))),
    Entity(account.User, "account", (Listing("users"),), with_=("role", "group", "uuid", "amojo_id", "user_rank", "phone_number"),
           children=(Child(account.UserRight, read=rights_rows), Child(account.UserStatusRight, read=status_rights_rows)),
           derived={"group_id": first_id("groups", "group_id"), "role_id": first_id("roles", "role_id")}),
    Entity(reference.Pipeline, "reference", (Listing("leads/pipelines"),), children=(embedded(reference.Status, "statuses"),)),
    Entity(reference.StatusDescription, "reference", with_=("descriptions",),
           listings=(Listing("leads/pipelines/{}/statuses", over=Over(reference.Pipeline, fixed_as="pipeline_id"), each=descriptions),)),
    Entity(reference.LossReason, "reference", (Listing("leads/loss_reasons"),)),
    Entity(reference.Source, "reference", (Listing("sources"),)),
    Entity(catalogs.Catalog, "reference", (Listing("catalogs"),), by_rights=True),
    Entity(reference.CustomFieldGroup, "reference", (
        *per_kind("{}/custom_fields/groups", KINDS, "custom_field_groups", catalog_id=0),
        Listing("catalogs/{}/custom_fields/groups", {"entity_type": "catalogs"}, "custom_field_groups", over=CATALOGS))),
    Entity(reference.CustomField, "reference", (
        *per_kind("{}/custom_fields", KINDS, catalog_id=0), SEGMENT_FIELDS,
        Listing("catalogs/{}/custom_fields", {"entity_type": "catalogs"}, over=CATALOGS)), limit=50, order="id",
           children=(Child(reference.CustomFieldEnum, read=field_options, write=write_field_options, consumes=("enums", "nested")),
                     Child(reference.CustomFieldRequiredStatus, ("required_statuses",)),
                     Child(reference.CustomFieldHiddenStatus, ("hidden_statuses",))),
           after=tuple(rules.relabel(kind, values) for kind, values, _ in VALUES) + tuple(rules.option_hints(*each) for each in HINTED_VALUES),
           gone=tuple(rules.forget_values(kind, values) for kind, values, _ in VALUES)),
    Entity(reference.Tag, "reference", per_kind("{}/tags", KINDS), by_rights=True),
    Entity(activity.EventType, "reference", (Listing("events/types", collection="events_types"),)),
    Entity(customers.CustomerStatus, "customers", (Listing("customers/statuses"),), unless=no_periodicity),
    Entity(customers.Segment, "customers", (Listing("customers/segments"),), values=customers.SegmentCustomFieldValue, unless=no_segments),
    Entity(wiring.Webhook, "wiring", (Listing("webhooks"),), veil=our_address),
    Entity(wiring.Widget, "wiring", (Listing("widgets"),), secret=("settings",)),
    Entity(wiring.WebsiteButton, "wiring", (Listing("website_buttons"),), with_=("scripts",)),
    Entity(wiring.ChatTemplate, "wiring", (Listing("chats/templates", collection="chat_templates"),), limit=50, with_=("reviews",)),
    Entity(wiring.Bot, "wiring", (Listing("bots", collection="items"),), with_=("favorite",)),
    Entity(activity.File, "activity", (Listing("files", host="drive_url"),), unless=no_drive),
    Entity(activity.Unsorted, "activity", (Listing("leads/unsorted"),), may_empty=True, tier="moving", by_rights=True,
           about=("contacts",), gone=(rules.GONE_UNSORTED_HINTS,),
           children=(embedded(activity.UnsortedLead, "leads"), embedded(activity.UnsortedContact, "contacts"),
                     embedded(activity.UnsortedCompany, "companies"))),
    Entity(catalogs.CatalogElement, "crm", (Listing("catalogs/{}/elements", over=CATALOGS),), with_=("invoice_link", "supplier_field_values"),
           values=catalogs.CatalogElementCustomFieldValue, fields_of="catalogs", by_rights=True),
    Entity(customers.Transaction, "customers", (Listing("customers/transactions"),), unless=customers_off, by_rights=True,
           before=(rules.PURCHASE_HINTS,), gone=(rules.GONE_PURCHASE_HINTS,),
           repeats={(EMBEDDED, "customer", "id"): "customer_id"},
           children=(embedded(links.TransactionCatalogElement, "catalog_elements"),)),
    Entity(crm.Lead, "crm", (Listing("leads"),), order="id", moving=BY_CHANGE, gone=(rules.gone_owned("leads"),), by_rights=True,
           with_=("contacts", "catalog_elements", "loss_reason", "source_id", "source", "is_price_modified_by_robot"),
           before=observe.readings(crm.Lead, crm.LeadCustomFieldValue, observe.STATUS, observe.RESPONSIBLE), silent_while=observe.UNSEEDED,
           values=crm.LeadCustomFieldValue, feeds=(REASON, SOURCE), prepare=price_with_minor_units, restore=rounded_price,
           children=(tags(crm.LeadTag, "leads"), embedded(links.LeadContact, "contacts", cap=50), embedded(links.LeadCompany, "companies"),
                     embedded(links.LeadCatalogElement, "catalog_elements", cap=50))),
    Entity(crm.Contact, "crm", (Listing("contacts"),), order="id", moving=BY_CHANGE, with_=("catalog_elements", "social_profiles"),
           before=observe.readings(crm.Contact, crm.ContactCustomFieldValue, observe.RESPONSIBLE), silent_while=observe.UNSEEDED,
           gone=(rules.gone_owned("contacts"),),
           values=crm.ContactCustomFieldValue, by_rights=True, sides=(Side("leads", links.LeadContact), Side("customers", links.CustomerContact)),
           children=(tags(crm.ContactTag, "contacts"), embedded(links.ContactCompany, "companies"),
                     embedded(links.ContactCatalogElement, "catalog_elements", cap=50))),
    Entity(crm.Company, "crm", (Listing("companies"),), order="id", moving=BY_CHANGE, with_=("catalog_elements",),
           before=observe.readings(crm.Company, crm.CompanyCustomFieldValue, observe.RESPONSIBLE), silent_while=observe.UNSEEDED,
           gone=(rules.gone_owned("companies"),),
           values=crm.CompanyCustomFieldValue, by_rights=True,
           sides=(Side("leads", links.LeadCompany), Side("contacts", links.ContactCompany), Side("customers", links.CustomerCompany)),
           children=(tags(crm.CompanyTag, "companies"), embedded(links.CompanyCatalogElement, "catalog_elements", cap=50))),
    Entity(customers.Customer, "customers", (Listing("customers"),), moving=Moving(paid=True), unless=customers_off, by_rights=True,
           gone=(rules.gone_owned("customers"),),
           before=observe.readings(customers.Customer, customers.CustomerCustomFieldValue, observe.RESPONSIBLE), silent_while=observe.UNSEEDED,
           with_=("catalog_elements", "contacts", "companies"), values=customers.CustomerCustomFieldValue,
           children=(tags(customers.CustomerTag, "customers"), embedded(links.CustomerContact, "contacts", cap=50),
                     embedded(links.CustomerCompany, "companies"), embedded(links.CustomerSegment, "segments"),
                     embedded(links.CustomerCatalogElement, "catalog_elements", cap=50))),
    Entity(activity.Task, "activity", (Listing("tasks"),), order="id", moving=Moving(), by_rights=True,
           before=(rules.TASK_HINTS,), silent_while=f"NOT {rules.once_read('tasks')}", gone=(rules.GONE_TASK_HINTS,)),
    Entity(activity.Note, "activity", per_kind("{}/notes", KINDS), order="id", moving=Moving(newest_first=True), with_=("is_pinned",),
           by_rights=True),
    Entity(activity.Event, "activity", (Listing("events"),), limit=100, moving=Moving("created_at", immutable=True), by_rights=True,
           before=(rules.EVENT_HINTS, *observe.EVENTS), silent_while=f"{observe.UNSEEDED} AND {rules.OLD_NEWS}",
           repeats={(EMBEDDED, "entity", "id"): "entity_id"}),
    Entity(activity.Talk, "activity", (Listing("talks/{}", whole=True, over=Over(activity.Event, "", "talk_id", TALKS)),), may_empty=True),
    Entity(activity.FileLinks, "activity", unless=no_drive, may_empty=True, pointers={"entities": ("entity_type", "id")},
           listings=(Listing("files/{}/links", collection="entities", whole=True, over=Over(activity.File, "uuid", "file_uuid", FILES)),),
           children=(Child(links.LeadFile, read=hung_on("leads")), Child(links.ContactFile, read=hung_on("contacts")),
                     Child(links.CompanyFile, read=hung_on("companies")), Child(links.CustomerFile, read=hung_on("customers")))),
)


def entity(name: str) -> Entity:
    """The entity of that name. Raises LookupError naming the ones there are."""
    for candidate in ENTITIES:
        if candidate.name == name:
            return candidate
    raise LookupError(f"there is no entity {name!r}; there are {', '.join(each.name for each in ENTITIES)}")


def names_of(tier: str) -> list[str]:
    """The entities that the schedule of that tier reads."""
    return [each.name for each in ENTITIES if each.tier == tier]
