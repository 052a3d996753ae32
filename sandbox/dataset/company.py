"""The account and its setup: users, roles, pipelines, loss reasons, sources, tags (API sections 3.1-3.7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from sandbox.account.identity import ACCOUNT_ID, API_URL, SUBDOMAIN, href
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset import vocabulary

ADMIN, SECOND_ADMIN, REMOVED_USER, INACTIVE_USER = 9412873, 9412875, 9380011, 9412940
MANAGERS = (9412901, 9412903, 9412907, 9412911, 9412919)
GROUP_OF = {9412901: 412386, 9412903: 412386, 9412907: 0, 9412911: 0, 9412919: 412390, REMOVED_USER: 0,
            ADMIN: 0, SECOND_ADMIN: 0, INACTIVE_USER: 0}
RESPONSIBLE_USERS = (*MANAGERS, *MANAGERS, *MANAGERS, ADMIN, REMOVED_USER)
ACCOUNT_CREATED_AT = 1675660500
_FULL_RIGHTS = {"view": "A", "edit": "A", "add": "A", "delete": "A", "export": "A"}
_GROUPS = (("Отдел продаж", 0), ("Оптовый отдел", 412386), ("Сервис", 412390))
_ROLES = ((218774, "Менеджер опта", "G"), (218775, "Менеджер салона", "M"), (218776, "Руководитель", "A"))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline as the generator needs it: id, unsorted stage, open stages in order, archived or not."""

    id: int
    unsorted: int
    stages: tuple[int, ...]
    is_archive: bool = False


PIPELINES = (
    (6820154, "Розница", False, ("Новая заявка", "Замер", "Проект", "Смета согласована", "Договор",
                                 "Производство", "Монтаж"), "Кухня установлена"),
    (6820158, "Опт", False, ("Первичный контакт", "Коммерческое предложение", "Договор", "Отгрузка"),
     "Отгружено и оплачено"),
    (6820162, "Сервис", False, ("Обращение", "Выезд мастера"), "Успешно реализовано"),
    (6820166, "Выставка 2024 (архив)", True, ("Анкета", "Звонок"), "Стал клиентом"),
)
_LOST_NAMES = ("Закрыто и не реализовано", "Отказ", "Закрыто и не реализовано", "Не интересно")
_COLORS = ("#99ccff", "#ffff99", "#ffcc66", "#CCC8F9", "#deff81", "#f9deff", "#98cbff")


def build(state: AccountState) -> list[Pipeline]:
    """Stores the whole setup and returns the pipelines, which the deals are generated for."""
    _set_account(state)
    _add_users_and_roles(state)
    _add_reasons_and_sources(state)
    _add_tags(state)
    for code in ("RUB", "USD", "EUR", "KZT"):
        state.list("currencies").put({"code": code})
    return [_add_pipeline(state, place, *row) for place, row in enumerate(PIPELINES)]


def _set_account(state: AccountState) -> None:
    forms = {"default": "заказы", "genitive": "заказов", "dative": "заказам", "accusative": "заказы",
             "instrumental": "заказами", "prepositional": "заказах"}  # fmt: skip
    types: list[tuple[Any, ...]] = [(1, "Связаться", "FOLLOW_UP", None, None),
                                    (2, "Встреча", "MEETING", None, None)]
    types += [(2914400 + 2 * i, name, None, "f9deff", 5) for i, name in enumerate(vocabulary.TASK_TYPES)]
    state.account = {
        "id": ACCOUNT_ID, "name": "Уральский кедр", "subdomain": SUBDOMAIN, "current_user_id": ADMIN,
        "country": "RU", "currency": "RUB", "currency_symbol": "₽", "customers_mode": "periodicity",
        "is_unsorted_on": True, "is_loss_reason_enabled": True, "is_helpbot_enabled": False,
        "is_technical_account": False, "is_api_filter_enabled": True, "contact_name_display_order": 1,
        "created_at": ACCOUNT_CREATED_AT, "created_by": 0, "updated_at": state.start - 40 * 86400,
        "updated_by": ADMIN, "mobile_feature_version": 0, "amojo_id": "7d0c9a52-3c1e-4be8-9a0f-51c2f6d0b7e4",
        "uuid": "b1e6f0aa-92d5-4a77-8f1c-0d3b6c5e9a21", "drive_url": "", "version": 22,
        "entity_names": {"leads": {"ru": {"gender": "m", "plural_form": forms,
                                          "singular_form": {"default": "заказ"}}}},
        "invoices_settings": {"lang": "ru", "invoices_catalog_id": 11805},
        "_links": {"self": {"href": f"{API_URL}/account"}},
        "_embedded": {
            "amojo_rights": {"can_direct": True, "can_create_groups": True},
            "users_groups": [{"id": ident, "name": name, "uuid": None} for name, ident in _GROUPS],
            "task_types": [{"id": i, "name": n, "color": color, "icon_id": icon, "code": code}
                           for i, n, code, color, icon in types],
            "datetime_settings": {"date_pattern": "d.m.Y H:i", "short_date_pattern": "d.m.Y",
                                  "short_time_pattern": "H:i", "date_formant": "d.m.Y",
                                  "time_format": "H:i:s", "timezone": "Asia/Yekaterinburg",
                                  "timezone_offset": "+05:00"},
        },
    }  # fmt: skip


