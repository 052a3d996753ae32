"""Custom fields of each list: definitions and plausible values (API sections 3.8, 3.9).

A field has a pool of values that are serialized once; records written in bulk take their values from the
pools.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import orjson

from sandbox.account.identity import ACCOUNT_ID, TIME_ZONE, href
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset import vocabulary

POOL_SIZE = 48
EDGE_CASE_NAMES = ('Цена "со скидкой"; DROP TABLE --', "100%", "id", "select", "name", "Путь C:\\склад\\n",
                   "Комментарий", "Комментарий",
                   "Очень длинное название поля, которое кто-то когда-то ввёл целиком, не подумав о длине "
                   "идентификаторов!!", "🪵 порода",
                   "updated_at", "a;b'c`d", "  ", "%(name)s {0}", "Таблица\tс табуляцией")  # fmt: skip


@dataclass(slots=True)
class Field:
    """One custom field: its definition as listed, a pool of values, and the pool serialized
    (`serialized`)."""

    record: Record
    kind: str
    pool: list[list[Record]] = field(default_factory=list)
    serialized: list[orjson.Fragment] = field(default_factory=list)

    @property
    def id(self) -> int:
        """The field's id."""
        return int(self.record["id"])

    @property
    def type(self) -> str:
        """The field's type."""
        return str(self.record["type"])

    def entry(self, values: list[Record]) -> Record:
        """Returns an entry of custom_fields_values with these values."""
        return {"field_id": self.id, "field_name": self.record["name"], "field_code": self.record["code"],
                "field_type": self.type, "values": values}  # fmt: skip


ValueMaker = Callable[[Random, Field, AccountState], list[Record]]


def midnight(day: date) -> int:
    """Returns midnight in the account's time zone as Unix time, as dates are stored (section 3.9)."""
    return int(datetime(day.year, day.month, day.day, tzinfo=TIME_ZONE).timestamp())


def _today(state: AccountState) -> date:
    return datetime.fromtimestamp(state.start, TIME_ZONE).date()


def _single_value(value: Any) -> list[Record]:
    return [{"value": value}]


def _option(rng: Random, found: Field, state: AccountState) -> list[Record]:
    chosen = rng.choice(found.record["enums"] or found.record["nested"])
    return [{"value": chosen["value"], "enum_id": chosen["id"], "enum_code": chosen.get("code")}]


def _category(rng: Random, found: Field, state: AccountState) -> list[Record]:
    return [{name: value for name, value in _option(rng, found, state)[0].items() if name != "enum_code"}]


def _options(rng: Random, found: Field, state: AccountState) -> list[Record]:
    chosen = rng.sample(found.record["enums"], rng.randint(1, min(3, len(found.record["enums"]))))
    return [{"value": option["value"], "enum_id": option["id"], "enum_code": option["code"]}
            for option in chosen]


def phone(rng: Random) -> str:
    """Returns a random Russian mobile number."""
    return f"+79{rng.randrange(10**9):09d}"


def _multitext(rng: Random, found: Field, state: AccountState) -> list[Record]:
    option = rng.choice(found.record["enums"])
    text = phone(rng) if found.record["code"] == "PHONE" else f"client{rng.randrange(10**6)}@example.com"
    return [{"value": text, "enum_id": option["id"], "enum_code": option["code"]}]


def _street(rng: Random) -> str:
    return f"ул. {rng.choice(vocabulary.STREETS)} {rng.randint(1, 120)}"


def _smart_address(rng: Random, found: Field, state: AccountState) -> list[Record]:
    parts = {1: ("address_line_1", _street(rng)), 3: ("city", rng.choice(vocabulary.CITIES)),
             5: ("zip", f"62{rng.randrange(10**4):04d}"), 6: ("country", "RU")}  # fmt: skip
    return [{"value": text, "enum_id": ident, "enum_code": code} for ident, (code, text) in parts.items()]


def _legal_entity(rng: Random, found: Field, state: AccountState) -> list[Record]:
    return _single_value({"name": f"ООО «{rng.choice(vocabulary.FIRMS)}»", "entity_type": 2,
                          "address": f"{rng.choice(vocabulary.CITIES)}, ул. {rng.choice(vocabulary.STREETS)}",
                          "real_address": None, "bank_account_number": None,
                          "director": f"{rng.choice(vocabulary.LAST_NAMES)} А. Р.",
                          "vat_id": f"667{rng.randrange(10**7):07d}",
                          "tax_registration_reason_code": 667101001, "kpp": "667101001", "bank_code": None,
                          "external_uid": None})  # fmt: skip


