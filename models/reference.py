"""Reference data: pipelines and stages, loss reasons, sources, custom fields with their options, tags
(amocrm-api.md 3.5 to 3.8, 3.10)."""

from __future__ import annotations

import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKeyConstraint, Text
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from models.base import (
    AccountBase,
    AlsoEmbedded,
    DateTime,
    EntityTable,
    Extra,
    Json,
    flag,
    integer,
    json,
    key,
    local_time,
    owner,
    text,
    timestamp,
)


class Pipeline(EntityTable, AccountBase):
    __tablename__ = "pipelines"
    __table_args__ = {"comment": "Sales pipelines (воронки), archived ones included"}

    id: Mapped[int] = key("Pipeline id")
    name: Mapped[str | None] = text("Name of the pipeline")
    sort: Mapped[int | None] = integer("Order on the screen")
    is_main: Mapped[bool | None] = flag("The main pipeline")
    is_unsorted_on: Mapped[bool | None] = flag("Takes incoming leads")
    is_archive: Mapped[bool | None] = flag("Archived")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class Status(EntityTable, AccountBase):
    __tablename__ = "statuses"
    __table_args__ = {
        "comment": "Stages of pipelines (этапы). 142 (won) and 143 (lost) exist in every "
        "pipeline: join by both columns"}

    pipeline_id: Mapped[int] = owner("pipelines.id", "Pipeline", path=("pipeline_id",))
    id: Mapped[int] = key("Stage id; 142 won and 143 lost in every pipeline")
    name: Mapped[str | None] = text("Name of the stage")
    sort: Mapped[int | None] = integer("Order in the pipeline")
    is_editable: Mapped[bool | None] = flag("May be renamed or removed")
    color: Mapped[str | None] = text("Colour, # and six hexadecimal digits")
    type: Mapped[int | None] = integer("1 for the stage of incoming leads (unsorted), else 0")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class StatusDescription(EntityTable, AccountBase):
    __tablename__ = "status_descriptions"
    __table_args__ = {"comment": "Hints for users on what to do in a stage"}

    id: Mapped[int] = key("Description id")
    pipeline_id: Mapped[int | None] = integer("Pipeline", refers="pipelines.id")
    status_id: Mapped[int | None] = integer("Stage")
    level: Mapped[str | None] = text("Rank of the users that it is for: newbie, candidate or master")
    description: Mapped[str | None] = text("The hint")
    created_at: Mapped[datetime.datetime | None] = local_time(
        "When it was created; amoCRM names no time zone")
    updated_at: Mapped[datetime.datetime | None] = local_time(
        "When it was changed last; amoCRM names no time zone")
    created_by: Mapped[int | None] = integer("User who created it; 0: robot or API", refers="users.id")
    updated_by: Mapped[int | None] = integer("User who changed it last; 0: robot or API", refers="users.id")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class LossReason(AlsoEmbedded, AccountBase):
    __tablename__ = "loss_reasons"
    __table_args__ = {"comment": "Why deals are lost (причины отказа)"}

    id: Mapped[int] = key("Loss reason id")
    name: Mapped[str | None] = text("Name of the reason")
    sort: Mapped[int | None] = integer("Order on the screen")
    created_at: Mapped[DateTime | None] = timestamp("When it was created")
    updated_at: Mapped[DateTime | None] = timestamp("When it was changed last")


class Source(AlsoEmbedded, AccountBase):
    __tablename__ = "sources"
    __table_args__ = {
        "comment": "Where leads come from (источники). amoCRM lists only the caller's own; the "
        "others are known from leads"}

    id: Mapped[int] = key("Source id")
    name: Mapped[str | None] = text("Name of the source")
    pipeline_id: Mapped[int | None] = integer("Pipeline that its leads go to", refers="pipelines.id")
    external_id: Mapped[str | None] = text("Id in the system of the integration")
    default: Mapped[bool | None] = flag("The default source of the integration")
    origin_code: Mapped[str | None] = text("Code of the channel")
    services: Mapped[Json | None] = json("Messengers and pages that the source serves")


class CustomFieldGroup(EntityTable, AccountBase):
    __tablename__ = "custom_field_groups"
    __table_args__ = {"comment": "Groups (tabs) of custom fields"}

    entity_type: Mapped[str] = key("Kind of entity: leads, contacts, companies, customers or catalogs", Text)
    catalog_id: Mapped[int] = key("Catalog; 0 outside catalogs")
    id: Mapped[str] = key("Group id: a text such as default or leads_5120…", Text)
    name: Mapped[str | None] = text("Name of the group")
    type: Mapped[str | None] = text("linked_group or custom_field_group")
    sort: Mapped[int | None] = integer("Order on the card")
    is_predefined: Mapped[bool | None] = flag("Made by amoCRM")
    fields: Mapped[Json | None] = json("Fields of the group, where the API tells them")