def rights(level: str, **more: Any) -> Record:
    """Returns the rights object of a user or role (section 3.3)."""
    entity_rights = {"view": level, "edit": "M" if level != "A" else "A", "add": "A", "delete": "D",
                     "export": "D"}
    return {"leads": entity_rights, "contacts": entity_rights, "companies": entity_rights,
            "tasks": {"edit": "A", "delete": "D"}, "mail_access": False, "catalog_access": True,
            "status_rights": None} | more  # fmt: skip


def _add_users_and_roles(state: AccountState) -> None:
    restricted = [{"entity_type": "leads", "pipeline_id": 6820158, "status_id": 143,
                   "rights": {"view": "A", "edit": "D", "delete": "D", "export": "D"}}]  # fmt: skip
    staff: dict[int, list[Record]] = {}
    for place, ident in enumerate((ADMIN, SECOND_ADMIN, *MANAGERS, INACTIVE_USER)):
        admin = ident in (ADMIN, SECOND_ADMIN)
        role, role_name, level = _ROLES[place % 2]
        granted = (dict.fromkeys(("leads", "contacts", "companies"), _FULL_RIGHTS) | {"mail_access": True}
                   if admin
                   else {})
        user_rights = rights(level, **granted, is_admin=admin, is_free=False,
                             is_active=ident != INACTIVE_USER, group_id=None if admin else GROUP_OF[ident],
                             role_id=None if admin else role) | (
                                 {} if admin else {"status_rights": restricted})  # fmt: skip
        first, last = vocabulary.FIRST_NAMES[place], vocabulary.LAST_NAMES[place]
        state.list("users").put({
            "id": ident, "name": f"{first} {last}", "email": f"user{place}@uralkedr.ru", "lang": "ru",
            "rights": user_rights, "uuid": None, "amojo_id": f"0f3d4b7e-6a81-4a1d-b0b9-{ident:012x}",
            "user_rank": ("newbie", "candidate", "master")[place % 3], "phone_number": None,
            "_links": href(f"users/{ident}/"),
            "_embedded": {
                "roles": [] if admin else [{"id": role, "name": role_name, "_links": href(f"roles/{role}")}],
                "groups": [{"id": i, "name": n} for n, i in _GROUPS
                           if not admin and i == GROUP_OF[ident]]}})  # fmt: skip
        staff.setdefault(0 if admin else role, []).append({"id": ident})
    for role, name, level in _ROLES:
        status = {"status_rights": restricted if level == "G" else None}
        state.list("roles").put({"id": role, "name": name, "rights": rights(level) | status,
                                 "_links": href(f"roles/{role}"),
                                 "_embedded": {"users": staff.get(role, [])}})  # fmt: skip


def status_record(pipeline: int, ident: int, name: str, sort: int, type_: int = 0,
                  color: str = "#c1c1c1") -> Record:
    """Returns a stage as the statuses endpoint does, with descriptions (section 3.5)."""
    return {"id": ident, "name": name, "sort": sort, "is_editable": type_ == 0 and ident > 143,
            "pipeline_id": pipeline, "color": color, "type": type_, "account_id": ACCOUNT_ID,
            "_links": href(f"leads/pipelines/{pipeline}/statuses/{ident}"), "descriptions": []}  # fmt: skip


