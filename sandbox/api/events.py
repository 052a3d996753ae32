"""Rules of the events list alone: refused filters, chat quirk, entity names, retention (API section 3.20)."""

from sandbox.account.identity import plural
from sandbox.account.state import AccountState
from sandbox.account.store import Record, loads
from sandbox.api.filters import Condition, equality_test
from sandbox.api.rendering import Reshape
from sandbox.http import php_query
from sandbox.http.server import Response, validation_problem

_CHAT_TYPES = (b'"type":"incoming_chat_message"', b'"type":"outgoing_chat_message"')
_NAME_PARTS = ("contact_name", "lead_name", "company_name", "customer_name", "catalog_element_name",
               "catalog_name")


def filter_refusal(params: php_query.Tree) -> Response | None:
    """Returns the 400 for filters that the events list does not accept, None if all are accepted."""
    asked = php_query.subtree(params.get("filter"))
    types = [part for item in php_query.items(asked.get("type")) for part in item.split(",")]
    if len(types) > 1 and any(name.startswith("custom_field_") and name != "custom_field_value_changed"
                              for name in types):
        return validation_problem("filter.type", "Invalid",
                                  "custom_field_{ID}_value_changed must be the only type.")
    if "entity_id" in asked and len(php_query.items(asked.get("entity"))) != 1:
        return validation_problem("filter.entity_id", "Invalid", "entity_id requires exactly one entity.")
    for name, most in (("id", 100), ("created_by", 10), ("entity_id", 10)):
        if len([part for item in php_query.items(asked.get(name)) for part in item.split(",")]) > most:
            return validation_problem(f"filter.{name}", "TooMany", f"At most {most} values.")
    return None


def extra_conditions(state: AccountState, params: php_query.Tree) -> list[Condition]:
    """Returns the entity filter and the retention limit as conditions.

    Quirk: chat messages match the entity `contact`, whatever entity they show.
    """
    found = []
    entities = php_query.items(php_query.subtree(params.get("filter")).get("entity"))
    if entities:
        matches_entity = equality_test("entity_type", entities)
        found.append(Condition(test=lambda raw: "contact" in entities
                               if any(chat in raw for chat in _CHAT_TYPES)
                               else matches_entity(raw)))
    days = state.switches.number("events_retention_days")
    if days:
        found.append(Condition(order="created_at", low=state.now() - int(days * 86400)))
    return found


def name_reshapes(state: AccountState, asked: set[str]) -> list[Reshape]:
    """Returns the reshape for with=lead_name and the like: adds the current name of the event's entity."""
    if not asked & set(_NAME_PARTS):
        return []

    def add_name(record: Record) -> None:
        entity = record["entity_type"]
        path = f"catalogs/{entity[8:]}/elements" if entity.startswith("catalog_") else plural(entity)
        wanted = "catalog_element_name" if entity.startswith("catalog_") else f"{entity}_name"
        row = state.lists[path].rows.get(record["entity_id"]) if path in state.lists else None
        if wanted in asked and row is not None:
            record["_embedded"]["entity"]["name"] = loads(row).get("name")

    return [add_name]


def translation_reshapes(params: php_query.Tree) -> list[Reshape]:
    """Returns the reshape for events/types in another language: names made from keys (section 3.19)."""
    if php_query.scalar(params.get("language_code"), "ru") == "ru":
        return []
    return [lambda record: record.update(lang=record["key"].replace("_", " ").capitalize())]
