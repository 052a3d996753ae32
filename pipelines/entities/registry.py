"""What is mirrored, on one page. To add an entity: a model for its table, a line in ENTITIES, a migration.
Nothing else.

An **entity** is a thing that amoCRM lists; `entities/spec.py` explains the fields of a declaration. Code that
an entity needs is a named function in a field of its declaration, defined in `entities/record_hooks.py`.
Section numbers are those of amocrm-api.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from models import account, activity, catalogs, crm, customers, integrations, links, reference
from models.base import AccountBase
from pipelines.cursors import after_first_read
from pipelines.entities import change_capture as capture
from pipelines.entities import hint_rules as rules
from pipelines.entities.detail_queries import DUE_FILES, DUE_TALKS
from pipelines.entities.record_hooks import (
    attached_records,
    field_options,
    first_embedded_id,
    nest_talk_contact,
    no_customer_stages,
    no_customers,
    no_file_service,
    no_segments,
    odd_field_options,
    redact_webhook_url,
    restore_rounded_price,
    restore_talk_contact,
    rights_elements,
    status_descriptions,
    status_rights_elements,
    use_exact_price,
    write_field_options,
)
from pipelines.entities.record_kinds import RECORD_LISTS
from pipelines.entities.spec import (
    ACCOUNT_PATH,
    EMBEDDED,
    Child,
    DetailOf,
    EmbeddedEntity,
    Entity,
    Incremental,
    Listing,
    PerParent,
    ReverseLink,
)


def per_kind(template: str, kinds: tuple[str, ...], collection: str = "",
             **constants: Any) -> tuple[Listing, ...]:
    """Returns the same list for each kind of record, e.g. per_kind("{}/tags", ("leads", "contacts"))."""
    return tuple(Listing(template.format(kind), {"entity_type": kind} | constants, collection,
                         declines=OF_CUSTOMERS if kind == "customers" else frozenset())
                 for kind in kinds)


NEEDS_RIGHTS = frozenset({403})
"""Of administrators only, or of users with access to catalogs, or with the file scope (1.9, 2.1, 3.22)."""


OF_CUSTOMERS = frozenset({402, 403, 404, 405, 422, 425, 426})
"""Customers may be off, out of the plan, or in the other mode (1.6, 3.15)."""


ACCOUNT_WITH = ("amojo_id", "amojo_rights", "users_groups", "task_types", "version", "entity_names",
                "datetime_settings", "drive_url", "is_api_filter_enabled", "invoices_settings", "uuid")


def tags(model: type[AccountBase], kind: str) -> Child:
    """Declares the tags of a kind of record as a child list; their names and colours go to the tags' own
    table."""
    return Child(model, (EMBEDDED, "tags"),
                 EmbeddedEntity(reference.Tag, ("id", "name", "color"), constants={"entity_type": kind}))


def embedded_list(model: type[AccountBase], name: str, truncated_at: int = 0) -> Child:
    return Child(model, (EMBEDDED, name), truncated_at=truncated_at)


PER_CATALOG = PerParent(catalogs.Catalog, "catalog_id")


ACCOUNT_LISTING = Listing(ACCOUNT_PATH, is_single_object=True)


LOSS_REASON = EmbeddedEntity(reference.LossReason, ("id", "name", "sort", "created_at", "updated_at"),
              (EMBEDDED, "loss_reason"), id_column="loss_reason_id")


LEAD_SOURCE = EmbeddedEntity(reference.Source, ("id", "name"), (EMBEDDED, "source"), id_column="source_id")


BY_UPDATED_AT = Incremental(needs_paid_filter=True, newest_first=True)


SEGMENT_FIELDS = Listing("customers/segments/custom_fields", {"entity_type": "segments", "catalog_id": 0},
                         declines=OF_CUSTOMERS)


TALKS_OF_EVENTS = Listing("talks/{}", is_single_object=True, declines=NEEDS_RIGHTS, per_parent=DetailOf(
    activity.Event, "talk_id", "", due_sql=DUE_TALKS))
"""Talks that events name. Not every account's list shows them (amocrm-api.md 3.23; 6, 41)."""


VALUE_TABLES = tuple(rules.ValueTable(kind, str(model.__tablename__), owner) for kind, model, owner in (
    ("leads", crm.LeadCustomFieldValue, "lead_id"), ("contacts", crm.ContactCustomFieldValue, "contact_id"),
    ("companies", crm.CompanyCustomFieldValue, "company_id"),
    ("customers", customers.CustomerCustomFieldValue, "customer_id"),
    ("segments", customers.SegmentCustomFieldValue, "segment_id"),
    ("catalogs", catalogs.CatalogElementCustomFieldValue, "catalog_element_id")))


