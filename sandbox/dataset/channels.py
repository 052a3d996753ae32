"""Incoming leads, files, talks, chats, followers and integrations (API sections 3.12, 3.22 to 3.30)."""

import uuid
from random import Random

from sandbox.account.identity import ACCOUNT_ID, href
from sandbox.account.lists import KINDS
from sandbox.account.records import new_record, reference
from sandbox.account.state import AccountState
from sandbox.account.store import Record, dumps
from sandbox.dataset import vocabulary
from sandbox.dataset.activity import EVENT_TYPES
from sandbox.dataset.company import ACCOUNT_CREATED_AT, ADMIN, MANAGERS
from sandbox.dataset.crm import DatasetBuilder
from sandbox.dataset.link_plan import ELEMENT_BASE

_CATEGORIES = ("forms", "sip", "chats", "mail")
_CHAT = "e5f1c2d7-0a4b-4b7e-93c8-2f6d10ab7c55"


def build(builder: DatasetBuilder) -> None:
    """Adds all lists of this module, the event types, and some links to products."""
    state, rng = builder.state, Random(f"extras {builder.state.options.seed}")
    _add_incoming_leads(builder, rng)
    _add_files(state, rng)
    _add_talks(state)
    _add_integrations(state)
    _add_event_types(state)
    for kind in ("contacts", "companies"):
        for ident in list(state.list(kind).ids)[::20]:
            _link_product(state, kind, ident)
    for kind in ("leads", "customers"):
        for ident in list(state.list(kind).ids)[::25]:
            state.subscriptions[kind, ident] = [{"subscriber_id": 412386, "type": "group"},
                                                {"subscriber_id": MANAGERS[1], "type": "user"}]


def _add_event_types(state: AccountState) -> None:
    """Adds the standard types, two of the group "security", and one for each field, all with one number."""
    for key, (number, name) in EVENT_TYPES.items():
        state.list("events/types").put({"key": key, "type": number, "lang": name})
    for place, key in enumerate(("user_logged_in", "user_login_failed")):
        state.list("events/types").put({"key": key, "type": 300 + place, "group": "security",
                                        "lang": key.replace("_", " ").capitalize()})
    for kind in KINDS:
        for field in state.list(f"{kind}/custom_fields").records():
            state.list("events/types").put({"key": f"custom_field_{field['id']}_value_changed", "type": 24,
                                            "lang": f"Изменение поля «{field['name']}»"})


def _link_product(state: AccountState, kind: str, ident: int) -> None:
    record = state.list(kind).get(ident)
    assert record is not None
    record["_embedded"]["catalog_elements"] = [{"id": ELEMENT_BASE + 1 + ident % 20,
                                                "metadata": {"quantity": 1, "catalog_id": 11803}}]
    state.list(kind).put(record)


def _add_incoming_leads(builder: DatasetBuilder, rng: Random) -> None:
    """Adds leads that are not accepted yet: in the unsorted stage, without a responsible user."""
    state, plan = builder.state, builder.plan
    for place in range(plan.incoming):
        pipeline = builder.pipelines[place % 2]
        lead, at = plan.lead_id(plan.leads + place), state.start - 120 - 600 * place
        record = new_record(state, "leads", lead) | {"name": f"Заявка {place + 1}",
                                                     "responsible_user_id": None, "group_id": None,
                                                     "status_id": pipeline.unsorted,
                                                     "pipeline_id": pipeline.id, "created_at": at,
                                                     "updated_at": at,
                                                     "price": None if place % 2 else 0}  # fmt: skip
        state.list("leads").put(record)
        category = _CATEGORIES[place % 4]
        add_unsorted_item(state, lead, rng, category, at,
                          plan.company_id(place) if category == "mail" else None)


