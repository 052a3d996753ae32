"""Activity: tasks, notes, events, incoming leads, talks, files (amocrm-api.md 3.12, 3.17 to 3.20, 3.22,
3.23)."""

from __future__ import annotations

from sqlalchemy import Index, Text
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped

from models.base import (
    AccountBase,
    Assigned,
    DateTime,
    EntityTable,
    Json,
    Link,
    flag,
    integer,
    json,
    key,
    owner,
    text,
    timestamp,
)


class Task(Assigned, EntityTable, AccountBase):
    __tablename__ = "tasks"
    __table_args__ = {"comment": "Tasks (задачи), open and done"}

    id: Mapped[int] = key("Task id")
    entity_type: Mapped[str | None] = text(
        "Kind of record that it belongs to: leads, contacts, companies or customers; null: none")
    entity_id: Mapped[int | None] = integer("Record that it belongs to", index=True, zero_means_none=True)
    task_type_id: Mapped[int | None] = integer("Kind of task", refers="task_types.id")
    duration: Mapped[int | None] = integer("Planned duration in seconds")
    complete_till: Mapped[DateTime | None] = timestamp(
        "When it is due; 23:59 of the account's day for a whole day", index=True)
    is_completed: Mapped[bool | None] = flag("Done")
    result_text: Mapped[str | None] = text("What came of it", path=("result", "text"))
    text: Mapped[str | None] = text("What is to be done")


class Note(Assigned, EntityTable, AccountBase):
    __tablename__ = "notes"
    __table_args__ = (
        Index("ix_notes_file_uuid", sql_text("(params ->> 'file_uuid')"),
              postgresql_where=sql_text("note_type = 'attachment'")),
        {"comment": "Notes (примечания) on leads, contacts, companies and customers: texts, "
                    "calls, messages, files, …"})

    entity_type: Mapped[str] = key("Kind of record: leads, contacts, companies or customers", Text)
    id: Mapped[int] = key("Note id")
    entity_id: Mapped[int | None] = integer("Record that it is on", index=True)
    note_type: Mapped[str | None] = text("Kind of note: common, call_in, call_out, sms_in, attachment, …")
    params: Mapped[Json | None] = json("Content, by kind of note: text, phone, duration in seconds, …")
    is_pinned: Mapped[bool | None] = flag("Pinned to the top")


class Event(EntityTable, AccountBase):
    __tablename__ = "events"
    __table_args__ = {
        "comment": "What happened in the account: amoCRM's own log (события). entity_type is singular "
        "here, plural elsewhere"}

    id: Mapped[str] = key("Event id", Text)
    type: Mapped[str | None] = text(
        "Kind of event: lead_status_changed, custom_field_123_value_changed, …", index=True)
    entity_type: Mapped[str | None] = text(
        "Kind of record, singular: lead, contact, company, customer, task, catalog_123")
    entity_id: Mapped[int | None] = integer("Record that it happened to", index=True)
    created_by: Mapped[int | None] = integer("User who did it; 0: robot", refers="users.id")
    created_at: Mapped[DateTime | None] = timestamp("When it happened", index=True)
    value_before: Mapped[Json | None] = json("What it was before, by type of event: a list of objects")
    value_after: Mapped[Json | None] = json("What it became, by type of event: a list of objects")
    linked_talk_contact_id: Mapped[int | None] = integer(
        "Contact of the talk that a message belongs to", refers="contacts.id",
        path=("_embedded", "entity", "linked_talk_contact_id"))
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class EventType(EntityTable, AccountBase):
    __tablename__ = "event_types"
    __table_args__ = {"comment": "Names of the kinds of event"}

    key: Mapped[str] = key("Kind of event", Text)
    type: Mapped[int | None] = integer("Number of the kind")
    lang: Mapped[str | None] = text("Its name in the language of the token's user")


class Unsorted(EntityTable, AccountBase):
    __tablename__ = "unsorted"
    __table_args__ = {
        "comment": "Incoming leads (неразобранное) that nobody has accepted or declined yet; the "
        "others have _deleted_at"}

    uid: Mapped[str] = key("Id of the incoming lead", Text)
    category: Mapped[str | None] = text("sip, mail, forms or chats")
    pipeline_id: Mapped[int | None] = integer("Pipeline", refers="pipelines.id")
    source_uid: Mapped[str | None] = text("Id of the source")
    source_name: Mapped[str | None] = text("Name of the source")
    created_at: Mapped[DateTime | None] = timestamp("When it came")
    content: Mapped[Json | None] = json("What came in, by category", name="metadata")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class UnsortedLead(Link, AccountBase):
    __tablename__ = "unsorted_leads"
    __table_args__ = {"comment": "Leads of incoming leads"}

    unsorted_uid: Mapped[str] = owner("unsorted.uid", "Incoming lead", type_=Text)
    lead_id: Mapped[int] = key("Lead", path=("id",), refers="leads.id", index=True)