def _items(rng: Random, found: Field, state: AccountState) -> list[Record]:
    price, quantity = rng.randint(100, 30000), rng.choice((1, 2, 2.5))
    return _single_value({"sku": f"F-{rng.randint(100, 999)}",
                          "description": rng.choice(vocabulary.PRODUCT_NAMES), "unit_price": price,
                          "quantity": quantity, "unit_type": "шт", "discount": {
                              "type": "percentage", "value": 5}, "vat_rate_id": 0, "vat_rate_value": None,
                          "external_uid": "", "product_id": 2218000 + rng.randint(1, 20),
                          "bonus_points_per_purchase": 0, "metadata": [], "is_discount_recalculated": False,
                          "is_total_sum_recalculated": False,
                          "total_sum": price * quantity * 0.95})  # fmt: skip


def _linked_entity(rng: Random, found: Field, state: AccountState) -> list[Record]:
    return _single_value({"name": f"ООО «{rng.choice(vocabulary.FIRMS)}»", "entity_id": 48200000,
                          "entity_type": "companies", "catalog_id": None})


def _file(rng: Random, found: Field, state: AccountState) -> list[Record]:
    uuids = [f"{rng.getrandbits(32):08x}-5b1e-4b0e-9f53-{rng.getrandbits(48):012x}" for _ in range(2)]
    name = f"Договор {rng.randint(1, 999)}.pdf"
    return _single_value({"file_uuid": uuids[0], "version_uuid": uuids[1], "file_name": name,
                          "file_size": rng.randint(1000, 10**6), "is_deleted": rng.random() < 0.2})


def _birthday(rng: Random, found: Field, state: AccountState) -> list[Record]:
    return _single_value(midnight(date(1940, 1, 1) + timedelta(days=rng.randrange(24000))))


def _payer(rng: Random, found: Field, state: AccountState) -> list[Record]:
    return _single_value(
        {
            "name": f"{rng.choice(vocabulary.FIRST_NAMES)} {rng.choice(vocabulary.LAST_NAMES)}",
            "type": "individual",
            "entity_type": "contacts",
            "entity_id": 48200001,
        }
    )


def _text(rng: Random, found: Field, state: AccountState) -> list[Record]:
    return _single_value(rng.choice(vocabulary.FIELD_TEXTS))