def add_unsorted_item(state: AccountState, lead: int, rng: Random, category: str, at: int,
                      company: int | None = None) -> str:
    """Adds an incoming lead whose contact is hidden until acceptance; returns its uid (section 3.12)."""
    contacts = state.list("contacts")
    contact = contacts.new_id()
    state.list("companies").reserve(contact)
    person = new_record(state, "contacts", contact) | {"name": rng.choice(vocabulary.FIRST_NAMES),
                                                       "is_unsorted": True, "created_at": at,
                                                       "updated_at": at}
    person["_embedded"]["leads"] = [reference("leads", lead)]
    contacts.hidden[contact] = dumps(person)
    record = state.list("leads").get(lead)
    assert record is not None
    record["_embedded"]["contacts"] = [{"id": contact, "is_main": True,
                                        "_links": href(f"contacts/{contact}")}]
    state.list("leads").put(record)
    uid = rng.randbytes(30).hex()
    state.list("leads/unsorted").put(
        {"uid": uid, "source_uid": None, "source_name": vocabulary.SOURCES[2], "category": category,
         "pipeline_id": record["pipeline_id"], "created_at": at,
         "metadata": _metadata(rng, at)[category], "account_id": ACCOUNT_ID,
         "_links": href(f"leads/unsorted/{uid}"),
         "_embedded": {"contacts": [reference("contacts", contact)], "leads": [reference("leads", lead)],
                       "companies": [] if company is None
                       else [reference("companies", company)]}})  # fmt: skip
    return uid


def _metadata(rng: Random, at: int) -> dict[str, Record]:
    """Returns the metadata of each category. Value types vary, as they do in the documentation."""
    return {
        "sip": {"from": 79220345518 if at % 2 else "79220345518", "phone": 79220345518,
                "called_at": at, "duration": "0", "link": None, "service_code": "megafon_vats", "call_responsible": None,
                "uniq": f"c-{rng.randrange(10**5)}"},
        "forms": {"form_id": "kitchen-calc", "form_name": "Расчёт кухни",
                  "form_page": "https://uralkedr.ru/calc", "ip": "203.0.113.40", "form_sent_at": str(at - 8),
                  "referer": "", "visitor_uid": None},
        "chats": {"from": "Алина", "to": "salon", "received_at": at, "service": "telegram",
                  "client": {"name": "Алина", "avatar": None},
                  "origin": {"chat_id": _CHAT, "ref": None, "visitor_uid": None}, "last_message_text": None,
                  "source_name": "Telegram салона"},
        "mail": {"from": {"email": "a.gaisina@example.com", "name": ""}, "received_at": at,
                 "subject": "Смета", "thread_id": 88120, "message_id": 190447,
                 "content_summary": ""},
    }  # fmt: skip


