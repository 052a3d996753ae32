"""What only the list of events does: its refusals, its chat quirk, names of entities, retention (API section 3.20)."""

from sandbox.account.identity import plural
from sandbox.account.state import World
from sandbox.account.store import Record, loads
from sandbox.api.filters import Condition, is_test
from sandbox.api.rendering import Reshape
from sandbox.http import php_query
from sandbox.http.server import Response, invalid

_CHAT = (b'"type":"incoming_chat_message"', b'"type":"outgoing_chat_message"')
_NAMED = ("contact_name", "lead_name", "company_name", "customer_name", "catalog_element_name", "catalog_name")


def refusal(params: php_query.Tree) -> Response | None:
    """The filters that the list does not accept."""
    asked = php_query.branch(params.get("filter"))
    types = [part for item in php_query.items(asked.get("type")) for part in item.split(",")]
    if len(types) > 1 and any(name.startswith("custom_field_") and name != "custom_field_value_changed" for name in types):
        return invalid("filter.type", "Invalid", "custom_field_{ID}_value_changed must be the only type.")
    if "entity_id" in asked and len(php_query.items(asked.get("entity"))) != 1:
        return invalid("filter.entity_id", "Invalid", "entity_id requires exactly one entity.")
    for name, most in (("id", 100), ("created_by", 10), ("entity_id", 10)):
        if len([part for item in php_query.items(asked.get(name)) for part in item.split(",")]) > most:
            return invalid(f"filter.{name}", "TooMany", f"At most {most} values.")
    return None


def narrowed(world: World, params: php_query.Tree) -> list[Condition]:
    """The entity filter with its quirk (chat messages answer to `contact` whatever they show), and retention."""
    found = []
    entities = php_query.items(php_query.branch(params.get("filter")).get("entity"))
    if entities:
        shown = is_test("entity_type", entities)
        found.append(Condition(test=lambda raw: "contact" in entities if any(chat in raw for chat in _CHAT) else shown(raw)))
    days = world.switches.number("events_retention_days")
    if days:
        found.append(Condition(order="created_at", low=world.now() - int(days * 86400)))
    return found


def namer(world: World, asked: set[str]) -> list[Reshape]:
    """with=lead_name and the like: the present name of the event's entity."""
    if not asked & set(_NAMED):
        return []

    def name(record: Record) -> None:
        entity = record["entity_type"]
        path = f"catalogs/{entity[8:]}/elements" if entity.startswith("catalog_") else plural(entity)
        wanted = "catalog_element_name" if entity.startswith("catalog_") else f"{entity}_name"
        row = world.lists[path].rows.get(record["entity_id"]) if path in world.lists else None
        if wanted in asked and row is not None:
            record["_embedded"]["entity"]["name"] = loads(row).get("name")

    return [name]


def translated(params: php_query.Tree) -> list[Reshape]:
    """events/types in another language than the user's (section 3.19): the name made from the key."""
    if php_query.text(params.get("language_code"), "ru") == "ru":
        return []
    return [lambda record: record.update(lang=record["key"].replace("_", " ").capitalize())]