VALUE_MAKERS: dict[str, ValueMaker] = {
    "text": lambda rng, found, world: _single_value(
        f"{rng.choice(vocabulary.MATERIALS)} {rng.randint(1, 999)}"),
    "textarea": lambda rng, found, world: _single_value(
        f"{rng.choice(vocabulary.FIELD_TEXTS)}\n{rng.choice(vocabulary.FIELD_TEXTS)}"),
    "url": lambda rng, found, world: _single_value(
        f"https://uralkedr.ru/p/{rng.randint(1, 9999)}?a=1&b=%D1%8F"),
    "streetaddress": lambda rng, found, world: _single_value(
        f"{rng.choice(vocabulary.CITIES)}, {_street(rng)}, кв. {rng.randint(1, 200)}"),
    "tracking_data": lambda rng, found, world: _single_value(
        rng.choice(("yandex", "vk", "cpc", "spring_2026", "(not set)"))),
    "numeric": lambda rng, found, world: _single_value(
        rng.choice((str(rng.randint(0, 500)), f"{rng.randint(1, 90)}.{rng.randint(1, 99)}"))),
    "price": lambda rng, found, world: _single_value(str(rng.randint(100, 90000))),
    "monetary": lambda rng, found, world: _single_value(
        f"{rng.randint(1000, 200000)}.{rng.choice(('50', '05', '99'))}"),
    "checkbox": lambda rng, found, world: _single_value(rng.random() < 0.5),
    "select": _option, "radiobutton": _option, "category": _category,
    "multiselect": _options,
    "date": lambda rng, found, world: _single_value(
        midnight(_today(world) + timedelta(days=rng.randint(-500, 60)))),
    "birthday": _birthday,
    "date_time": lambda rng, found, world: _single_value(world.start - rng.randrange(500 * 86400) + 20
                                                         * 86400),
    "multitext": _multitext,
    "smart_address": _smart_address,
    "legal_entity": _legal_entity,
    "items": _items,
    "linked_entity": _linked_entity,
    "chained_list": lambda rng, found, world: [{"catalog_id": 11803,
                                                "catalog_element_id": 2218000 + rng.randint(1, 20)}],
    "file": _file,
    "payer": _payer,
    "supplier": lambda rng, found, world: _single_value({"entity_id": 5218000 + rng.randint(0, 4)}),
    "org_legal_name": _text,
    "hologram": lambda rng, found, world: [{"value": {"frames": [rng.randint(1, 9), 2], "depth": 0.5},
                                            "mode": "3d"}],
}  # fmt: skip
PLAUSIBLE_VALUES: dict[str, ValueMaker] = {
    "Площадь, м²": lambda rng, found, world: _single_value(str(rng.randint(12, 90) / 2)),
    "Скидка, %": lambda rng, found, world: _single_value(str(rng.randint(0, 15))),
    "Предоплата": lambda rng, found, world: _single_value(f"{rng.randint(2, 60) * 2500}.00"),
}
"""Name of a field → its values in a plausible company, where those of its type are not."""
FieldSpec = tuple[Any, ...]  # name, type[, code[, options]]
_PHONE = ("Телефон", "multitext", "PHONE", ("WORK", "WORKDD", "MOB", "FAX", "HOME", "OTHER"))
_EMAIL = ("Email", "multitext", "EMAIL", ("WORK", "PRIV", "OTHER"))
LEAD_FIELDS: tuple[FieldSpec, ...] = (
    ("Номер договора", "text"), ("Материал фасада", "select", None, vocabulary.MATERIALS),
    ("Площадь, м²", "numeric"), ("Дата замера", "date"), ("Нужен лифт", "checkbox"),
    ("Техника", "multiselect", None, ("Духовка", "Вытяжка", "Мойка", "Варочная панель")),
    ("Предоплата", "monetary"), ("Планировка", "radiobutton", None, ("Прямая", "Угловая", "Остров")),
    ("Визит в салон", "date_time"), ("Пожелания", "textarea"), ("Адрес доставки", "streetaddress"),
    ("Проект", "url"), ("utm_source", "tracking_data", "UTM_SOURCE"),
    ("utm_medium", "tracking_data", "UTM_MEDIUM"), ("Адрес объекта", "smart_address"),
    ("Годовщина", "birthday"), ("Цвет", "chained_list"), ("Договор", "file"), ("Заказчик", "legal_entity"),
    ("Голограмма", "hologram"), ("Название юр. лица", "org_legal_name"),
)  # fmt: skip
CONTACT_FIELDS: tuple[FieldSpec, ...] = (
    _PHONE, _EMAIL, ("Должность", "text", "POSITION"), ("День рождения", "birthday"),
    ("Адрес", "smart_address"), ("Пол", "radiobutton", None, ("ж", "м")),
    ("Согласие на рассылку", "checkbox", "USER_AGREEMENT"), ("Комментарий", "textarea"),
)  # fmt: skip
COMPANY_FIELDS: tuple[FieldSpec, ...] = (
    _PHONE, _EMAIL, ("Web", "url", "WEB"), ("Адрес", "textarea", "ADDRESS"), ("Юр. лицо", "legal_entity"),
    ("Отрасль", "select", None, ("Стройка", "Дизайн", "Торговля")), ("Договор до", "date"),
    ("Оборот", "monetary"),
)  # fmt: skip
CUSTOMER_FIELDS: tuple[FieldSpec, ...] = (
    ("Уровень", "select", None, ("Серебро", "Золото")),
    ("Скидка, %", "numeric"),
    ("Клиент с", "date"),
    ("Цвет", "chained_list"),
)
SEGMENT_FIELDS: tuple[FieldSpec, ...] = (("Описание", "textarea"), ("Порог", "numeric"))
# segments reuse field ids of contacts: a field id need not be unique within an account (section 6.35)
_FIRST_ID = {"leads": 1284500, "contacts": 1284400, "companies": 1286400, "customers": 1287400,
             "customers/segments": 1284400}


def extra_lead_fields(state: AccountState) -> tuple[FieldSpec, ...]:
    """Returns further fields of leads: more than a page of 50, and `--fields` values for every lead."""
    types = ("text", "numeric", "select", "date", "checkbox", "text", "monetary", "multiselect")
    if not state.options.odd:
        return tuple((f"Параметр {i + 1}", types[i % 8], None, vocabulary.MATERIALS)
                     for i in range(state.options.fields - len(LEAD_FIELDS) + 1))
    wanted = max(40, state.options.fields + 12) - len(EDGE_CASE_NAMES)
    awkward = tuple((name, types[i % 3], None, ("да", "нет", "да; нет"))
                    for i, name in enumerate(EDGE_CASE_NAMES))
    return awkward + tuple((f"Параметр {i + 1}", types[i % 8], None, vocabulary.MATERIALS)
                           for i in range(wanted))


