"""Links between entities: one table per pair, owned by the entity named first (schema.md, Links; amocrm-api.md 3.11, 3.13)."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from models.base import AccountBase, Extra, flag, key, owner


class LeadContact(Extra, AccountBase):
    __tablename__ = "lead_contacts"
    __table_args__ = {"comment": "Contacts of leads"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")
    contact_id: Mapped[int] = key("Contact", path=("id",), refers="contacts.id", index=True)
    is_main: Mapped[bool | None] = flag("The lead's main contact")


class LeadCompany(Extra, AccountBase):
    __tablename__ = "lead_companies"
    __table_args__ = {"comment": "Companies of leads; amoCRM allows one"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")
    company_id: Mapped[int] = key("Company", path=("id",), refers="companies.id", index=True)


class ContactCompany(Extra, AccountBase):
    __tablename__ = "contact_companies"
    __table_args__ = {"comment": "Companies that contacts work for; amoCRM allows one"}

    contact_id: Mapped[int] = owner("contacts.id", "Contact")
    company_id: Mapped[int] = key("Company", path=("id",), refers="companies.id", index=True)