def _add_files(state: AccountState, rng: Random) -> None:
    """Adds the drive's files, some of them in its bin, and attaches them to records (section 3.22)."""
    count = max(12, min(5000, state.options.scale // 10))
    link = 4410800
    for place in range(count):
        made = state.start - 7200 - int(rng.random() ** 2 * 300 * 86400)
        record = file_record(str(uuid.UUID(bytes=rng.randbytes(16), version=4)),
                             str(uuid.UUID(bytes=rng.randbytes(16), version=4)), place, made)
        if place % 9 == 8:
            record |= {"is_trashed": True, "deleted_at": made + 60,
                       "deleted_by": {"type": "internal", "id": ADMIN}}
        state.list("files").put(record)
        for kind in (KINDS[place % 4], "leads") if place % 5 == 0 else (KINDS[place % 4],):
            ids = state.list(kind).ids
            link += 1
            state.files_of.setdefault((kind, ids[place % len(ids)]),
                                      []).append({"file_uuid": record["uuid"], "id": link})


def file_record(ident: str, version: str, place: int, created_at: int) -> Record:
    """Returns a file as the drive describes it."""
    extension, kind = (("pdf", "document"), ("jpg", "image"), ("dwg", "file"))[place % 3]
    author, base = {"type": "internal", "id": MANAGERS[place % 5]}, "https://drive-b.amocrm.ru"
    previews = ([{"download_link": f"{base}/preview/{ident}", "width": 120, "height": 80}] if kind == "image"
                else None)
    return {
        "uuid": ident, "version_uuid": version, "type": kind, "is_trashed": False,
        "name": f"Договор {place}; «v1»", "sanitized_name": f"Dogovor_{place}",
        "size": 1000 + 37 * place, "source_id": None, "has_multiple_versions": place % 4 == 0,
        "metadata": {"extension": extension, "mime_type": "" if place % 3 else "application/pdf"} if place % 7
        else None, "previews": previews,
        "created_at": created_at, "created_by": author, "updated_at": created_at + 30, "updated_by": author,
        "deleted_at": None, "deleted_by": None,
        "_links": {"download": {"href": f"{base}/download/5f0d/{ident}/Dogovor_{place}.{extension}"},
                   "self": {"href": f"{base}/v1.0/files/{ident}"}},
    }  # fmt: skip


def _add_talks(state: AccountState) -> None:
    """Adds an open talk, a closed one, and one that no event names."""
    talks = ((3381, state.list("leads").ids[0], "in_work", 17204933), (3382, None, "closed", None),
             (3383, None, "nps_in_progress", 17204934))
    for ident, lead, status, source in talks:
        contact = state.list("contacts").ids[0]
        state.list("talks").put(
            {"talk_id": ident, "created_at": state.start - 86400, "updated_at": state.start - 86000 - ident,
             "rate": 0, "status": status, "source_id": source, "contact_id": contact, "chat_id": _CHAT,
             "entity_id": lead, "entity_type": "lead" if lead else None, "is_in_work": ident == 3381,
             "is_read": True, "origin": "telegram", "missed_at": None, "account_id": ACCOUNT_ID,
             "_links": href(f"talks/{ident}"),
             "_embedded": {"contacts": [reference("contacts", contact)],
                           "leads": [reference("leads", lead)] if lead else [],
                           "customers": []}})  # fmt: skip
    state.chats.append({"id": 770412, "contact_id": state.list("contacts").ids[0], "chat_id": _CHAT})


def _add_integrations(state: AccountState) -> None:
    """Adds webhooks, widgets, website buttons, chat templates and bots (sections 3.24 to 3.30)."""
    state.list("webhooks").put(
        {"id": 1502243, "destination": "https://etl.example.com/hook/6f0c", "created_at": ACCOUNT_CREATED_AT,
         "updated_at": ACCOUNT_CREATED_AT, "account_id": ACCOUNT_ID, "created_by": ADMIN, "sort": 1,
         "disabled": True, "settings": ["add_lead", "update_lead", "status_lead", "add_unsorted"]})  # fmt: skip
    for place in range(3):
        code = ("uralkedr_calc", "public_widget", "telephony")[place]
        state.list("widgets").put(
            {"id": 51208 + place, "code": code, "version": "1.0.7", "rating": ("4,5", 4.5, "0")[place],
             "is_lead_source": False, "is_work_with_dp": True,
             "settings_template": [{"key": "login", "name": "Логин", "type": "text", "is_required": True}]
             * (place == 0), "is_crm_template": False,
             "client_uuid": None, "is_active_in_account": place == 0, "pipeline_id": None,
             "_links": href(f"widgets/{code}")})  # fmt: skip
        state.list("website_buttons").put(
            {"account_id": ACCOUNT_ID, "source_id": 17204951 + place, "button_id": 588120 + place,
             "is_duplication_control_enabled": False, "name": "" if place else "Кнопка",
             "creation_status": "created", "pipeline_id": None if place else 6820154,
             "script": None})  # fmt: skip
        state.list("chats/templates").put(
            {"id": 61870 + place, "account_id": ACCOUNT_ID, "name": "Напоминание о замере",
             "content": "Здравствуйте, {{contact.name}}! Замер завтра.",
             "created_at": ACCOUNT_CREATED_AT, "updated_at": ACCOUNT_CREATED_AT,
             "buttons": [{"type": "inline", "text": "Подтверждаю"}] * place, "attachment": None,
             "is_editable": False, "external_id": f"tpl-{place}", "type": "waba" if place else "amocrm",
             "waba_footer": "", "waba_category": "UTILITY",
             "waba_language": "ru", "waba_examples": {"{{contact.name}}": "Алина"} if place else [],
             "waba_header": None, "waba_header_type": "text",
             "review_status": "approved", "is_on_review": False,
             "_embedded": {"reviews": [{"id": 902, "source_id": 17204933, "status": "approved",
                                        "reject_reason": ""}]},
             "_links": href(f"chats/templates/{61870 + place}")})  # fmt: skip
        state.list("bots").put({"id": 40011 + place, "name": f"Бот {place}",
                                "type_functionality": ("regular", "greeting", "nps")[place],
                                "is_visual_editor": place != 1, "settings": {"active": place < 2},
                                "is_favorite": place == 0})  # fmt: skip
