"""Integrations of the account: webhooks, widgets, website buttons, chat templates, bots (amocrm-api.md 3.24
to 3.27, 3.30)."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from models.base import (
    AccountBase,
    DateTime,
    EntityTable,
    Json,
    flag,
    integer,
    json,
    key,
    text,
    texts,
    timestamp,
)


class Webhook(EntityTable, AccountBase):
    __tablename__ = "webhooks"
    __table_args__ = {"comment": "Addresses that amoCRM tells about events"}

    id: Mapped[int] = key("Webhook id")
    destination: Mapped[str | None] = text("Address that is told")
    settings: Mapped[list[str] | None] = texts("Events that it is told")
    disabled: Mapped[bool | None] = flag("Switched off, by hand or after too many bad answers")
    sort: Mapped[int | None] = integer("Order on the screen")
    created_by: Mapped[int | None] = integer("User who created it", refers="users.id")
    created_at: Mapped[DateTime | None] = timestamp("When it was created")
    updated_at: Mapped[DateTime | None] = timestamp("When it was changed last")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class Widget(EntityTable, AccountBase):
    __tablename__ = "widgets"
    __table_args__ = {
        "comment": "Widgets of the catalogue and of the account; is_active_in_account "
        "tells the installed ones"}

    id: Mapped[int] = key("Widget id")
    code: Mapped[str | None] = text("Code of the widget")
    version: Mapped[str | None] = text("Version of the widget")
    rating: Mapped[str | None] = text("Rating, as amoCRM writes it")
    is_active_in_account: Mapped[bool | None] = flag("Installed")
    is_lead_source: Mapped[bool | None] = flag("Brings leads")
    is_work_with_dp: Mapped[bool | None] = flag("Works in the digital pipeline")
    is_crm_template: Mapped[bool | None] = flag("Is a template of an account")
    client_uuid: Mapped[str | None] = text("Integration that it belongs to")
    pipeline_id: Mapped[int | None] = integer("Pipeline", refers="pipelines.id")
    settings_template: Mapped[Json | None] = json("Names and types of its settings, without their values")


class WebsiteButton(EntityTable, AccountBase):
    __tablename__ = "website_buttons"
    __table_args__ = {"comment": "Buttons for websites (CRM Plugin)"}

    source_id: Mapped[int] = key("Source of the button's leads")
    button_id: Mapped[int | None] = integer("Id of the button")
    name: Mapped[str | None] = text("Name; may be empty")
    pipeline_id: Mapped[int | None] = integer("Pipeline of its leads", refers="pipelines.id")
    creation_status: Mapped[str | None] = text("created or creation_pending")
    is_duplication_control_enabled: Mapped[bool | None] = flag("Looks for duplicates")
    is_deleted: Mapped[bool | None] = flag("Is deleted in amoCRM")
    script: Mapped[str | None] = text("Script for the website")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class ChatTemplate(EntityTable, AccountBase):
    __tablename__ = "chat_templates"
    __table_args__ = {"comment": "Templates of chat messages; amoCRM lists only the caller's own"}

    id: Mapped[int] = key("Template id")
    name: Mapped[str | None] = text("Name of the template")
    content: Mapped[str | None] = text("Text with placeholders")
    type: Mapped[str | None] = text("amocrm or waba (WhatsApp)")
    external_id: Mapped[str | None] = text("Id in the system of the integration")
    is_editable: Mapped[bool | None] = flag("May be changed")
    is_on_review: Mapped[bool | None] = flag("Is being reviewed")
    review_status: Mapped[str | None] = text("approved, review, paused or rejected")
    buttons: Mapped[Json | None] = json("Buttons under the message")
    attachment: Mapped[Json | None] = json("Attached file")
    waba_header: Mapped[str | None] = text("WhatsApp: header")
    waba_header_type: Mapped[str | None] = text("WhatsApp: kind of header")
    waba_footer: Mapped[str | None] = text("WhatsApp: footer")
    waba_category: Mapped[str | None] = text("WhatsApp: category")
    waba_language: Mapped[str | None] = text("WhatsApp: language")
    waba_examples: Mapped[Json | None] = json("WhatsApp: examples of the placeholders")
    reviews: Mapped[Json | None] = json("WhatsApp: reviews by source", path=("_embedded", "reviews"))
    created_at: Mapped[DateTime | None] = timestamp("When it was created")
    updated_at: Mapped[DateTime | None] = timestamp("When it was changed last")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class Bot(EntityTable, AccountBase):
    __tablename__ = "bots"
    __table_args__ = {"comment": "Bots (Salesbot), where amoCRM lists them"}

    id: Mapped[int] = key("Bot id")
    name: Mapped[str | None] = text("Name of the bot")
