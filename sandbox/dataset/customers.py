"""Customers, their statuses, segments and transactions (API section 3.15)."""

from collections.abc import Iterator

import orjson

from sandbox.account.identity import ACCOUNT_ID, href
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset import vocabulary
from sandbox.dataset.company import ACCOUNT_CREATED_AT, GROUP_OF, MANAGERS
from sandbox.dataset.crm import DatasetBuilder, PackedRow
from sandbox.dataset.link_plan import ELEMENT_BASE

STATUSES = ((4990719, "Недавно купил", 4), (4990721, "Ожидается покупка", 1), (4990723, "Не купил", 2),
            (4990725, "Закрыт", 3))
SEGMENTS = ((733, "Дизайнеры", "6610f2"), (735, "Застройщики", "20c997"), (737, "Повторные", "fd7e14"))
TRANSACTION_BASE = 358200


def build(builder: DatasetBuilder) -> None:
    """Adds the four lists."""
    state = builder.state
    _add_statuses(state)
    _add_segments(builder)
    transactions: list[PackedRow] = []
    state.list("customers").load(_customers(builder, transactions))
    state.list("customers/transactions").load(transactions)


def _add_statuses(state: AccountState) -> None:
    for sort, (ident, name, type_) in enumerate(STATUSES):
        conditions = ([[{"type": "before_purchase", "match": {"value": 7}, "conditions": [{"value": 7}]}]]
                      if sort == 1 else [])
        state.list("customers/statuses").put(
            {"id": ident, "name": name, "sort": sort + 1, "is_default": sort == 1, "conditions": conditions,
             "color": "#99ccff", "type": type_, "account_id": ACCOUNT_ID,
             "_links": href(f"customers/statuses/{ident}")})  # fmt: skip


def _add_segments(builder: DatasetBuilder) -> None:
    count = builder.plan.customers
    for place, (ident, name, color) in enumerate(SEGMENTS):
        values = ([field.entry(field.pool[place]) for field in builder.fields["customers/segments"]]
                  if place == 1 else [])
        builder.state.list("customers/segments").put(
            {"id": ident, "created_at": ACCOUNT_CREATED_AT, "updated_at": ACCOUNT_CREATED_AT + 86400,
             "account_id": ACCOUNT_ID, "name": name, "color": color,
             "available_products_price_types": [1289729] if place == 2
             else None, "customers_count": len(range(place, count, 4)),
             "custom_fields_values": values if place else None,
             "_links": href(f"customers/segments/{ident}")})  # fmt: skip


def _customers(builder: DatasetBuilder, transactions: list[PackedRow]) -> Iterator[PackedRow]:
    plan, rng, state = builder.plan, builder.rng, builder.state
    tags = [orjson.Fragment(row) for row in state.list("customers/tags").rows.values()]
    for place in range(plan.customers):
        ident, born = plan.customer_id(place), plan.created_at(place, plan.customers, rng.random())
        changed, responsible = (born + int(rng.random() * max(0, min(86400 * 60, state.start - 45 - born))),
                                MANAGERS[place % 5])
        purchases = _transactions(builder, ident, born, 1 + place % 3) if place % 4 else []
        transactions += [(int(row["id"]), orjson.dumps(row), ()) for row in purchases]
        total = sum(int(row["price"]) for row in purchases)
        contacts = [{"id": plan.contact_id(contact), "is_main": True,
                     "_links": href(f"contacts/{plan.contact_id(contact)}")}
                    for contact in plan.customer_contacts[place]]  # fmt: skip
        company = place * plan.companies // plan.customers
        embedded = {
            "segments": [{"id": SEGMENTS[place % 4][0],
                          "_links": href(f"customers/segments/{SEGMENTS[place % 4][0]}")}]
            if place % 4 < 3 else [],
            "tags": [tags[place % 6]] if place % 5 == 0 else [], "contacts": contacts,
            "companies": [{"id": plan.company_id(company),
                           "_links": href(f"companies/{plan.company_id(company)}")}]
            if place % 3 == 0 else [],
            "catalog_elements": [{"id": ELEMENT_BASE + 1, "metadata": {"quantity": 1, "catalog_id": 11803}}]
            if place % 9 == 0 else [],
        }  # fmt: skip
        record: Record = {
            "id": ident, "name": f"{vocabulary.LAST_NAMES[place % 20]}: {vocabulary.FIRMS[place % 10]}",
            "next_price": 1000 * (place % 300), "next_date": changed + 86400 * 30,
            "responsible_user_id": responsible, "group_id": GROUP_OF[responsible],
            "status_id": STATUSES[place % 4][0], "periodicity": 60, "created_by": MANAGERS[0],
            "updated_by": 0, "created_at": born, "updated_at": changed, "closest_task_at": None,
            "is_deleted": False, "custom_fields_values": builder.values("customers") if place % 2 else None,
            "ltv": total, "purchases_count": len(purchases),
            "average_check": total // len(purchases) if purchases
            else 0, "account_id": ACCOUNT_ID, "_links": href(f"customers/{ident}"),
            "_embedded": embedded,
        }  # fmt: skip
        builder.event_log.add("customer_added", "customer", ident, born, MANAGERS[0],
                              b'[{"note":{"id":%d}}]' % (ident + 290000000))
        yield ident, orjson.dumps(record), (born, changed)


def _transactions(builder: DatasetBuilder, customer: int, born: int, count: int) -> list[Record]:
    found = []
    for number in range(count):
        ident = TRANSACTION_BASE + (customer - 1904400) * 4 + number
        at = min(builder.state.start - 50, born + 86400 * 20 * number + 600)
        record: Record = {"id": ident, "price": 1000 + builder.rng.randrange(300000),
                          "comment": None if number else "Предоплата \"наличными\"", "completed_at": at,
                          "customer_id": customer, "created_by": MANAGERS[number],
                          "updated_by": MANAGERS[number], "created_at": at, "updated_at": at,
                          "is_deleted": False, "account_id": ACCOUNT_ID,
                          "_links": href(f"customers/{customer}/transactions/{ident}"),
                          "_embedded": {"customer": {"id": customer,
                                                     "_links": href(f"customers/{customer}")}}}  # fmt: skip
        if number == 0:
            record["_embedded"]["catalog_elements"] = [
                {"id": ELEMENT_BASE + 1 + ident % 20, "metadata": {"catalog_id": 11803, "quantity": 4}}]
        builder.event_log.add("transaction_added", "customer", customer, at, MANAGERS[number],
                              b'[{"transaction":{"id":%d}}]' % ident)
        found.append(record)
    return found
