"""History of stages, responsible users and custom field values; and the changes that the mirror itself
captured.

The three history tables are derived from `events`, `observations` and the records' own rows
(pipelines/history/rebuild.py) and can be rebuilt from these at any time. `observations` cannot be rebuilt:
the previous version of a record is stored nowhere else.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from models.base import AccountBase, DateTime, Json, integer, key, timestamp

Instant = TIMESTAMP(timezone=True)
ASSIGNED_KIND_COMMENT = "Kind of record: leads, contacts, companies, customers or tasks"
FIELD_OWNER_COMMENT = "Kind of record: leads, contacts, companies, customers or catalog_elements"
HISTORY_KIND_COMMENT = "Kind of record: leads, contacts, companies, customers, tasks or catalog_elements"
VALUE_LIST_COMMENT = "as a list of {text, enum_id}, one for each value; an empty list: none"


class ChangeSource:
    """Author and source of a row of history."""

    changed_by: Mapped[int | None] = integer("User who did it; 0: robot or API; null: not known",
                                             refers="users.id")
    source: Mapped[str] = mapped_column(
        Text, nullable=False,
        comment="created: what the record was made as; event: amoCRM's log says so; observed: "
                "the mirror saw it, and amoCRM's log does not explain it")


class LeadStatusHistory(ChangeSource, AccountBase):
    __tablename__ = "lead_status_history"
    __table_args__ = (Index(None, "left_at", "entered_at"), {
        "comment": "Which deal was in which stage from when to when. The last interval of a deleted deal "
        "stays open: leads._deleted_at ends it"})

    lead_id: Mapped[int] = key("Lead", refers="leads.id")
    entered_at: Mapped[DateTime] = key("When it came into the stage; leads.created_at for the first", Instant)
    pipeline_id: Mapped[int] = mapped_column(BigInteger, nullable=False, comment="Pipeline",
                                             info={"refers": "pipelines.id"})
    status_id: Mapped[int] = mapped_column(BigInteger, nullable=False,
                                           comment="Stage; 142 won, 143 lost. Join statuses by "
                                           "pipeline_id and status_id")
    left_at: Mapped[DateTime | None] = timestamp("When it left the stage; null: it is still there")


class ResponsibleHistory(ChangeSource, AccountBase):
    __tablename__ = "responsible_history"
    __table_args__ = (Index(None, "left_at", "entered_at"), {
        "comment": "Who was responsible for which record from when to when. The last interval of a "
        "deleted record stays open"})

    entity_type: Mapped[str] = key(ASSIGNED_KIND_COMMENT, Text)
    entity_id: Mapped[int] = key("Record")
    entered_at: Mapped[DateTime] = key("From when; the record's created_at for the first", Instant)
    responsible_user_id: Mapped[int | None] = integer("Responsible user; null: nobody", refers="users.id")
    left_at: Mapped[DateTime | None] = timestamp("Until when; null: still")


class CustomFieldHistory(ChangeSource, AccountBase):
    __tablename__ = "custom_field_history"
    __table_args__ = {
        "comment": "Changes of custom field values. Texts are as amoCRM's log writes them, or as "
        "custom_field_values shows them"}

    entity_type: Mapped[str] = key(FIELD_OWNER_COMMENT, Text)
    entity_id: Mapped[int] = key("Record")
    field_id: Mapped[int] = key("Custom field", refers="custom_fields.id")
    changed_at: Mapped[DateTime] = key("When it was changed", Instant)
    value_before: Mapped[Json] = mapped_column(JSONB, nullable=False,
                                               comment=f"Values before, {VALUE_LIST_COMMENT}")
    value_after: Mapped[Json] = mapped_column(JSONB, nullable=False,
                                              comment=f"Values after, {VALUE_LIST_COMMENT}")


class Observation(AccountBase):
    __tablename__ = "observations"
    __table_args__ = {
        "comment": "Changes that the mirror saw between two readings of a record and that no "
        "event explains (yet). History is made from them; nothing else has them"}

    entity_type: Mapped[str] = key(HISTORY_KIND_COMMENT, Text)
    entity_id: Mapped[int] = key("Record")
    attribute: Mapped[str] = key("What changed: status, responsible_user or custom_field", Text)
    field_id: Mapped[int] = key("Custom field; 0: none")
    seen_at: Mapped[DateTime] = key("Start of the request that brought the new value", Instant)
    changed_at: Mapped[DateTime] = mapped_column(
        Instant, nullable=False, comment="The record's updated_at where that can be believed, else seen_at")
    since: Mapped[DateTime] = mapped_column(
        Instant, nullable=False, comment="What happened up to then was in the former reading already")
    value_before: Mapped[Json] = mapped_column(JSONB, nullable=False, comment="What it was before")
    value_after: Mapped[Json] = mapped_column(JSONB, nullable=False, comment="What it became")


class HistoryDue(AccountBase):
    __tablename__ = "history_due"
    __table_args__ = {
        "comment": "Records whose history the end of the next sync brings up to date; empty between syncs"}

    entity_type: Mapped[str] = key(
        f"{HISTORY_KIND_COMMENT}; "
        "all: every record's, which is so until history has been made for the first time", Text)
    entity_id: Mapped[int] = key("Record; 0: all")