ENTITIES: tuple[Entity, ...] = (
    Entity(account.Account, "account", (ACCOUNT_LISTING,), with_=ACCOUNT_WITH, is_read_first=True),
    Entity(account.UserGroup, "account", (Listing(ACCOUNT_PATH, collection="users_groups"),),
           with_=ACCOUNT_WITH, is_read_first=True),
    Entity(account.TaskType, "account", (Listing(ACCOUNT_PATH, collection="task_types"),),
           with_=ACCOUNT_WITH, is_read_first=True),
    Entity(account.Role, "account", (Listing("roles", declines=NEEDS_RIGHTS),), with_=("users",),
           is_read_first=True,
           children=(Child(account.RoleRight, read=rights_elements),
                     Child(account.RoleStatusRight, read=status_rights_elements))),
    Entity(account.User, "account", (Listing("users", declines=NEEDS_RIGHTS),),
           with_=("role", "group", "uuid", "amojo_id", "user_rank", "phone_number"), is_read_first=True,
           children=(Child(account.UserRight, read=rights_elements),
                     Child(account.UserStatusRight, read=status_rights_elements)),
           derived={"group_id": first_embedded_id("groups", "group_id"),
                    "role_id": first_embedded_id("roles", "role_id")}),
    Entity(reference.Pipeline, "reference", (Listing("leads/pipelines"),), is_read_first=True,
           children=(embedded_list(reference.Status, "statuses"),)),
    Entity(reference.StatusDescription, "reference", with_=("descriptions",),
           listings=(Listing("leads/pipelines/{}/statuses",
                             per_parent=PerParent(reference.Pipeline, "pipeline_id"),
                             nested_records=status_descriptions),)),
    Entity(reference.LossReason, "reference", (Listing("leads/loss_reasons",
                                                           declines=NEEDS_RIGHTS | {404, 405}),),
           is_read_first=True),
    Entity(reference.Source, "reference", (Listing("sources", declines=NEEDS_RIGHTS),), is_read_first=True),
    Entity(catalogs.Catalog, "reference", (Listing("catalogs", declines=NEEDS_RIGHTS),),
           limited_by_permissions=True, is_read_first=True),
    Entity(reference.CustomFieldGroup, "reference", (
        *per_kind("{}/custom_fields/groups", RECORD_LISTS, "custom_field_groups", catalog_id=0),
        Listing("catalogs/{}/custom_fields/groups", {"entity_type": "catalogs"}, "custom_field_groups",
                per_parent=PER_CATALOG, declines=NEEDS_RIGHTS | {404, 405}))),
    Entity(reference.CustomField, "reference", (
        *per_kind("{}/custom_fields", RECORD_LISTS, catalog_id=0), SEGMENT_FIELDS,
        Listing("catalogs/{}/custom_fields", {"entity_type": "catalogs"}, per_parent=PER_CATALOG,
                declines=NEEDS_RIGHTS)),
           limit=50, order_column="id", is_read_first=True,
           children=(Child(reference.CustomFieldEnum, read=field_options, write=write_field_options,
                           consumes=("enums", "nested"), odd=odd_field_options),
                     Child(reference.CustomFieldRequiredStatus, ("required_statuses",)),
                     Child(reference.CustomFieldHiddenStatus, ("hidden_statuses",))),
           after_upsert=(*map(rules.relabel_values, VALUE_TABLES),
                         *(rules.removed_option_hints(values) for values in VALUE_TABLES
                           if values.kind in RECORD_LISTS)),
           on_delete=tuple(map(rules.delete_field_values, VALUE_TABLES))),
    Entity(reference.Tag, "reference", per_kind("{}/tags", RECORD_LISTS), limited_by_permissions=True,
           is_read_first=True),
    Entity(activity.EventType, "reference", (Listing("events/types", collection="events_types"),)),
    Entity(customers.CustomerStatus, "customers", (Listing("customers/statuses", declines=OF_CUSTOMERS),),
           doubtful_feature=no_customer_stages),
    Entity(customers.Segment, "customers", (Listing("customers/segments", declines=OF_CUSTOMERS),),
           field_values=customers.SegmentCustomFieldValue, doubtful_feature=no_segments),
    Entity(integrations.Webhook, "integrations", (Listing("webhooks", declines=NEEDS_RIGHTS | {402}),),
           redact=redact_webhook_url),
    Entity(integrations.Widget, "integrations", (Listing("widgets"),), secret=("settings",)),
    Entity(integrations.WebsiteButton, "integrations", (Listing("website_buttons", declines=NEEDS_RIGHTS),),
           with_=("scripts",)),
    Entity(integrations.ChatTemplate, "integrations",
           (Listing("chats/templates", collection="chat_templates", declines=NEEDS_RIGHTS),),
           limit=50, with_=("reviews",)),
    Entity(integrations.Bot, "integrations",
           (Listing("bots", collection="items", declines=NEEDS_RIGHTS | {404, 405}),), with_=("favorite",)),
    Entity(activity.File, "activity", (Listing("files", host_attribute="drive_url", declines=NEEDS_RIGHTS),),
           missing_feature=no_file_service),
    Entity(activity.Unsorted, "activity", (Listing("leads/unsorted"),), allow_mass_delete=True, tier="moving",
           limited_by_permissions=True, concerns=("contacts",), on_delete=(rules.DELETED_UNSORTED_HINTS,),
           children=(embedded_list(activity.UnsortedLead, "leads"),
                     embedded_list(activity.UnsortedContact, "contacts"),
                     embedded_list(activity.UnsortedCompany, "companies"))),
    Entity(catalogs.CatalogElement, "crm", (Listing("catalogs/{}/elements", per_parent=PER_CATALOG,
                                                     declines=NEEDS_RIGHTS),),
           with_=("invoice_link", "supplier_field_values"),
           field_values=catalogs.CatalogElementCustomFieldValue, field_entity_type="catalogs",
           before_upsert=capture.capture_changes(
               catalogs.CatalogElement, catalogs.CatalogElementCustomFieldValue, field_kind="catalogs"),
           skip_before_when=capture.BEFORE_FIRST_BUILD, limited_by_permissions=True),
    Entity(customers.Transaction, "customers", (Listing("customers/transactions", declines=OF_CUSTOMERS),),
           doubtful_feature=no_customers, limited_by_permissions=True,
           before_upsert=(rules.PURCHASE_HINTS,), on_delete=(rules.DELETED_PURCHASE_HINTS,),
           redundant={(EMBEDDED, "customer", "id"): "customer_id"},
           children=(embedded_list(links.TransactionCatalogElement, "catalog_elements"),)),
    Entity(crm.Lead, "crm", (Listing("leads"),), order_column="id", incremental=BY_UPDATED_AT,
           is_read_first=True, on_delete=(rules.deleted_owner_hints("leads"),), limited_by_permissions=True,
           with_=("contacts", "catalog_elements", "loss_reason", "source_id", "source",
                  "is_price_modified_by_robot"),
           before_upsert=capture.capture_changes(crm.Lead, crm.LeadCustomFieldValue, capture.STATUS,
                                                 capture.RESPONSIBLE),
           skip_before_when=capture.BEFORE_FIRST_BUILD, field_values=crm.LeadCustomFieldValue,
           embedded_entities=(LOSS_REASON, LEAD_SOURCE), prepare=use_exact_price,
           restore=restore_rounded_price, children=(
               tags(crm.LeadTag, "leads"), embedded_list(links.LeadContact, "contacts", truncated_at=50),
               embedded_list(links.LeadCompany, "companies"),
               embedded_list(links.LeadCatalogElement, "catalog_elements", truncated_at=50))),
    Entity(crm.Contact, "crm", (Listing("contacts"),), order_column="id", incremental=BY_UPDATED_AT,
           is_read_first=True, with_=("catalog_elements", "social_profiles"),
           before_upsert=capture.capture_changes(crm.Contact, crm.ContactCustomFieldValue,
                                                 capture.RESPONSIBLE),
           skip_before_when=capture.BEFORE_FIRST_BUILD, on_delete=(rules.deleted_owner_hints("contacts"),),
           field_values=crm.ContactCustomFieldValue, limited_by_permissions=True,
           reverse_links=(ReverseLink("leads", links.LeadContact),
                          ReverseLink("customers", links.CustomerContact)),
           children=(tags(crm.ContactTag, "contacts"), embedded_list(links.ContactCompany, "companies"),
                     embedded_list(links.ContactCatalogElement, "catalog_elements", truncated_at=50))),
    Entity(crm.Company, "crm", (Listing("companies"),), order_column="id", incremental=BY_UPDATED_AT,
           is_read_first=True, with_=("catalog_elements",),
           before_upsert=capture.capture_changes(crm.Company, crm.CompanyCustomFieldValue,
                                                 capture.RESPONSIBLE),
           skip_before_when=capture.BEFORE_FIRST_BUILD, on_delete=(rules.deleted_owner_hints("companies"),),
           field_values=crm.CompanyCustomFieldValue, limited_by_permissions=True,
           reverse_links=(ReverseLink("leads", links.LeadCompany),
                          ReverseLink("contacts", links.ContactCompany),
                          ReverseLink("customers", links.CustomerCompany)),
           children=(tags(crm.CompanyTag, "companies"),
                     embedded_list(links.CompanyCatalogElement, "catalog_elements", truncated_at=50))),
    Entity(customers.Customer, "customers", (Listing("customers", declines=OF_CUSTOMERS),),
           incremental=Incremental(needs_paid_filter=True), doubtful_feature=no_customers,
           limited_by_permissions=True, on_delete=(rules.deleted_owner_hints("customers"),),
           before_upsert=capture.capture_changes(customers.Customer, customers.CustomerCustomFieldValue,
                                   capture.RESPONSIBLE),
           skip_before_when=capture.BEFORE_FIRST_BUILD,
           with_=("catalog_elements", "contacts", "companies"),
           field_values=customers.CustomerCustomFieldValue,
           children=(tags(customers.CustomerTag, "customers"),
                     embedded_list(links.CustomerContact, "contacts", truncated_at=50),
                     embedded_list(links.CustomerCompany, "companies"),
                     embedded_list(links.CustomerSegment, "segments"),
                     embedded_list(links.CustomerCatalogElement, "catalog_elements", truncated_at=50))),
    Entity(activity.Task, "activity", (Listing("tasks"),), order_column="id", incremental=Incremental(),
           limited_by_permissions=True, on_delete=(rules.DELETED_TASK_HINTS,),
           before_upsert=(rules.TASK_HINTS,
                          *capture.capture_changes(activity.Task, None, capture.RESPONSIBLE)),
           skip_before_when=f"{capture.BEFORE_FIRST_BUILD} AND NOT {after_first_read('tasks')}"),
    Entity(activity.Note, "activity", tuple(
        replace(listing, of_owner=f"{kind}/{{}}/notes")
        for kind, listing in zip(RECORD_LISTS, per_kind("{}/notes", RECORD_LISTS), strict=True)),
           order_column="id", incremental=Incremental(newest_first=True), with_=("is_pinned",),
           limited_by_permissions=True),
    Entity(activity.Event, "activity", (Listing("events"),),
           incremental=Incremental("created_at", append_only=True), limited_by_permissions=True,
           before_upsert=(rules.EVENT_HINTS, *capture.CAPTURE_EVENTS),
           skip_before_when=f"{capture.BEFORE_FIRST_BUILD} AND {rules.EVENTS_ARE_OLD}",
           prepare=nest_talk_contact, restore=restore_talk_contact,
           redundant={(EMBEDDED, "entity", "id"): "entity_id"}),
    Entity(activity.Talk, "activity", (Listing("talks", declines=NEEDS_RIGHTS | {404, 405}), TALKS_OF_EVENTS),
           incremental=Incremental(newest_first=True, has_filter=False), allow_mass_delete=True,
           limited_by_permissions=True),
    Entity(activity.FileLinks, "activity", missing_feature=no_file_service, allow_mass_delete=True,
           keep_only={"entities": ("entity_type", "id")},
           listings=(Listing("files/{}/links", collection="entities", is_single_object=True,
                             per_parent=DetailOf(activity.File, "file_uuid", "uuid", due_sql=DUE_FILES),
                             declines=NEEDS_RIGHTS),),
           children=(Child(links.LeadFile, read=attached_records("leads")),
                     Child(links.ContactFile, read=attached_records("contacts")),
                     Child(links.CompanyFile, read=attached_records("companies")),
                     Child(links.CustomerFile, read=attached_records("customers")))),
)


ACCOUNT_ENTITY = next(each for each in ENTITIES if each.is_account)


def entity_named(name: str) -> Entity:
    """Returns the entity of that name. Raises LookupError, listing the existing names."""
    for candidate in ENTITIES:
        if candidate.name == name:
            return candidate
    raise LookupError(f"there is no entity {name!r}; there are {', '.join(each.name for each in ENTITIES)}")


def entity_of(model: type[AccountBase]) -> Entity:
    """Returns the entity whose records become rows of the model's table."""
    return next(each for each in ENTITIES if each.model is model)


def names_in_tier(tier: str) -> list[str]:
    """Returns the names of the entities that the schedule of the tier reads."""
    return [each.name for each in ENTITIES if each.tier == tier]
