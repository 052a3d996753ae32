"""What we mirror, on one page. To add an entity: a model for its table, a line in ENTITIES, a migration. Nothing else.

An **entity** is a thing that amoCRM lists; the words of a declaration are explained in declare.py. Where an entity needs code, it is a
named function in a field of its declaration, defined above it. Section numbers are those of amocrm-api.md.
"""

from __future__ import annotations

from typing import Any

from models import account, activity, catalogs, crm, customers, integrations, links, reference
from models.base import AccountBase
from pipelines.entities import hint_rules as rules
from pipelines.entities.detail_queries import FILES, TALKS
from pipelines.entities.record_hooks import (
    customers_off,
    descriptions,
    field_options,
    first_id,
    hung_on,
    no_drive,
    no_periodicity,
    no_segments,
    our_address,
    price_with_minor_units,
    rights_rows,
    rounded_price,
    status_rights_rows,
    write_field_options,
)
from pipelines.entities.spec import EMBEDDED, Child, Entity, Feed, Listing, Moving, Over, Side
from pipelines.history import capture


def per_kind(template: str, kinds: tuple[str, ...], collection: str = "", **fixed: Any) -> tuple[Listing, ...]:
    """The same list for each kind of record: per_kind("{}/tags", ("leads", "contacts"))."""
    return tuple(Listing(template.format(kind), {"entity_type": kind} | fixed, collection) for kind in kinds)


KINDS = rules.KINDS


ACCOUNT_WITH = ("amojo_id", "amojo_rights", "users_groups", "task_types", "version", "entity_names", "datetime_settings",
                "drive_url", "is_api_filter_enabled", "invoices_settings", "uuid")


def tags(model: type[AccountBase], kind: str) -> Child:
    """The tags on every record of a kind, and what they are called."""
    return Child(model, (EMBEDDED, "tags"), Feed(reference.Tag, ("id", "name", "color"), fixed={"entity_type": kind}))


def embedded(model: type[AccountBase], name: str, cap: int = 0) -> Child:
    return Child(model, (EMBEDDED, name), cap=cap)


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
    Entity(integrations.Webhook, "wiring", (Listing("webhooks"),), veil=our_address),
    Entity(integrations.Widget, "wiring", (Listing("widgets"),), secret=("settings",)),
    Entity(integrations.WebsiteButton, "wiring", (Listing("website_buttons"),), with_=("scripts",)),
    Entity(integrations.ChatTemplate, "wiring", (Listing("chats/templates", collection="chat_templates"),), limit=50, with_=("reviews",)),
    Entity(integrations.Bot, "wiring", (Listing("bots", collection="items"),), with_=("favorite",)),
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
           before=capture.readings(crm.Lead, crm.LeadCustomFieldValue, capture.STATUS, capture.RESPONSIBLE), silent_while=capture.UNSEEDED,
           values=crm.LeadCustomFieldValue, feeds=(REASON, SOURCE), prepare=price_with_minor_units, restore=rounded_price,
           children=(tags(crm.LeadTag, "leads"), embedded(links.LeadContact, "contacts", cap=50), embedded(links.LeadCompany, "companies"),
                     embedded(links.LeadCatalogElement, "catalog_elements", cap=50))),
    Entity(crm.Contact, "crm", (Listing("contacts"),), order="id", moving=BY_CHANGE, with_=("catalog_elements", "social_profiles"),
           before=capture.readings(crm.Contact, crm.ContactCustomFieldValue, capture.RESPONSIBLE), silent_while=capture.UNSEEDED,
           gone=(rules.gone_owned("contacts"),),
           values=crm.ContactCustomFieldValue, by_rights=True, sides=(Side("leads", links.LeadContact), Side("customers", links.CustomerContact)),
           children=(tags(crm.ContactTag, "contacts"), embedded(links.ContactCompany, "companies"),
                     embedded(links.ContactCatalogElement, "catalog_elements", cap=50))),
    Entity(crm.Company, "crm", (Listing("companies"),), order="id", moving=BY_CHANGE, with_=("catalog_elements",),
           before=capture.readings(crm.Company, crm.CompanyCustomFieldValue, capture.RESPONSIBLE), silent_while=capture.UNSEEDED,
           gone=(rules.gone_owned("companies"),),
           values=crm.CompanyCustomFieldValue, by_rights=True,
           sides=(Side("leads", links.LeadCompany), Side("contacts", links.ContactCompany), Side("customers", links.CustomerCompany)),
           children=(tags(crm.CompanyTag, "companies"), embedded(links.CompanyCatalogElement, "catalog_elements", cap=50))),
    Entity(customers.Customer, "customers", (Listing("customers"),), moving=Moving(paid=True), unless=customers_off, by_rights=True,
           gone=(rules.gone_owned("customers"),),
           before=capture.readings(customers.Customer, customers.CustomerCustomFieldValue, capture.RESPONSIBLE), silent_while=capture.UNSEEDED,
           with_=("catalog_elements", "contacts", "companies"), values=customers.CustomerCustomFieldValue,
           children=(tags(customers.CustomerTag, "customers"), embedded(links.CustomerContact, "contacts", cap=50),
                     embedded(links.CustomerCompany, "companies"), embedded(links.CustomerSegment, "segments"),
                     embedded(links.CustomerCatalogElement, "catalog_elements", cap=50))),
    Entity(activity.Task, "activity", (Listing("tasks"),), order="id", moving=Moving(), by_rights=True,
           before=(rules.TASK_HINTS,), silent_while=f"NOT {rules.once_read('tasks')}", gone=(rules.GONE_TASK_HINTS,)),
    Entity(activity.Note, "activity", per_kind("{}/notes", KINDS), order="id", moving=Moving(newest_first=True), with_=("is_pinned",),
           by_rights=True),
    Entity(activity.Event, "activity", (Listing("events"),), limit=100, moving=Moving("created_at", immutable=True), by_rights=True,
           before=(rules.EVENT_HINTS, *capture.EVENTS), silent_while=f"{capture.UNSEEDED} AND {rules.OLD_NEWS}",
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
