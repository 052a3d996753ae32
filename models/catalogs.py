"""Lists (catalogs) and their elements: products, invoices and the account's own lists (amocrm-api.md
3.16)."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from models.base import AccountBase, Authored, EntityTable, flag, integer, key, owner, text
from models.crm import CustomFieldValue


class Catalog(Authored, EntityTable, AccountBase):
    __tablename__ = "catalogs"
    __table_args__ = {
        "comment": "Lists (списки, catalogs): products, invoices, suppliers and the account's own"}

    id: Mapped[int] = key("List id")
    name: Mapped[str | None] = text("Name of the list")
    type: Mapped[str | None] = text("regular, products, invoices or suppliers")
    sort: Mapped[int | None] = integer("Order on the screen")
    can_add_elements: Mapped[bool | None] = flag("Elements may be added")
    can_show_in_cards: Mapped[bool | None] = flag("Shown in cards")
    can_link_multiple: Mapped[bool | None] = flag("An element may be linked to several records")
    can_be_deleted: Mapped[bool | None] = flag("May be deleted")
    sdk_widget_code: Mapped[str | None] = text("Widget that owns the list")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class CatalogElement(Authored, EntityTable, AccountBase):
    __tablename__ = "catalog_elements"
    __table_args__ = {
        "comment": "Elements of lists (элементы списков): products, invoices and others. Prices and "
        "amounts are custom fields"}

    id: Mapped[int] = key("Element id")
    catalog_id: Mapped[int | None] = integer("List", refers="catalogs.id", index=True)
    name: Mapped[str | None] = text("Name of the element")
    is_deleted: Mapped[bool | None] = flag("Is deleted in amoCRM; null is not")
    invoice_link: Mapped[str | None] = text("Address of the invoice")
    warning: Mapped[str | None] = text("Warning on an invoice", path=("_embedded", "warning", "message"))
    currency_id: Mapped[int | None] = integer("Number of the currency, as amoCRM counts them")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class CatalogElementCustomFieldValue(CustomFieldValue, AccountBase):
    __tablename__ = "catalog_element_custom_field_values"
    __table_args__ = {
        "comment": "Custom field values of elements of lists: a row for each value of each "
        "field; no row: not filled"}

    catalog_element_id: Mapped[int] = owner("catalog_elements.id", "Element")
