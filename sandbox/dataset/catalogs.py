"""Catalogs, their fields and elements: products, invoices, a regular list, suppliers (API section 3.16)."""

from collections.abc import Callable
from random import Random

import orjson

from sandbox.account.identity import ACCOUNT_ID, href
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset import vocabulary
from sandbox.dataset.company import ACCOUNT_CREATED_AT, ADMIN
from sandbox.dataset.fields import Field, FieldSpec, add_groups, define_fields
from sandbox.dataset.link_plan import ELEMENT_BASE, LinkPlan

PRODUCTS, INVOICES, COLORS, SUPPLIERS = 11803, 11805, 11821, 11830
_STATUSES = ("created", "paid", "paid_in_advance", "partially_paid")
_FIELDS: dict[int, tuple[int, tuple[FieldSpec, ...]]] = {
    PRODUCTS: (1289725, (("Артикул", "text", "SKU"), ("Описание", "textarea", "DESCRIPTION"),
                         ("Цена", "price", "PRICE"),
                         ("Группа", "category", "GROUP", ("Кухни", "Фасады", "Фурнитура")),
                         ("Внешний id", "text", "EXTERNAL_ID"))),
    INVOICES: (1289811, (("Статус", "select", "BILL_STATUS", _STATUSES), ("Товары", "items", "ITEMS"),
                         ("Плательщик", "payer", "PAYER"), ("Поставщик", "supplier", "SUPPLIER"),
                         ("Дата оплаты", "date_time", "BILL_PAYMENT_DATE"),
                         ("Сумма", "numeric", "BILL_PRICE"), ("Комментарий", "text", "BILL_COMMENT"))),
    COLORS: (1289911, (("Код RAL", "text"), ("Доставщик", "linked_entity"), ("Наценка, %", "numeric"))),
    SUPPLIERS: (1289951, (("ИНН", "text"), ("Реквизиты", "textarea"))),
}  # fmt: skip
_CATALOGS = (
    (PRODUCTS, "Товары", "products"),
    (INVOICES, "Счета/покупки", "invoices"),
    (COLORS, 'Цвета; "RAL"', "regular"),
    (SUPPLIERS, "Поставщики", "suppliers"),
)


def build(state: AccountState, plan: LinkPlan) -> None:
    """Adds every catalog with its fields, groups and elements."""
    rng = Random(f"catalogs {state.options.seed}")
    for sort, (ident, name, kind) in enumerate(_CATALOGS):
        state.list("catalogs").put(_catalog(state, ident, name, kind, sort))
        add_groups(state, f"catalogs/{ident}")
    elements_of: dict[int, tuple[int, int, Callable[[Random, int], str]]] = {
        PRODUCTS: (ELEMENT_BASE + 1, plan.elements,
                   lambda rng, i: f"{vocabulary.PRODUCT_NAMES[i % 10]} {100 + i}"),
        INVOICES: (ELEMENT_BASE + 2_000_000, max(6, plan.leads // 40), lambda rng, i: f"Счёт {i + 1}"),
        COLORS: (ELEMENT_BASE + 1_000_000, 30, lambda rng, i: f"RAL {1000 + i}"),
        SUPPLIERS: (ELEMENT_BASE + 3_000_000, 5, lambda rng, i: f"ООО «{vocabulary.FIRMS[i]}»"),
    }
    for catalog, (first_id, count, name_of) in elements_of.items():
        fields = define_fields(state, f"catalogs/{catalog}", _FIELDS[catalog][1], _FIELDS[catalog][0], rng)
        rows = (_element(state, rng, catalog, first_id + place, name_of(rng, place), fields, place)
                for place in range(count))
        state.list(f"catalogs/{catalog}/elements").load((int(row["id"]), orjson.dumps(row), ())
                                                        for row in rows)


def _catalog(state: AccountState, ident: int, name: str, kind: str, sort: int) -> Record:
    return {"id": ident, "name": name, "created_by": ADMIN, "updated_by": ADMIN,
            "created_at": ACCOUNT_CREATED_AT, "updated_at": state.start - 90 * 86400, "sort": 10 * sort + 10,
            "type": kind, "can_add_elements": True, "can_show_in_cards": kind == "regular",
            "can_link_multiple": True, "can_be_deleted": kind == "regular", "sdk_widget_code": None,
            "account_id": ACCOUNT_ID, "_links": href(f"catalogs/{ident}")}  # fmt: skip


def _element(state: AccountState, rng: Random, catalog: int, ident: int, name: str, fields: list[Field],
             place: int) -> Record:
    born = ACCOUNT_CREATED_AT + int(rng.random() * (state.start - ACCOUNT_CREATED_AT - 86400))
    values = [field.serialized[int(rng.random() * 48)] for field in fields
              if place % 7 or field.record["code"]]
    record: Record = {"id": ident, "name": name, "created_by": ADMIN, "updated_by": 0, "created_at": born,
                      "updated_at": born + 3600, "is_deleted": None if place % 3 else False,
                      "custom_fields_values": values or None, "catalog_id": catalog, "account_id": ACCOUNT_ID,
                      "invoice_link": f"https://uralkedr.amocrm.ru/invoices/{ident}" if catalog == INVOICES
                      else None,
                      "_links": href(f"catalogs/{catalog}/elements/{ident}")}  # fmt: skip
    if catalog == INVOICES:
        record |= {"currency_id": 1,
                   "_embedded": {"warning": {"message": "Не заполнен ИНН" if place % 4 == 0 else None}}}
    return record