def _add_pipeline(state: AccountState, place: int, ident: int, name: str, archived: bool,
                  stages: tuple[str, ...], won: str) -> Pipeline:
    first = 57904400 + 100 * place
    records = [status_record(ident, first, "Неразобранное", 10, 1)]
    records += [status_record(ident, first + 10 + 2 * i, stage, 20 + 10 * i, 0, _COLORS[i])
                for i, stage in enumerate(stages)]
    records += [status_record(ident, 142, won, 10000, 0, "#CCFF66"),
                status_record(ident, 143, _LOST_NAMES[place], 11000, 0, "#D5D8DB")]
    if place == 0:
        records[2]["descriptions"] = list(_descriptions(ident, first + 12))
    for record in records:
        state.list(f"leads/pipelines/{ident}/statuses").put(record)
    state.list("leads/pipelines").put({"id": ident, "name": name, "sort": place + 1, "is_main": place == 0,
                                       "is_unsorted_on": True, "is_archive": archived,
                                       "account_id": ACCOUNT_ID, "_links": href(f"leads/pipelines/{ident}"),
                                       "_embedded": {"statuses": []}})  # fmt: skip
    embed_statuses(state, ident)
    return Pipeline(ident, first, tuple(first + 10 + 2 * i for i in range(len(stages))), archived)


def _descriptions(pipeline: int, status: int) -> Iterator[Record]:
    for place, level in enumerate(("newbie", "candidate", "master")):
        yield {"id": 10377 + place, "account_id": ACCOUNT_ID, "created_at": "2026-08-01 08:00:00",
               "updated_at": "2026-08-01 08:00:00", "created_by": 0, "updated_by": ADMIN if place else None,
               "pipeline_id": pipeline, "status_id": status, "level": level,
               "description": "Согласуй дату и адрес, возьми лазерный дальномер"}  # fmt: skip


def embed_statuses(state: AccountState, pipeline: int) -> None:
    """Embeds a pipeline's statuses in the pipeline, without their descriptions."""
    record = state.list("leads/pipelines").get(pipeline)
    assert record is not None
    found = sorted(state.list(f"leads/pipelines/{pipeline}/statuses").records(),
                   key=lambda status: int(status["sort"]))
    record["_embedded"] = {"statuses": [{k: v for k, v in status.items() if k != "descriptions"}
                                        for status in found]}
    state.list("leads/pipelines").put(record)


def _add_reasons_and_sources(state: AccountState) -> None:
    for place, name in enumerate(vocabulary.LOSS_REASONS):
        ident = 13527061 + 2 * place
        state.list("leads/loss_reasons").put({"id": ident, "name": name, "sort": 100000 + place,
                                              "created_at": ACCOUNT_CREATED_AT,
                                              "updated_at": ACCOUNT_CREATED_AT + 86400 * place,
                                              "_links": href(f"leads/loss_reasons/{ident}")})  # fmt: skip
    for place, name in enumerate(vocabulary.SOURCES[:2]):
        services = [{"type": "whatsapp", "params": {"waba": True},
                     "pages": [{"name": name, "id": "p-1", "link": "+73432260118"}]}]
        state.list("sources").put({"id": 17204933 + place, "name": name, "pipeline_id": 6820154,
                                   "external_id": f"src-{place}", "default": place == 0, "origin_code": None,
                                   "services": services if place == 0 else [],
                                   "_links": href(f"sources/{17204933 + place}")})  # fmt: skip


def _add_tags(state: AccountState) -> None:
    """Adds one tag list per entity; from a scale of 200 leads on, the leads' list exceeds a page."""
    many = 270 if state.options.scale >= 200 and state.options.odd else 0
    rng = Random(f"tags {state.options.seed}")
    usual = vocabulary.TAGS if state.options.odd else vocabulary.TAGS[:vocabulary.PLAIN_TAGS]
    listed = {"leads": (*usual, *(f"тендер {i:03d}" for i in range(many))),
              "contacts": usual, "companies": vocabulary.TAGS[:12],
              "customers": vocabulary.TAGS[:6]}  # fmt: skip
    for base, (kind, tags) in enumerate(listed.items()):
        for place, name in enumerate(tags):
            color = rng.choice(("FFDC7F", "BBEBC1", None)) if kind == "leads" else None
            state.list(f"{kind}/tags").put({"id": 512900 + 10000 * base + 2 * place, "name": name,
                                            "color": color})
