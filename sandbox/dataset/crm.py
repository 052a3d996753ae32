"""Leads, contacts and companies in bulk (API sections 3.11, 3.13, 3.14), each with the events of its history.

Every record is serialized once, with every `with` part; custom field values come from the fields' pools.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from sandbox.account.event_log import EventLog
from sandbox.account.identity import ACCOUNT_ID, API_URL
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset import vocabulary
from sandbox.dataset.company import GROUP_OF, MANAGERS, RESPONSIBLE_USERS, Pipeline
from sandbox.dataset.fields import Field
from sandbox.dataset.link_plan import ELEMENT_BASE, LinkPlan

PackedRow = tuple[int, bytes, tuple[int | None, ...]]
_MONTH = 30 * 86400


@dataclass
class DatasetBuilder:
    """Writes the three lists; holds what they share meanwhile."""

    state: AccountState
    plan: LinkPlan
    fields: dict[str, list[Field]]
    pipelines: list[Pipeline]
    event_log: EventLog
    rng: Random

    def __post_init__(self) -> None:
        self.tags = {kind: [orjson.Fragment(self.state.list(f"{kind}/tags").rows[i])
                            for i in self.state.list(f"{kind}/tags").ids][: len(vocabulary.TAGS)]
                     for kind in ("leads", "contacts", "companies")}  # fmt: skip
        self.reasons = {i: orjson.Fragment(row)
                        for i, row in self.state.list("leads/loss_reasons").rows.items()}
        self.reason_ids = list(self.reasons)
        self.sources = [{"id": 17204933 + i, "name": name} for i, name in enumerate(vocabulary.SOURCES)]
        self.usual_fields = {kind: _usual_fields(found,
                                                 max(3, self.state.options.fields if kind == "leads" else 3))
                             for kind, found in self.fields.items()}

    def build(self) -> None:
        """Writes companies, contacts and leads into the store."""
        self.state.list("companies").load(self._companies())
        self.state.list("contacts").load(self._contacts())
        self.state.list("leads").load(self._leads())

    def values(self, kind: str) -> list[orjson.Fragment] | None:
        """Returns random values for the usual fields of a kind, in the order of the fields."""
        rng_random = self.rng.random
        return [field.serialized[int(rng_random() * 48)] for field in self.usual_fields[kind]]

    def random_tags(self, kind: str) -> list[orjson.Fragment]:
        """Returns no, one or two random tags."""
        drawn = self.rng.random()
        if drawn < 0.5:
            return []
        tags = self.tags[kind]
        first = int(self.rng.random() * len(tags))
        return [tags[first]] if drawn < 0.85 else [tags[first], tags[first - 1]]

    def _companies(self) -> Iterator[PackedRow]:
        plan, rng = self.plan, self.rng
        for place in range(plan.companies):
            ident, born = plan.company_id(place), plan.created_at(place, plan.companies, rng.random())
            name = f"{rng.choice(vocabulary.LEGAL_FORMS)} «{rng.choice(vocabulary.FIRMS)} {place + 1}»"
            embedded = {
                "tags": self.random_tags("companies"),
                "contacts": _references("contacts",
                                        map(plan.contact_id, plan.company_contacts.get(place, ()))),
                "leads": _references("leads", map(plan.lead_id, plan.company_leads.get(place, ()))),
                "customers": _references("customers",
                                         map(plan.customer_id, plan.company_customers.get(place, ()))),
                "catalog_elements": [],
            }
            yield self._contact_or_company("companies", ident, born, {"name": name}, embedded)
            self.event_log.add("company_added", "company", ident, born, MANAGERS[place % 5],
                               b'[{"note":{"id":%d}}]' % (ident + 250000000))

    def _contacts(self) -> Iterator[PackedRow]:
        plan, rng = self.plan, self.rng
        for place in range(plan.contacts):
            ident, born = plan.contact_id(place), plan.created_at(place, plan.contacts, rng.random())
            first, last = (vocabulary.FIRST_NAMES[int(rng.random() * 20)],
                           vocabulary.LAST_NAMES[int(rng.random() * 20)] if place % 4 else "")
            company = plan.contact_company[place]
            embedded = {
                "tags": self.random_tags("contacts"),
                "leads": _references("leads", map(plan.lead_id, plan.contact_leads.get(place, ()))),
                "customers": _references("customers",
                                         map(plan.customer_id, plan.contact_customers.get(place, ()))),
                "catalog_elements": [],
                "companies": _references("companies", [plan.company_id(company)] if company >= 0 else []),
            }
            yield self._contact_or_company("contacts", ident, born, {"name": f"{first} {last}".strip(),
                                                                     "first_name": first, "last_name": last},
                                           embedded)
            self.event_log.add("contact_added", "contact", ident, born, MANAGERS[place % 5],
                               b'[{"note":{"id":%d}}]' % (ident + 250000000))

    def _contact_or_company(self, kind: str, ident: int, born: int, name_attributes: Record,
                            embedded: Record) -> PackedRow:
        """Returns a contact or company as a packed row."""
        responsible = RESPONSIBLE_USERS[int(self.rng.random() * 17)]
        changed = born + int(self.rng.random() * max(0, min(_MONTH, self.plan.start - 30 - born)))
        record = {"id": ident, **name_attributes, "responsible_user_id": responsible,
                  "group_id": GROUP_OF[responsible], "created_by": MANAGERS[ident % 5], "updated_by": 0,
                  "created_at": born, "updated_at": changed, "is_deleted": False, "closest_task_at": None,
                  "custom_fields_values": self.values(kind)}  # fmt: skip
        if kind == "contacts":
            record["is_unsorted"] = False
        record |= {"account_id": ACCOUNT_ID, "_links": {"self": {"href": f"{API_URL}/{kind}/{ident}"}},
                   "_embedded": embedded}
        return ident, orjson.dumps(record), (changed, born)

    def _leads(self) -> Iterator[PackedRow]:
        weights = (self.pipelines[0],) * 6 + (self.pipelines[1],) * 3 + (self.pipelines[2],)
        for place in range(self.plan.leads):
            pipeline = (weights[int(self.rng.random() * 10)] if place > 5
                        else self.pipelines[3 if place % 2 else 0])
            yield self._lead(place, pipeline)

    def _lead(self, place: int, pipeline: Pipeline) -> PackedRow:
        plan, rng = self.plan, self.rng
        ident, born = plan.lead_id(place), plan.created_at(place, plan.leads, rng.random())
        path = self._stage_history(pipeline, born, rng)
        status, last = path[-1]
        responsible = RESPONSIBLE_USERS[int(rng.random() * 17)]
        changed = last + int(rng.random() * max(0, min(3000, plan.start - 30 - last)))
        lost = (self.reason_ids[int(rng.random() * len(self.reason_ids))]
                if status == 143 and rng.random() < 0.85 else None)
        source = self.sources[int(rng.random() * 5)] if rng.random() < 0.3 else None
        price = int(rng.random() * 600) * 500
        closed = last if status in (142, 143) else None
        record = {
            "id": ident,
            "name": f"{vocabulary.PRODUCTS[place % 10]}, ул. {vocabulary.STREETS[place % 8]} {place + 1}",
            "price": price, "responsible_user_id": responsible, "group_id": GROUP_OF[responsible],
            "status_id": status, "pipeline_id": pipeline.id, "loss_reason_id": lost,
            "source_id": source and source["id"], "created_by": 0 if place % 3 else MANAGERS[place % 5],
            "updated_by": responsible, "created_at": born, "updated_at": changed, "closed_at": closed,
            "closest_task_at": None, "is_deleted": False, "custom_fields_values": self.values("leads"),
            "score": None, "account_id": ACCOUNT_ID, "labor_cost": None,
            "is_price_modified_by_robot": place % 50 == 0,
            "price_with_minor_units": float(price) + 0.5 * (place % 4 == 0 and self.state.options.odd),
            "_links": {"self": {"href": f"{API_URL}/leads/{ident}"}},
            "_embedded": self._lead_embedded(place, lost, source),
        }  # fmt: skip
        self._add_lead_events(place, ident, pipeline, path, responsible)
        return ident, orjson.dumps(record), (born, changed, closed)

    def _lead_embedded(self, place: int, lost: int | None, source: Record | None) -> Record:
        plan = self.plan
        company, main = plan.lead_company[place], True
        contacts = []
        for contact in plan.lead_contacts[place]:
            ident = plan.contact_id(contact)
            contacts.append({"id": ident, "is_main": main,
                             "_links": {"self": {"href": f"{API_URL}/contacts/{ident}"}}})
            main = False
        element = ELEMENT_BASE + 1 + place % plan.elements
        metadata = {"quantity": 2.5 if place % 20 else 4, "catalog_id": 11803,
                    "price_id": 1289729 if place % 20 else None}
        return {"tags": self.random_tags("leads"),
                "catalog_elements": [{"id": element, "metadata": metadata}] if place % 10 == 0 else [],
                "loss_reason": [self.reasons[lost]] if lost else [],
                "companies": _references("companies", [plan.company_id(company)] if company >= 0 else []),
                "contacts": contacts,
                "source": source}  # fmt: skip

    def _stage_history(self, pipeline: Pipeline, born: int, rng: Random) -> list[tuple[int, int]]:
        """Returns a deal's stages with the time of each (Unix seconds); the last is the current one."""
        now = self.plan.start - 60
        age = now - born
        reached = int(rng.random() * len(pipeline.stages))
        stages = (pipeline.stages[: reached + 1] if rng.random() < 0.6
                  else (pipeline.stages[0], pipeline.stages[reached])[: reached + 1])
        if rng.random() < min(0.92, age / (2 * _MONTH)) or age > 12 * _MONTH:
            stages = (*stages[:3], 142 if rng.random() < 0.4 else 143)
        step = min(age, int(rng.random() * 3 * _MONTH)) // len(stages)
        return [(stage, born + step * place + (int(rng.random() * step) if place else 0))
                for place, stage in enumerate(stages)]

    def _add_lead_events(self, place: int, ident: int, pipeline: Pipeline, path: Sequence[tuple[int, int]],
                         responsible: int) -> None:
        add, born = self.event_log.add, path[0][1]
        add("lead_added", "lead", ident, born, 0, b'[{"note":{"id":%d}}]' % (ident + 260000000))
        before = path[0][0]
        for status, at in path[1:]:
            add("lead_status_changed", "lead", ident, at, responsible, _status_payload(status, pipeline.id),
                _status_payload(before, pipeline.id))
            before = status
        if place % 4 == 0 and responsible != MANAGERS[0]:
            add("entity_responsible_changed", "lead", ident, born + 5, 0,
                b'[{"responsible_user":{"id":%d}}]' % responsible,
                b'[{"responsible_user":{"id":%d}}]' % MANAGERS[0])  # fmt: skip


def _status_payload(ident: int, pipeline: int) -> bytes:
    return b'[{"lead_status":{"id":%d,"pipeline_id":%d}}]' % (ident, pipeline)


def _references(kind: str, ids: Any) -> list[Record]:
    return [{"id": ident, "_links": {"self": {"href": f"{API_URL}/{kind}/{ident}"}}} for ident in ids]


def _usual_fields(found: list[Field], wanted: int) -> list[Field]:
    """Returns the fields that every record has values in; `edge_cases.py` fills the others."""
    return [field for field in found if field.type != "hologram"][:wanted]