def define_fields(state: AccountState, path: str, specs: Iterable[FieldSpec], first_id: int,
                  rng: Random) -> list[Field]:
    """Defines the fields of one list, fills their pools and stores the definitions."""
    kind = path.split("/")[-1] if not path.startswith("catalogs") else "catalogs"
    found = []
    for place, spec in enumerate(specs):
        name, type_, code, options = (*spec, None, None)[:4]
        record = _definition(path, kind, first_id + 2 * place, name, type_, code, 500 + 10 * place)
        if options and type_ == "category":
            record["nested"] = [{"id": _enum_id(first_id, place, i), "parent_id": 0, "value": v, "sort": i}
                                for i, v in enumerate(options)]
        elif options and type_ in ("select", "multiselect", "radiobutton", "multitext"):
            codes = options if type_ == "multitext" else ("OAK" if i == 1 else None
                                                          for i in range(len(options)))
            record["enums"] = [{"id": _enum_id(first_id, place, i), "value": v, "sort": 10 * i + 10,
                                "code": c}
                               for i, (v, c) in enumerate(zip(options, codes, strict=True))]  # fmt: skip
        state.list(f"{path}/custom_fields").put(record)
        found.append(fill_pool(Field(record, kind), rng, state))
    return found


def _enum_id(first_id: int, place: int, index: int) -> int:
    return (first_id - 1283000) * 1000 + place * 20 + index * 2 + 1


def fill_pool(found: Field, rng: Random, state: AccountState) -> Field:
    """Fills a field's pool of values and returns the field."""
    make = VALUE_MAKERS.get(found.type, _text)
    if not state.options.odd:
        make = PLAUSIBLE_VALUES.get(found.record["name"], make)
    found.pool = [make(rng, found, state) for _ in range(POOL_SIZE)]
    found.serialized = [orjson.Fragment(orjson.dumps(found.entry(values))) for values in found.pool]
    return found


def _definition(path: str, kind: str, ident: int, name: str, type_: str, code: str | None,
                sort: int) -> Record:
    """Returns a field definition with the keys that this entity's definitions have (section 3.8)."""
    record: Record = {"id": ident, "name": name, "type": type_, "account_id": ACCOUNT_ID, "code": code,
                      "sort": sort, "enums": None, "is_deletable": code is None, "entity_type": kind,
                      "tracking_callback": None, "currency": "RUB" if type_ == "monetary" else None,
                      "chained_lists": None, "nested": None, "settings": None, "search_in": None,
                      "triggers": []}  # fmt: skip
    if kind in ("leads", "contacts", "companies"):
        record |= {"is_api_only": False, "group_id": f"{kind}_51204877310266" if ident % 4 == 0 else None,
                   "required_statuses": [], "is_predefined": code in ("PHONE", "EMAIL"),
                   "remind": "day" if type_ == "birthday" else None}  # fmt: skip
    if kind == "leads":
        record |= {
            "is_computed": False,
            "hidden_statuses": [{"status_id": 57904410, "pipeline_id": 6820154}] if ident % 24 == 4 else [],
            "required_statuses": [{"status_id": 142, "pipeline_id": 6820154}] if ident % 20 == 0 else None,
        }
    if kind == "customers":
        record |= {"group_id": "default"}
    if kind == "catalogs":
        record |= {"is_visible": True, "is_required": code == "NAME",
                   "search_in": "contacts_and_companies" if type_ == "linked_entity" else None}
    if type_ == "chained_list":
        record["chained_lists"] = [{"title": None, "catalog_id": 11803, "parent_catalog_id": 0}]
    if type_ == "tracking_data":
        record["tracking_callback"] = "function() { return null; }"
    return record | {"_links": href(f"{path}/custom_fields/{ident}")}


def add_groups(state: AccountState, path: str) -> None:
    """Adds the field groups of one list; their ids are strings."""
    kind = "catalogs" if path.startswith("catalogs") else path
    listed = [("default", "Основное", True), ("statistic", "Статистика", True),
              (f"{kind}_51204877310266", "Параметры заказа", False)]
    for sort, (ident, name, predefined) in enumerate(listed[:1] if kind == "catalogs" else listed):
        state.list(f"{path}/custom_fields/groups").put(
            {"id": ident, "name": name, "is_predefined": predefined, "type": "custom_field_group",
             "entity_type": kind, "sort": sort,
             "_links": href(f"{path}/custom_fields/groups/{ident}")})  # fmt: skip


def build(state: AccountState) -> dict[str, list[Field]]:
    """Adds the fields of leads, contacts, companies, customers and segments; returns them by list path."""
    rng = Random(f"fields {state.options.seed}")
    usual = tuple(spec for spec in LEAD_FIELDS if state.options.odd or spec[1] != "hologram")
    specs = {"leads": usual + extra_lead_fields(state), "contacts": CONTACT_FIELDS,
             "companies": COMPANY_FIELDS, "customers": CUSTOMER_FIELDS,
             "customers/segments": SEGMENT_FIELDS}  # fmt: skip
    for path in ("leads", "contacts", "companies", "customers"):
        add_groups(state, path)
    return {path: define_fields(state, path, listed, _FIRST_ID[path], rng) for path, listed in specs.items()}
