"""Customers, their stages, segments and purchases (amocrm-api.md 3.15)."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy.orm import Mapped

from models.base import (
    AccountBase,
    Assigned,
    Authored,
    DateTime,
    EntityTable,
    Json,
    amount,
    flag,
    integer,
    integers,
    json,
    key,
    owner,
    text,
    timestamp,
)
from models.crm import CustomFieldValue, TagLink


class Customer(Assigned, EntityTable, AccountBase):
    __tablename__ = "customers"
    __table_args__ = {
        "comment": "Customers (покупатели): who buys again and again. Empty in accounts "
        "where customers are off"}

    id: Mapped[int] = key("Customer id")
    name: Mapped[str | None] = text("Name of the customer")
    next_price: Mapped[Decimal | None] = amount(
        "Expected value of the next purchase in accounts.currency, in whole units")
    next_price_with_minor_units: Mapped[Decimal | None] = amount(
        "The same with minor units, where the account has them")
    next_date: Mapped[DateTime | None] = timestamp("When the next purchase is expected")
    status_id: Mapped[int | None] = integer("Stage", refers="customer_statuses.id")
    periodicity: Mapped[int | None] = integer("Days between purchases")
    ltv: Mapped[Decimal | None] = amount("Value of all purchases so far (сумма покупок), as amoCRM counts it")
    purchases_count: Mapped[int | None] = integer("Number of purchases so far")
    average_check: Mapped[Decimal | None] = amount(
        "Average value of a purchase (средний чек), as amoCRM counts it")
    closest_task_at: Mapped[DateTime | None] = timestamp("When the next open task is due; null: no open task")
    is_deleted: Mapped[bool | None] = flag("Is deleted in amoCRM")


class CustomerStatus(EntityTable, AccountBase):
    __tablename__ = "customer_statuses"
    __table_args__ = {"comment": "Stages of customers (статусы покупателей), in the mode with periodicity"}

    id: Mapped[int] = key("Stage id")
    name: Mapped[str | None] = text("Name of the stage")
    sort: Mapped[int | None] = integer("Order on the screen")
    is_default: Mapped[bool | None] = flag("Where new customers go")
    type: Mapped[int | None] = integer("0 normal, 1 expected, 2 not bought, 3 closed, 4 recently bought")
    color: Mapped[str | None] = text("Colour, # and six hexadecimal digits")
    conditions: Mapped[Json | None] = json("When a customer comes here")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class Segment(EntityTable, AccountBase):
    __tablename__ = "segments"
    __table_args__ = {"comment": "Segments of customers (сегменты), in the mode with segments"}

    id: Mapped[int] = key("Segment id")
    name: Mapped[str | None] = text("Name of the segment")
    color: Mapped[str | None] = text("Colour, six hexadecimal digits")
    customers_count: Mapped[int | None] = integer("Customers in it, as amoCRM counts them")
    available_products_price_types: Mapped[list[int] | None] = integers(
        "Price fields that its customers may see")
    created_at: Mapped[DateTime | None] = timestamp("When it was created")
    updated_at: Mapped[DateTime | None] = timestamp("When it was changed last")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class Transaction(Authored, EntityTable, AccountBase):
    __tablename__ = "transactions"
    __table_args__ = {"comment": "Purchases of customers (покупки)"}

    id: Mapped[int] = key("Purchase id")
    customer_id: Mapped[int | None] = integer("Customer", refers="customers.id", index=True)
    price: Mapped[Decimal | None] = amount("Value of the purchase in accounts.currency")
    comment: Mapped[str | None] = text("What somebody wrote about the purchase")
    completed_at: Mapped[DateTime | None] = timestamp("When it was made")
    is_deleted: Mapped[bool | None] = flag("Is deleted in amoCRM")
    account_id: Mapped[int | None] = integer("Account, the same in every row", refers="accounts.id")


class CustomerCustomFieldValue(CustomFieldValue, AccountBase):
    __tablename__ = "customer_custom_field_values"
    __table_args__ = {
        "comment": "Custom field values of customers: a row for each value of each field; no row: not filled"}

    customer_id: Mapped[int] = owner("customers.id", "Customer")


class SegmentCustomFieldValue(CustomFieldValue, AccountBase):
    __tablename__ = "segment_custom_field_values"
    __table_args__ = {
        "comment": "Custom field values of segments: a row for each value of each field; no row: not filled"}

    segment_id: Mapped[int] = owner("segments.id", "Segment")


class CustomerTag(TagLink, AccountBase):
    __tablename__ = "customer_tags"
    __table_args__ = {"comment": "Tags (теги) on customers"}

    customer_id: Mapped[int] = owner("customers.id", "Customer")
