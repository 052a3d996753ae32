"""Tasks, notes of every type and events of every type (API sections 3.17 to 3.20).

Events agree with the records: the last change of a field carries the value that the record has.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from sandbox.account.event_log import event_payload
from sandbox.account.identity import ACCOUNT_ID, API_URL, singular
from sandbox.account.lists import KINDS
from sandbox.account.records import field_event_payload
from sandbox.account.state import AccountState
from sandbox.account.store import Record, loads
from sandbox.dataset import vocabulary
from sandbox.dataset.company import GROUP_OF, MANAGERS, RESPONSIBLE_USERS
from sandbox.dataset.crm import DatasetBuilder, PackedRow
from sandbox.dataset.link_plan import ELEMENT_BASE

EventRow = tuple[str, str, int, list[Record], list[Record]]
TASK_BASE, NOTE_BASE = 50318000, 301887000
_TASK_INTERVALS = (("leads", 3), ("contacts", 20), ("companies", 15), ("customers", 10))
_NOTE_ID_OFFSETS = {"leads": 0, "contacts": 1, "companies": 2, "customers": 3}
NOTE_PARAMS: dict[str, Any] = {
    "common": {"text": "Клиент просил перезвонить\nво вторник 📞"},
    "call_out": {"uniq": "a7f0-441-9", "duration": 187, "source": "Мегафон ВАТС", "link": None,
                 "phone": "+79220345518", "call_responsible": 9412901, "call_status": 4, "call_result": ""},
    "call_in": {"uniq": "a7f0-441-8", "duration": "0", "source": "АТС",
                "link": "https://rec.example.com/1.mp3", "phone": "79220345518", "call_responsible": "Тимур",
                "call_status": 6, "call_result": "не взял"},
    "service_message": {"service": "Склад", "text": "Отгрузка завершена"},
    "extended_service_message": {"service": "1С", "text": "Документ № 7\nпроведён"},
    "message_cashier": {"status": "shown", "text": "Чек выбит"},
    "geolocation": {"text": "Объект", "address": "Екатеринбург, ул. Малышева 84", "longitude": "60.6122",
                    "latitude": "56.8519"},
    "sms_in": {"text": "Да, подходит", "phone": "+79220345518"},
    "sms_out": {"text": "Замер завтра в 12:00", "phone": "+79220345518"},
    "attachment": {"is_drive_attachment": True, "text": "Договор", "original_name": "Договор 418.pdf",
                   "file_uuid": "c0a8f7d4-5b1e-4b0e-9f53-7f2a61d3c901",
                   "version_uuid": "1f7be3c2-0d6a-4cf1-a6f2-3d8c1b5e7740", "file_name": "Dogovor_418.pdf"},
    "invoice_paid": {"text": "Счёт 12 оплачен", "service": "Счета", "icon_url": "https://example.com/i.png"},
    "bill_paid": {"text": "Оплачен счёт", "service": "Счета", "icon_url": None},
    "amomail_message": {"thread_id": 88120, "message_id": 190447, "private": False, "income": True,
                        "from": {"email": "a@example.com", "name": "А"},
                        "to": {"email": "b@example.com", "name": ""}, "content_summary": "Смета",
                        "attach_cnt": 0, "delivery": None, "subject": "Смета"},
    "chat": [], "site_visit": {"url": "https://uralkedr.ru/calc"},
    "link_followed": {"url": "https://uralkedr.ru/p/1"},
    "targeting_in": {"service": "vkontakte", "campaign": "весна", "contacts": []},
    "targeting_out": {"service": "mailchimp", "campaign": "лето", "contacts": [1]},
    "transaction": {"transaction_id": 358204},
    "dropbox_attachment": {"filename": "план.dwg", "link": "https://example.com/f"},
    "zoom_meeting": {"conference": {"id": "88"}, "recordings": []},
    "ai_result": {"answer_id": 5, "is_error": False, "talk_id": 3381, "text": "Ответ"},
    "hologram_note": {"frames": [[1, 2], []], "deep": {"er": None}},
}  # fmt: skip


def build(builder: DatasetBuilder) -> None:
    """Adds tasks, then notes, then the events that no deal or task has caused."""
    builder.state.list("tasks").load(_tasks(builder))
    for kind in KINDS:
        builder.state.list(f"{kind}/notes").load(_notes(builder, kind))
    _add_field_changes(builder)
    _add_event_of_each_type(builder)


def _tasks(builder: DatasetBuilder) -> Iterator[PackedRow]:
    state, rng = builder.state, builder.rng
    owned = [(kind, ident) for kind, every in _TASK_INTERVALS
             for ident in list(state.list(kind).ids)[::every]]
    for place, (kind, ident) in enumerate([("", 0), *owned, ("", 0)]):
        task = TASK_BASE + place
        born = state.start - 3600 - int(rng.random() ** 2 * 400 * 86400)
        done = bool(rng.random() < 0.85) if kind else place == 0
        due = (born + int(rng.random() * 5 * 86400) if done
               else state.start + int((rng.random() - 0.3) * 10 * 86400))
        changed, responsible = (born + int(rng.random() * max(0, min(86400, state.start - 40 - born))),
                                RESPONSIBLE_USERS[int(rng.random() * 17)])
        record = {"id": task, "created_by": 0, "updated_by": responsible, "created_at": born,
                  "updated_at": changed, "responsible_user_id": responsible,
                  "group_id": GROUP_OF[responsible], "entity_id": ident or None, "entity_type": kind or None,
                  "duration": 0 if place % 3 else 1800, "is_completed": done,
                  "task_type_id": (1, 2, 2914400)[place % 3],
                  "text": vocabulary.TASK_TEXTS[place % 6] if place != 5 else "",
                  "result": {"text": "Сделано; \"всё\""} if done and place % 2 == 0 else [],
                  "complete_till": due, "account_id": ACCOUNT_ID,
                  "_links": {"self": {"href": f"{API_URL}/tasks/{task}"}}}  # fmt: skip
        builder.event_log.add("task_added", "task", task, born, 0)
        if done:
            builder.event_log.add("task_completed", "task", task, changed, responsible)
        elif kind:
            rows = state.list(kind).rows
            rows[ident] = rows[ident].replace(b'"closest_task_at":null', b'"closest_task_at":%d' % due, 1)
        yield task, orjson.dumps(record), (born, due, changed)


def _notes(builder: DatasetBuilder, kind: str) -> Iterator[PackedRow]:
    """Yields notes: every type at least once per kind, then common notes and calls."""
    state, rng = builder.state, builder.rng
    ids, types = list(state.list(kind).ids), [
        name for name in NOTE_PARAMS if state.options.odd or not name.startswith("hologram")]
    count = max(len(types), len(ids) // (2 if kind == "leads" else 4))
    for place in range(count):
        note = NOTE_BASE + 4 * place + _NOTE_ID_OFFSETS[kind]
        type_ = types[place] if place < len(types) else types[(0, 0, 1, 2)[place % 4]]
        born, responsible = state.start - 1800 - int(rng.random() ** 2 * 500 * 86400), MANAGERS[place % 5]
        owner = ids[int(rng.random() * len(ids))]
        record = {"id": note, "entity_id": owner, "created_by": responsible, "updated_by": responsible,
                  "created_at": born, "updated_at": born + place % 60, "responsible_user_id": responsible,
                  "group_id": GROUP_OF[responsible], "note_type": type_,
                  "params": NOTE_PARAMS[type_], "account_id": ACCOUNT_ID,
                  "_links": {"self": {"href": f"{API_URL}/{kind}/{owner}/notes/{note}"}},
                  "is_pinned": place % 50 == 0}  # fmt: skip
        event = {"common": "common_note_added", "call_in": "incoming_call",
                 "call_out": "outgoing_call"}.get(type_)
        if event:
            builder.event_log.add(event, singular(kind), owner, born, responsible,
                                  b'[{"note":{"id":%d}}]' % note)
        yield note, orjson.dumps(record), (born + place % 60,)


def _add_field_changes(builder: DatasetBuilder) -> None:
    """Adds events to every fifth deal: its select field changed to the current value, its tags were added."""
    leads = builder.state.list("leads")
    for ident in leads.ids[::5]:
        record = loads(leads.rows[ident])
        changed = next((found for found in record["custom_fields_values"] or []
                        if found["field_type"] == "select"), None)
        at = record["created_at"] + (record["updated_at"] - record["created_at"]) // 2
        if changed is not None:
            earlier = {"custom_field_value": {"field_id": changed["field_id"], "field_type": 4,
                                              "enum_id": None, "text": "раньше"}}
            after = orjson.dumps(field_event_payload(changed, changed["values"]))
            builder.event_log.add(f"custom_field_{changed['field_id']}_value_changed", "lead", ident, at,
                                  record["updated_by"], after,
                                  orjson.dumps([earlier]) if ident % 2 else b"[]")  # fmt: skip
        if record["_embedded"]["tags"]:
            tags = [{"tag": {"name": tag["name"]}} for tag in record["_embedded"]["tags"]]
            builder.event_log.add("entity_tag_added", "lead", ident, at, 0, orjson.dumps(tags))


REPORTED_TYPES = ("incoming_mail", "outgoing_mail", "ai_result", "conversation_answered", "talk_missed_event",
                  "meta_chat_subscription_added", "meta_chat_subscription_removed", "page_mention",
                  "video_opened", "video_closed", "picture_opened", "picture_closed", "zoom_conference",
                  "dropbox_attachment")


def _note_events(lead: int, note: list[Record]) -> list[EventRow]:
    kinds = ("attachment", "targeting_in", "targeting_out", "geo", "service", "site_visit",
             "message_to_cashier")
    return [(f"{kind}_note_added", "lead", lead, note, []) for kind in kinds]


def _link_events(lead: int, contact: int, company: int, customer: int) -> list[EventRow]:
    def link(kind: str, ident: int) -> list[Record]:
        return event_payload("link", entity={"type": kind, "id": ident})

    return [("contact_linked", "lead", lead, link("contact", contact), []),
            ("contact_unlinked", "lead", lead, [], link("contact", 48100003)),
            ("lead_linked", "contact", contact, link("lead", lead), []),
            ("lead_unlinked", "contact", contact, [], link("lead", 21599001)),
            ("company_linked", "contact", contact, link("company", company), []),
            ("company_unlinked", "contact", contact, link("company", 48100002), []),
            ("customer_linked", "contact", contact, link("customer", customer), []),
            ("customer_unlinked", "contact", contact, [], link("customer", 1900001))]


def _task_events(task: int, start: int) -> list[EventRow]:
    return [("task_deleted", "task", 50310001, [], []),
            ("task_text_changed", "task", task, event_payload("task", text="Перезвонить"),
             event_payload("task", text="Позвонить")),
            ("task_type_changed", "task", task, event_payload("task_type", id=1),
             event_payload("task_type", id=2)),
            ("task_deadline_changed", "task", task, event_payload("task_deadline", timestamp=start),
             event_payload("task_deadline", timestamp=start - 60))]


def _message_events(lead: int, contact: int, note: list[Record]) -> list[EventRow]:
    message = event_payload("message", id="e5f1c2d7-0a4b-4b7e-93c8-2f6d10ab7c55", origin="telegram",
                            talk_id=3381)
    return [("incoming_sms", "contact", contact, note, []), ("outgoing_sms", "contact", contact, note, []),
            ("link_followed", "contact", contact, note, []),
            ("incoming_chat_message", "lead", lead, message, []),
            ("outgoing_chat_message", "contact", contact, message, []),
            ("entity_direct_message", "lead", lead, message, [])]


def _element_events(lead: int) -> list[EventRow]:
    return [("entity_linked", "lead", lead, event_payload("link", entity={
                "type": "catalog_11803", "id": ELEMENT_BASE + 1, "name": "Фасад"}), []),
            ("entity_unlinked", "lead", lead, [],
             event_payload("unlink", entity={"type": "contact", "id": 48100003}))]


def _element_field(state: AccountState) -> int:
    """Returns the id of a field of products."""
    return int(state.list("catalogs/11803/custom_fields").ids[0])


def _responsible(state: AccountState) -> int:
    """Returns the responsible user of the first task."""
    return int(next(state.list("tasks").records())["responsible_user_id"])


def _talk_events(state: AccountState, contact: int) -> list[EventRow]:
    """Returns talk_created and talk_closed: about the talk itself or, as the switch talk_events says, about
    its contact."""
    events = (("talk_created", 3381), ("talk_closed", 3382))
    if state.switches["talk_events"] == "payload":
        return [(type_, "contact", contact, event_payload("talk", id=talk), []) for type_, talk in events]
    return [(type_, "talk", talk, [], []) for type_, talk in events]


def _events_of_each_type(state: AccountState) -> list[EventRow]:
    """Returns one event of each type that nothing else causes, with the payloads of section 3.20."""
    lead, contact, company, customer, task = (
        state.list(path).ids[0] for path in ("leads", "contacts", "companies", "customers", "tasks"))
    note = event_payload("note", id=NOTE_BASE)
    status = [event_payload("customer_status", id=ident) for ident in (4990721, 4990719)]
    return [
        ("lead_deleted", "lead", 21599001, [], []), ("lead_restored", "lead", lead, [], []),
        ("contact_deleted", "contact", 48100001, [], []), ("contact_restored", "contact", contact, [], []),
        ("company_deleted", "company", 48100002, [], []), ("company_restored", "company", company, [], []),
        ("customer_deleted", "customer", 1900001, [], []), ("entity_merged", "contact", contact, [], []),
        *_task_events(task, state.start), ("task_result_added", "lead", lead, note, []),
        ("robot_replied", "lead", lead, event_payload("helpbot", id=1), []),
        ("intent_identified", "lead", lead, event_payload("helpbot", id=2), []),
        ("nps_rate_added", "lead", lead, event_payload("nps", rate=9), []), *_note_events(lead, note),
        ("common_note_deleted", "lead", lead, event_payload("note", id=301880001), []),
        *_message_events(lead, contact, note),
        ("entity_tag_deleted", "lead", lead, [], event_payload("tag", name="старый")),
        ("customer_status_changed", "customer", customer, status[0], status[1]),
        ("ltv_field_changed", "customer", customer, [{"ltv": {"ltv": 5}}], [{"ltv": {"ltv": 3}}]),
        *_element_events(lead), *_link_events(lead, contact, company, customer),
        ("sale_field_changed", "lead", lead,
         event_payload("sale_field_value", sale=77500, sale_with_minor_units=77500.5),
         event_payload("sale_field_value", sale=3, sale_with_minor_units=3.0)),
        ("user_logged_in", "user", state.account["current_user_id"], [], []),
        ("key_action_completed", "lead", lead, [{"key_action": []}], []),
        ("name_field_changed", "catalog_11803", ELEMENT_BASE + 1,
         event_payload("name_field_value", name="Фасад"), event_payload("name_field_value", name="Цоколь")),
        (f"custom_field_{_element_field(state)}_value_changed", "catalog_11803", ELEMENT_BASE + 1,
         event_payload("custom_field_value", field_id=_element_field(state), field_type=1, enum_id=None,
                       text="новое"), []),
        ("entity_responsible_changed", "task", task, event_payload("responsible_user", id=_responsible(state)),
         event_payload("responsible_user", id=MANAGERS[0])),
        *_talk_events(state, contact),
        ("hologram_shown", "lead", lead, [{"hologram": {"deep": [{}]}}], []),
        ("custom_field_value_changed", "contact", contact, [],
         event_payload("custom_field_value", field_id=1284404, field_type=1, enum_id=None, text="менеджер")),
        *((reported, "lead", lead, [], []) for reported in REPORTED_TYPES),
    ]  # fmt: skip


def _add_event_of_each_type(builder: DatasetBuilder) -> None:
    state = builder.state
    contact = state.list("contacts").ids[0]
    for place, (type_, entity, ident, after, before) in enumerate(_events_of_each_type(state)):
        if not state.options.odd and type_.startswith("hologram"):
            continue
        if type_ not in ("talk_created", "talk_closed") or state.switches["talk_events"] != "off":
            builder.event_log.add(type_, entity, ident, state.start - 86400 * 2 + 60 * place, 0,
                                  orjson.dumps(after), orjson.dumps(before),
                                  b'"linked_talk_contact_id":%d,' % contact
                                  if type_.endswith("_chat_message") else b"")


EVENT_TYPES = {
    "lead_added": (1, "Новая сделка"), "lead_deleted": (2, "Сделка удалена"),
    "lead_restored": (3, "Сделка восстановлена"), "contact_added": (4, "Новый контакт"),
    "lead_status_changed": (5, "Изменение этапа продажи"), "contact_deleted": (6, "Контакт удалён"),
    "company_added": (7, "Новая компания"), "entity_merged": (8, "Выполнено объединение"),
    "entity_tag_added": (9, "Теги добавлены"), "entity_tag_deleted": (10, "Теги убраны"),
    "entity_responsible_changed": (11, "Ответственный изменён"), "task_added": (12, "Новая задача"),
    "task_completed": (13, "Завершение задачи"), "task_deleted": (14, "Задача удалена"),
    "common_note_added": (15, "Новое примечание"), "common_note_deleted": (16, "Примечание удалено"),
    "custom_field_value_changed": (17, "Изменение поля"), "incoming_call": (18, "Входящий звонок"),
    "outgoing_call": (19, "Исходящий звонок"), "incoming_chat_message": (20, "Входящее сообщение"),
    "customer_added": (21, "Новый покупатель"), "transaction_added": (22, "Добавлена покупка"),
    "contact_linked": (23, "Прикрепление контакта"), "contact_unlinked": (24, "Открепление контакта"),
    "name_field_changed": (25, "Изменение названия"), "sale_field_changed": (26, "Изменение бюджета"),
}  # fmt: skip
_FURTHER_TYPES = """lead_unlinked lead_linked contact_restored company_deleted company_restored company_linked
company_unlinked customer_deleted customer_linked customer_unlinked customer_status_changed entity_linked
entity_unlinked task_text_changed task_deadline_changed task_type_changed task_result_added robot_replied
intent_identified nps_rate_added outgoing_chat_message entity_direct_message attachment_note_added
targeting_in_note_added targeting_out_note_added geo_note_added service_note_added site_visit_note_added
message_to_cashier_note_added incoming_sms outgoing_sms link_followed ltv_field_changed key_action_completed
talk_created talk_closed """
EVENT_TYPES |= {key: (100 + place, key.replace("_", " ").capitalize())
                for place, key in enumerate([*_FURTHER_TYPES.split(), *REPORTED_TYPES])}
