"""Leads, contacts, companies, with their custom field values and tags (amocrm-api.md 3.9, 3.11, 3.13,
3.14)."""

from __future__ import annotations

import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, Boolean, Date, Integer, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from models.base import (
    AccountBase,
    Assigned,
    DateTime,
    EntityTable,
    Extra,
    Json,
    amount,
    flag,
    integer,
    json,
    key,
    owner,
    text,
    timestamp,
)


class Lead(Assigned, EntityTable, AccountBase):
    __tablename__ = "leads"
    __table_args__ = {
        "comment": "Deals (сделки, leads), open and closed. status_id 142 is won, 143 lost; deleted "
        "ones have _deleted_at"}

    id: Mapped[int] = key("Lead id")
    name: Mapped[str | None] = text("Name of the deal")
    price: Mapped[Decimal | None] = amount(
        "Value of the deal (бюджет) in accounts.currency, with its minor units where the account has them")
    price_with_minor_units: Mapped[Decimal | None] = amount(
        "Value with minor units as the API gives it; null in accounts without them")
    status_id: Mapped[int | None] = integer(
        "Stage (этап); 142 won, 143 lost. Join statuses by pipeline_id and status_id")
    pipeline_id: Mapped[int | None] = integer("Pipeline (воронка)", refers="pipelines.id", index=True)
    loss_reason_id: Mapped[int | None] = integer("Why it was lost (причина отказа); null where nobody said",
                                                 refers="loss_reasons.id", zero_means_none=True)
    source_id: Mapped[int | None] = integer("Where it came from", refers="sources.id")
    closed_at: Mapped[DateTime | None] = timestamp("When it was won or lost; null while it is open")
    closest_task_at: Mapped[DateTime | None] = timestamp("When its next open task is due; null: no open task")
    is_deleted: Mapped[bool | None] = flag("Is in amoCRM's recycle bin")
    score: Mapped[int | None] = integer("Score (скоринг), where amoCRM counts one")
    labor_cost: Mapped[int | None] = integer("Working time spent, in seconds")
    is_price_modified_by_robot: Mapped[bool | None] = flag("The value was last changed by a robot")


class Contact(Assigned, EntityTable, AccountBase):
    __tablename__ = "contacts"
    __table_args__ = {
        "comment": "People (контакты). Phones and e-mails are custom fields with the codes PHONE and EMAIL"}

    id: Mapped[int] = key("Contact id")
    name: Mapped[str | None] = text("Full name")
    first_name: Mapped[str | None] = text("First name; empty when there is none")
    last_name: Mapped[str | None] = text("Last name; empty when there is none")
    closest_task_at: Mapped[DateTime | None] = timestamp("When the next open task is due; null: no open task")
    is_deleted: Mapped[bool | None] = flag("Is in amoCRM's recycle bin")
    is_unsorted: Mapped[bool | None] = flag("Belongs to an incoming lead that nobody has accepted yet")
    social_profiles: Mapped[Json | None] = json("Profiles in social networks",
                                                path=("_embedded", "social_profiles"))


class Company(Assigned, EntityTable, AccountBase):
    __tablename__ = "companies"
    __table_args__ = {"comment": "Companies (компании). Phones, e-mails and addresses are custom fields"}

    id: Mapped[int] = key("Company id")
    name: Mapped[str | None] = text("Name of the company")
    closest_task_at: Mapped[DateTime | None] = timestamp("When the next open task is due; null: no open task")
    is_deleted: Mapped[bool | None] = flag("Is in amoCRM's recycle bin")


class CustomFieldValue(Extra):
    """One value of one custom field (amocrm-api.md 3.9). A field with several values has several rows."""

    field_id: Mapped[int] = key("Custom field", refers="custom_fields.id")
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, sort_order=-1,
                                          comment="Counts the values of one field from 0")
    value_text: Mapped[str | None] = mapped_column(
        Text, comment="The value as a person reads it: an option's label, a number's own text, an ISO date")
    value_number: Mapped[Decimal | None] = mapped_column(
        Numeric, comment="Value of numeric, price and monetary fields")
    value_boolean: Mapped[bool | None] = mapped_column(Boolean, comment="Value of checkboxes")
    value_date: Mapped[datetime.date | None] = mapped_column(
        Date, comment="Value of date and birthday fields: the account's local calendar day")
    value_at: Mapped[datetime.datetime | None] = mapped_column(TIMESTAMP(timezone=True),
                                                               comment="Value of date_time fields")
    enum_id: Mapped[int | None] = mapped_column(BigInteger, comment="Option",
                                                info={"refers": "custom_field_enums.id"})
    enum_code: Mapped[str | None] = mapped_column(Text, comment="Code of the option, such as WORK or MOB")
    value_json: Mapped[Json | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="Value of structured and unknown types, and any value that its type does not explain")


class LeadCustomFieldValue(CustomFieldValue, AccountBase):
    __tablename__ = "lead_custom_field_values"
    __table_args__ = {
        "comment": "Custom field values of leads: a row for each value of each field; no row: not filled"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")


class ContactCustomFieldValue(CustomFieldValue, AccountBase):
    __tablename__ = "contact_custom_field_values"
    __table_args__ = {
        "comment": "Custom field values of contacts: a row for each value of each field; no row: not filled"}

    contact_id: Mapped[int] = owner("contacts.id", "Contact")


class CompanyCustomFieldValue(CustomFieldValue, AccountBase):
    __tablename__ = "company_custom_field_values"
    __table_args__ = {
        "comment": "Custom field values of companies: a row for each value of each field; no row: not filled"}

    company_id: Mapped[int] = owner("companies.id", "Company")


class TagLink(Extra):
    """A tag on a record."""

    tag_id: Mapped[int] = key("Tag", path=("id",), refers="tags.id", index=True)


class LeadTag(TagLink, AccountBase):
    __tablename__ = "lead_tags"
    __table_args__ = {"comment": "Tags (теги) on leads"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")


class ContactTag(TagLink, AccountBase):
    __tablename__ = "contact_tags"
    __table_args__ = {"comment": "Tags (теги) on contacts"}

    contact_id: Mapped[int] = owner("contacts.id", "Contact")


class CompanyTag(TagLink, AccountBase):
    __tablename__ = "company_tags"
    __table_args__ = {"comment": "Tags (теги) on companies"}

    company_id: Mapped[int] = owner("companies.id", "Company")