class UnsortedContact(Link, AccountBase):
    __tablename__ = "unsorted_contacts"
    __table_args__ = {"comment": "Contacts of incoming leads"}

    unsorted_uid: Mapped[str] = owner("unsorted.uid", "Incoming lead", type_=Text)
    contact_id: Mapped[int] = key("Contact", path=("id",), refers="contacts.id", index=True)


class UnsortedCompany(Link, AccountBase):
    __tablename__ = "unsorted_companies"
    __table_args__ = {"comment": "Companies of incoming leads"}

    unsorted_uid: Mapped[str] = owner("unsorted.uid", "Incoming lead", type_=Text)
    company_id: Mapped[int] = key("Company", path=("id",), refers="companies.id", index=True)


class Talk(EntityTable, AccountBase):
    __tablename__ = "talks"
    __table_args__ = {
        "comment": "Talks (беседы) in messengers: those that amoCRM lists, and those that events name"}

    talk_id: Mapped[int] = key("Talk id")
    contact_id: Mapped[int | None] = integer("Contact", refers="contacts.id", index=True)
    chat_id: Mapped[str | None] = text("Chat that it is held in, by its id in the chat service")
    entity_type: Mapped[str | None] = text("Kind of record, singular: lead or customer")
    entity_id: Mapped[int | None] = integer("Record that it belongs to")
    status: Mapped[str | None] = text(
        "in_work, closed, nps_scheduled, nps_in_progress, with_error, …")
    is_in_work: Mapped[bool | None] = flag("Open")
    is_read: Mapped[bool | None] = flag("Read")
    origin: Mapped[str | None] = text("Messenger")
    source_id: Mapped[int | None] = integer("Source that it came through", refers="sources.id")
    rate: Mapped[int | None] = integer("Rating")
    created_at: Mapped[DateTime | None] = timestamp("When it began")
    updated_at: Mapped[DateTime | None] = timestamp("When it was changed last")
    missed_at: Mapped[DateTime | None] = timestamp("When it was missed")
    contacts: Mapped[Json | None] = json("Its contact: a list of {id}", path=("_embedded", "contacts"))
    leads: Mapped[Json | None] = json("Its lead: a list of {id}", path=("_embedded", "leads"))
    customers: Mapped[Json | None] = json("Its customer: a list of {id}", path=("_embedded", "customers"))
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class File(EntityTable, AccountBase):
    __tablename__ = "files"
    __table_args__ = {"comment": "Files in amoCRM's drive"}

    uuid: Mapped[str] = key("File id", Text)
    version_uuid: Mapped[str | None] = text("Current version")
    name: Mapped[str | None] = text("Name without its extension")
    sanitized_name: Mapped[str | None] = text("Name in Latin letters")
    type: Mapped[str | None] = text("image, video, audio, document or file")
    size: Mapped[int | None] = integer("Size in bytes")
    is_trashed: Mapped[bool | None] = flag("Is in the drive's bin")
    has_multiple_versions: Mapped[bool | None] = flag("Has several versions")
    source_id: Mapped[int | None] = integer("Source of the file, as the drive numbers them")
    properties: Mapped[Json | None] = json("Extension and MIME type", name="metadata")
    previews: Mapped[Json | None] = json("Previews: download link, width, height")
    created_by: Mapped[int | None] = integer("Who made it", path=("created_by", "id"), refers="users.id")
    created_by_type: Mapped[str | None] = text("What kind of author made it", path=("created_by", "type"))
    created_at: Mapped[DateTime | None] = timestamp("When it was uploaded")
    updated_by: Mapped[int | None] = integer("Who changed it last", path=("updated_by", "id"),
                                             refers="users.id")
    updated_by_type: Mapped[str | None] = text("What kind of author changed it last",
                                               path=("updated_by", "type"))
    updated_at: Mapped[DateTime | None] = timestamp("When it was changed last")
    deleted_at: Mapped[DateTime | None] = timestamp("When it was put into the bin")
    deleted_by: Mapped[Json | None] = json("Who deleted it")


class FileLinks(EntityTable, AccountBase):
    __tablename__ = "file_links"
    __table_args__ = {
        "comment": "Which records a file hangs on, as amoCRM tells it file by file; the links themselves: "
        "lead_files, contact_files, …"}

    file_uuid: Mapped[str] = key("File", Text, refers="files.uuid")
    entities: Mapped[Json | None] = json(
        "The records: a list of {entity_type, id}, also of those that are not mirrored (yet)")
