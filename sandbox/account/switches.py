"""Switches for behaviours of amoCRM that could not be confirmed (API section 6).

One table: name, default, allowed values, row of section 6 (0: behaviour known from live accounts only),
meaning. `number` among the values allows a number, `signed` one that may be negative, `set` a comma-separated
set of the others. A switch is read at every request, so a change takes effect
at once.
"""

from dataclasses import dataclass

NUMBER, SIGNED = ("number",), ("signed",)


@dataclass(frozen=True, slots=True)
class Switch:
    """One switchable behaviour."""

    name: str
    default: str
    values: tuple[str, ...]
    row: int
    meaning: str

    def accepts(self, value: str) -> bool:
        """True if the value is allowed."""
        if self.values == NUMBER:
            return value.replace(".", "", 1).isdigit()
        if self.values == SIGNED:
            return value.removeprefix("-").replace(".", "", 1).isdigit()
        if self.values[0] == "set":
            return set(filter(None, value.split(","))) <= set(self.values[1:])
        return value in self.values


SWITCHES = (
    Switch("rate_unit", "account", ("account", "token"), 1,
           "scope of the rate limit: the account or each token"),
    Switch("random_429", "0", NUMBER, 2, "probability of a 429 at any rate"),
    Switch("retry_after_header", "off", ("off", "on"), 3, "whether a 429 carries Retry-After"),
    Switch("block_after", "20", NUMBER, 4, "429s in a row before everything answers 403 HTML; 0 = never"),
    Switch("require_user_agent", "off", ("off", "on"), 5, "403 for requests without a User-Agent"),
    Switch("limit_over_max", "clamp", ("clamp", "fallback50"), 7, "what a limit above the maximum becomes"),
    Switch("page_rows", "0", NUMBER, 7,
           "at most so many rows a page, whatever limit asks; 0 = as many as asked"),
    Switch("next_link", "right", ("right", "always", "missing"), 0,
           "when a page names a next: if rows follow, always, never"),
    Switch("past_end", "empty", ("empty", "last"), 0,
           "a page behind the last one: nothing, or the last page again"),
    Switch("clock_skew", "0", SIGNED, 0, "seconds by which the account's clock is ahead of this machine's"),
    Switch("max_page", "0", NUMBER, 8, "pages above this number are refused with 400; 0 = none"),
    Switch("max_filter_ids", "0", NUMBER, 9,
           "more ids than this in one filter are refused with 400; 0 = any"),
    Switch("events_limit", "100", ("100", "250"), 10, "the largest page of events"),
    Switch("events_order", "desc", ("desc", "asc", "shuffled"), 11, "the order of events"),
    Switch("default_order", "updated_at", ("updated_at", "asc", "desc", "shuffled"), 11,
           "the order of a list when the request names none or one it does not know; asc, desc: by id"),
    Switch("unsorted_order", "newest", ("newest", "honour"), 11, "order[...] of incoming leads: ignored"),
    Switch("id_order", "honour", ("honour", "ignore"), 11, "order[id]: honoured, or the default order comes"),
    Switch("free_filters", "honour", ("honour", "ignore"), 23,
           "the filters of lists without the paid option: honoured, or the whole list comes"),
    Switch("updated_at_order", "honour", ("honour", "ignore"), 11,
           "order[updated_at]: documented, but a careful client verifies it"),
    Switch("events_retention_days", "0", NUMBER, 12, "events older than this are not shown; 0 = all are"),
    Switch("deleted_entity_events", "show", ("show", "hide"), 13, "events of entities that are deleted"),
    Switch("embedded_truncate", "none", ("none", "50"), 14,
           "the most embedded contacts, leads... a record shows"),
    Switch("links_truncate", "none", ("none", "50", "paged"), 15, "the most rows /links shows"),
    Switch("links_max_ids", "0", NUMBER, 15,
           "more entity_ids than this in a mass /links are refused; 0 = any"),
    Switch("filter_inclusive", "both", ("both", "from", "to", "none"), 16,
           "which ends of a range belong to it"),
    Switch("updated_at_moves_on", "", ("set", "tag", "link", "note", "task", "label", "main_contact"), 17,
           "which changes besides the record's own fields move updated_at"),
    Switch("merge_footprint", "none", ("none", "deleted_event", "bin"), 18,
           "what the absorbed record of a merge leaves"),
    Switch("bin_days", "0", NUMBER, 19, "days that deleted rows stay in with=only_deleted; 0 = for ever"),
    Switch("only_deleted_contacts", "honour", ("honour", "ignore"), 20,
           "with=only_deleted on contacts, companies"),
    Switch("deleted_elements", "gone", ("gone", "flagged"), 21,
           "deleted catalog elements: absent or is_deleted"),
    Switch("deleted_transactions", "gone", ("gone", "flagged"), 21,
           "deleted transactions: absent or is_deleted"),
    Switch("filter_option", "honour", ("honour", "ignore", "refuse"), 23,
           "the paid filters of the big four lists"),
    Switch("scalar_updated_at", "204", ("204", "since"), 24,
           "scalar filter[updated_at] on the big four lists"),
    Switch("empty_list", "204", ("204", "200", "bare"), 25,
           "an empty list: no content, an empty array, or {\"_embedded\": {}}"),
    Switch("total_items", "true", ("true", "page"), 26, "_total_items of paged directories"),
    Switch("custom_fields_cap", "50", ("50", "250"), 27, "the largest page of custom_fields"),
    Switch("hide_archived", "off", ("off", "on"), 28, "whether archived pipelines leave the list"),
    Switch("unsorted_status", "with", ("with", "without"), 29,
           "whether pipelines list their unsorted status"),
    Switch("loss_reasons_endpoint", "200", ("200", "404"), 30, "whether leads/loss_reasons exists"),
    Switch("loss_reason_shape", "array", ("array", "object"), 31, "_embedded.loss_reason of a lead"),
    Switch("loss_reason_none", "null", ("null", "0"), 31, "loss_reason_id of a lead without one"),
    Switch("minor_units", "present", ("present", "absent"), 32, "price_with_minor_units"),
    Switch("numeric_form", "string", ("string", "number", "mixed"), 33,
           "values of numeric, price, monetary fields"),
    Switch("multitext_key", "enum_code", ("enum_code", "enum", "mixed"), 33, "the key of a phone's kind"),
    Switch("date_form", "stored", ("stored", "string"), 33,
           "values of date fields: unix (mostly) or YYYY-MM-DD"),
    Switch("birthday_offset", "historical", ("historical", "today"), 34, "the offset of old birthdays"),
    Switch("nasty", "off", ("off", "on"), 33,
           "lone surrogates and 1e400 in records: whole pages fail to parse"),
    Switch("odd_keys", "off", ("off", "guessed", "on"), 36,
           "keys in name/sale_field_changed: as live accounts have them, as guessed before, or arbitrary"),
    Switch("field_event_type", "per_field", ("per_field", "generic"), 37,
           "custom_field_{ID}_value_changed or generic"),
    Switch("unlink_key", "link", ("link", "unlink"), 38, "the payload key of *_unlinked events"),
    Switch("empty_params", "list", ("list", "object"), 39, "params of a note that has none"),
    Switch("talk_events", "on", ("on", "payload", "off"), 41,
           "talk_created and talk_closed in events: about the talk, or with its id in their payload"),
    Switch("bots", "list", ("list", "403", "404"), 42, "what /bots answers"),
    Switch("webhook_settings", "reject", ("reject", "accept"), 43, "undocumented codes in POST /webhooks"),
    Switch("refresh_grace", "off", ("off", "once"), 44, "whether a rotated refresh token works once more"),
    Switch("refresh_dead_status", "401", ("400", "401"), 45, "the status for a dead refresh token"),
    Switch("jwt_claims", "with", ("with", "without"), 46,
           "claims of new access tokens other than aud and exp"),
    Switch("drive_paging", "page", ("page", "offset"), 47, "what the drive's next link carries"),
    Switch("drive_deleted", "exclusive", ("exclusive", "inclusive"), 47,
           "filter[deleted]: only, or also, deleted files"),
    Switch("drive_scope", "with", ("with", "without"), 47, "whether tokens carry the file scope"),
    Switch("customers_order", "ignore", ("ignore", "honour"), 48, "order[...] of customers"),
    Switch("elements_filter", "both", ("filter", "bare", "both"), 49, "filter[id], id[] or both on elements"),
    Switch("customers_mode", "periodicity", ("periodicity", "segments", "disabled", "unavailable"), 50,
           "the feature"),
    Switch("customers_lists", "mode", ("mode", "both"), 50,
           "statuses and segments of customers answer in their own mode only, or in both"),
    Switch("customers_off_status", "426", ("402", "403", "422", "425", "426", "204"), 50,
           "customers when it is off"),
    Switch("task_unattached", "null", ("null", "0"), 51, "entity_id of a task of nothing"),
    Switch("webhook_delivery", "once", ("once", "duplicate", "reorder", "lose"), 53,
           "how hooks are delivered"),
    Switch("webhook_hour", "3600", NUMBER, 53,
           "seconds that an hour of waiting between attempts to deliver takes"),
    Switch("webhook_reenable", "on", ("on", "off"), 43,
           "whether POST /webhooks switches on a destination that was disabled"),
    Switch("skeleton_embedded", "present", ("present", "absent"), 54, "_embedded in only_deleted rows"),
    Switch("omit_attributes", "0", NUMBER, 55, "probability that a nullable attribute of a record is absent"),
    # Later ones stand at the end: the switch matrix draws in this order
    Switch("only_deleted_flag", "false", ("false", "true"), 20,
           "is_deleted of contacts and companies in with=only_deleted"),
    Switch("talk_contact_place", "entity", ("entity", "event"), 41,
           "where a chat event has linked_talk_contact_id: in _embedded.entity, or in the event"),
    Switch("talks_list", "list", ("list", "404"), 41, "whether GET talks lists talks"),
    Switch("webhook_echo", "object", ("object", "list"), 43, "the form of settings in POST /webhooks' echo"),
)  # fmt: skip
BY_NAME = {switch.name: switch for switch in SWITCHES}


class Switches:
    """Current value of every switch. `version` grows with every change."""

    def __init__(self) -> None:
        self._values = {switch.name: switch.default for switch in SWITCHES}
        self.version = 0

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def number(self, name: str) -> float:
        """Returns the value of a numeric switch."""
        return float(self._values[name])

    def moves_updated_at(self, action: str) -> bool:
        """True if this kind of change moves updated_at (row 17)."""
        return action in self._values["updated_at_moves_on"].split(",")

    def set(self, name: str, value: object) -> None:
        """Sets one switch; ValueError lists the allowed values."""
        switch = BY_NAME.get(name)
        wanted = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if switch is None or not switch.accepts(wanted):
            allowed = " | ".join(switch.values if switch else sorted(BY_NAME))
            raise ValueError(f"switch {name}={wanted}: allowed are {allowed}")
        self._values[name] = wanted
        self.version += 1

    def describe(self) -> list[dict[str, object]]:
        """Returns every switch with its value, allowed values and meaning."""
        return [{"name": switch.name, "value": self._values[switch.name], "default": switch.default,
                 "allowed": switch.values, "row": switch.row, "meaning": switch.meaning}
                for switch in SWITCHES]  # fmt: skip
