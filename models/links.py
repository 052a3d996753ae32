"""Links between entities: one table per pair, owned by the entity named first (schema.md, Links;
amocrm-api.md 3.11, 3.13)."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import Text
from sqlalchemy.orm import Mapped

from models.base import AccountBase, Link, amount, flag, integer, key, link_owner, owner, reported_by


class LeadContact(Link, AccountBase):
    __tablename__ = "lead_contacts"
    __table_args__ = {"comment": "Contacts of leads: who a deal is with"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")
    contact_id: Mapped[int] = key("Contact", path=("id",), refers="contacts.id", index=True)
    is_main: Mapped[bool | None] = flag("The lead's main contact")


class LeadCompany(Link, AccountBase):
    __tablename__ = "lead_companies"
    __table_args__ = {"comment": "Companies of leads; amoCRM allows one"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")
    company_id: Mapped[int] = key("Company", path=("id",), refers="companies.id", index=True)


class ContactCompany(Link, AccountBase):
    __tablename__ = "contact_companies"
    __table_args__ = {"comment": "Companies that contacts work for; amoCRM allows one"}

    contact_id: Mapped[int] = owner("contacts.id", "Contact")
    company_id: Mapped[int] = key("Company", path=("id",), refers="companies.id", index=True)


class CustomerContact(Link, AccountBase):
    __tablename__ = "customer_contacts"
    __table_args__ = {"comment": "Contacts of customers: who buys"}

    customer_id: Mapped[int] = owner("customers.id", "Customer")
    contact_id: Mapped[int] = key("Contact", path=("id",), refers="contacts.id", index=True)
    is_main: Mapped[bool | None] = flag("The customer's main contact")


class CustomerCompany(Link, AccountBase):
    __tablename__ = "customer_companies"
    __table_args__ = {"comment": "Companies of customers; amoCRM allows one"}

    customer_id: Mapped[int] = owner("customers.id", "Customer")
    company_id: Mapped[int] = key("Company", path=("id",), refers="companies.id", index=True)


class CustomerSegment(Link, AccountBase):
    __tablename__ = "customer_segments"
    __table_args__ = {"comment": "Segments that customers are in"}

    customer_id: Mapped[int] = owner("customers.id", "Customer")
    segment_id: Mapped[int] = key("Segment", path=("id",), refers="segments.id", index=True)


class ElementLink(Link):
    """An element of a list (a product, an invoice) on a record."""

    catalog_element_id: Mapped[int] = key("Element", path=("id",), refers="catalog_elements.id", index=True)
    catalog_id: Mapped[int | None] = integer("List of the element", path=("metadata", "catalog_id"),
                                             refers="catalogs.id")
    quantity: Mapped[Decimal | None] = amount("How many of it", path=("metadata", "quantity"))


class PricedElementLink(ElementLink):
    """An element on a record, with the price field chosen for it."""

    price_id: Mapped[int | None] = integer("Price field of the element that was used",
                                           path=("metadata", "price_id"), refers="custom_fields.id")


class LeadCatalogElement(PricedElementLink, AccountBase):
    __tablename__ = "lead_catalog_elements"
    __table_args__ = {
        "comment": "Elements of lists on leads: products and invoices of deals, with quantities"}

    lead_id: Mapped[int] = owner("leads.id", "Lead")


class ContactCatalogElement(PricedElementLink, AccountBase):
    __tablename__ = "contact_catalog_elements"
    __table_args__ = {"comment": "Elements of lists on contacts"}

    contact_id: Mapped[int] = owner("contacts.id", "Contact")


class CompanyCatalogElement(PricedElementLink, AccountBase):
    __tablename__ = "company_catalog_elements"
    __table_args__ = {"comment": "Elements of lists on companies"}

    company_id: Mapped[int] = owner("companies.id", "Company")


class CustomerCatalogElement(PricedElementLink, AccountBase):
    __tablename__ = "customer_catalog_elements"
    __table_args__ = {"comment": "Elements of lists on customers"}

    customer_id: Mapped[int] = owner("customers.id", "Customer")


class TransactionCatalogElement(ElementLink, AccountBase):
    __tablename__ = "transaction_catalog_elements"
    __table_args__ = {"comment": "What a customer bought"}

    transaction_id: Mapped[int] = owner("transactions.id", "Purchase")


class AttachedFile(Link):
    """A file attached to a record. amoCRM lists the records of a file, so all links of one file are replaced
    together."""

    file_uuid: Mapped[str] = reported_by("files.uuid", "File", type_=Text)


class LeadFile(AttachedFile, AccountBase):
    __tablename__ = "lead_files"
    __table_args__ = {"comment": "Files on leads"}

    lead_id: Mapped[int] = link_owner("leads.id", "Lead", path=("id",))


class ContactFile(AttachedFile, AccountBase):
    __tablename__ = "contact_files"
    __table_args__ = {"comment": "Files on contacts"}

    contact_id: Mapped[int] = link_owner("contacts.id", "Contact", path=("id",))


class CompanyFile(AttachedFile, AccountBase):
    __tablename__ = "company_files"
    __table_args__ = {"comment": "Files on companies"}

    company_id: Mapped[int] = link_owner("companies.id", "Company", path=("id",))


class CustomerFile(AttachedFile, AccountBase):
    __tablename__ = "customer_files"
    __table_args__ = {"comment": "Files on customers"}

    customer_id: Mapped[int] = link_owner("customers.id", "Customer", path=("id",))