class CustomField(AlsoEmbedded, AccountBase):
    __tablename__ = "custom_fields"
    __table_args__ = {
        "comment": "Custom fields (дополнительные поля). A deleted one stays here, with _deleted_at set"}

    entity_type: Mapped[str] = key(
        "Kind of entity: leads, contacts, companies, customers, segments or catalogs", Text)
    id: Mapped[int] = key("Field id")
    catalog_id: Mapped[int] = mapped_column(BigInteger, nullable=False, server_default="0",
                                            comment="Catalog; 0 outside catalogs")
    name: Mapped[str | None] = text("Name of the field")
    code: Mapped[str | None] = text("Code, such as PHONE or EMAIL")
    type: Mapped[str | None] = text("Type: text, numeric, select, date, …")
    sort: Mapped[int | None] = integer("Order on the card")
    group_id: Mapped[str | None] = text("Group of the field", refers="custom_field_groups.id")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")
    is_api_only: Mapped[bool | None] = flag("Can be changed through the API only")
    is_deletable: Mapped[bool | None] = flag("May be deleted")
    is_computed: Mapped[bool | None] = flag("Computed by amoCRM")
    is_predefined: Mapped[bool | None] = flag("Made by amoCRM")
    is_visible: Mapped[bool | None] = flag("Shown (catalogs)")
    is_required: Mapped[bool | None] = flag("Must be filled (catalogs)")
    remind: Mapped[str | None] = text("When to remind of a birthday: never, day, week or month")
    currency: Mapped[str | None] = text("Currency of a monetary field")
    search_in: Mapped[str | None] = text(
        "Where a linked_entity field searches: a catalog id, contacts, companies, …")
    tracking_callback: Mapped[str | None] = text("Script of a tracking field")
    settings: Mapped[Json | None] = json("Settings of the field")
    chained_lists: Mapped[Json | None] = json("Catalogs of a chained list")
    triggers: Mapped[Json | None] = json("Triggers of the field")


class FieldChild(Extra):
    """A child row of a custom field; its foreign key is enforced. The docstring of a subclass is the comment
    of its table in the database."""

    entity_type: Mapped[str] = mapped_column(Text, primary_key=True, sort_order=-4, info={"owner": True},
                                             comment="Kind of entity of the field")
    field_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, sort_order=-3,
                                          info={"owner": True},
                                          comment="Custom field")

    @declared_attr.directive
    def __table_args__(cls) -> tuple[ForeignKeyConstraint, dict[str, str]]:  # noqa: N805
        fk = ForeignKeyConstraint(["entity_type", "field_id"],
                                  ["custom_fields.entity_type", "custom_fields.id"], ondelete="CASCADE")
        return fk, {"comment": (cls.__doc__ or "").strip()}


class CustomFieldEnum(FieldChild, AccountBase):
    """Options of the fields that have a fixed set of them"""

    __tablename__ = "custom_field_enums"

    id: Mapped[int] = key("Option id")
    value: Mapped[str | None] = text("Label of the option")
    sort: Mapped[int | None] = integer("Order of the option")
    code: Mapped[str | None] = text("Code of the option, such as WORK or MOB")
    parent_id: Mapped[int | None] = integer("Option above it (category fields); 0 or null at the top")
    is_nested: Mapped[bool] = mapped_column(Boolean, nullable=False, server_default="false",
                                            comment="The API lists it under nested (category "
                                            "fields), not under enums")


class CustomFieldRequiredStatus(FieldChild, AccountBase):
    """Stages from which on a field must be filled"""

    __tablename__ = "custom_field_required_statuses"

    pipeline_id: Mapped[int] = key("Pipeline", refers="pipelines.id")
    status_id: Mapped[int] = key("Stage")


class CustomFieldHiddenStatus(FieldChild, AccountBase):
    """Stages in which a field is hidden"""

    __tablename__ = "custom_field_hidden_statuses"

    pipeline_id: Mapped[int] = key("Pipeline", refers="pipelines.id")
    status_id: Mapped[int] = key("Stage")


class Tag(AlsoEmbedded, AccountBase):
    __tablename__ = "tags"
    __table_args__ = {
        "comment": "Tags (теги); each kind of entity has its own, so equal names have different ids"}

    entity_type: Mapped[str] = key("Kind of entity: leads, contacts, companies or customers", Text)
    id: Mapped[int] = key("Tag id")
    name: Mapped[str | None] = text("Name of the tag")
    color: Mapped[str | None] = text("Colour, six hexadecimal digits; leads only")
