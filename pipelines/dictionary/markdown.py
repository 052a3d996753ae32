"""facts → Markdown: the dictionary for a repository, a wiki or a language model. Names may be hostile: they are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from pipelines.dictionary.model import Column, CustomField, Dictionary, Relation

SPECIAL = re.compile(r"([\\`*_{}\[\]|~#])")
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of all text behind them."""
OPTIONS = 30


def markdown(dictionary: Dictionary, diagram: str = "") -> str:
    """`diagram`: the address of the picture."""
    return "\n".join(_lines(dictionary, diagram)).rstrip() + "\n"


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return SPECIAL.sub(r"\\\1", escape(" ".join(TURNING.sub("", text).split()), quote=False))


def code(text: str) -> str:
    """A name in monospace. What would end that, or look like HTML to somebody, stays plain."""
    flat = " ".join(text.split())
    return plain(flat) if set(flat) & set("`|<>&\\") or TURNING.search(flat) or not flat else f"`{flat}`"


def _lines(dictionary: Dictionary, diagram: str) -> Iterator[str]:
    yield from (f"# {plain(dictionary.title)}", "", f"{plain(dictionary.subtitle)}.", "")
    yield from (line for note in dictionary.notes for line in (plain(note), ""))
    if diagram:
        yield from (f"[![The tables and how they hang together]({diagram})]({diagram})", "")
    yield "Written by `amocrm-mirror dictionary`; what is written here by hand is lost. `timestamptz` is an instant, shown in the time zone of"
    yield "the session; `numeric` is exact; durations are seconds. **Key** columns are the primary key. → points at a table; ⇒ does, and is enforced."
    yield ""
    for group in dictionary.groups:
        found = dictionary.of(group)
        if found:
            yield f"- **{plain(group.title)}:** " + ", ".join(f"[{plain(each.name)}](#{_anchor(each)})" for each in found)
    if dictionary.has_account:
        yield "- **[Custom fields of the account](#custom-fields)**"
    if dictionary.has_account:
        yield from _fields(dictionary.fields)
    for group in dictionary.groups:
        yield from (line for each in _headed(dictionary, group.title, dictionary.of(group)) for line in each)


def _headed(dictionary: Dictionary, title: str, relations: Iterable[Relation]) -> Iterator[Iterator[str]]:
    found = list(relations)
    if found:
        yield iter(("", f"## {plain(title)}"))
        yield from (_relation(dictionary, each) for each in found)


def _anchor(relation: Relation) -> str:
    return re.sub(r"[^\w.-]", "-", relation.anchor)


def _relation(dictionary: Dictionary, relation: Relation) -> Iterator[str]:
    yield from ("", f'<a id="{_anchor(relation)}"></a>', f"### {plain(relation.name)}", "", f"{plain(relation.comment) or 'No comment'}.  ")
    yield from (f"{line}  " for line in _about(dictionary, relation))
    if any(column.origin for column in relation.columns):
        yield from ("", "| column | type | | what it is | from |", "|---|---|---|---|---|")
        yield from (f"| {' | '.join((*_cells(column), plain(column.origin)))} |" for column in relation.columns)
        return
    yield from ("", "| column | type | | what it is |", "|---|---|---|---|")
    yield from (f"| {' | '.join(_cells(column))} |" for column in relation.columns)


def _about(dictionary: Dictionary, relation: Relation) -> Iterator[str]:
    if relation.rows is not None:
        living = "" if relation.living is None or relation.living == relation.rows else f", {relation.living:,} of them visible in amoCRM"
        yield f"Rows: {relation.rows:,}{living}."
    if relation.sources:
        yield "From: " + ", ".join(code(source) for source in relation.sources) + "."
    parts = dictionary.parts(relation.name)
    if parts:
        yield "Children: " + ", ".join(f"[{plain(each.name)}](#{_anchor(each)})" for each in parts) + "."


def _cells(column: Column) -> tuple[str, str, str, str]:
    notes = (["**key**"] if column.is_key else []) + ([] if column.is_nullable or column.is_key else ["not null"])
    points = [f"{'⇒' if each.is_enforced else '→'} [{plain(each.table)}](#{each.table})" for each in column.refers]
    return code(column.name), code(column.type), " ".join([*notes, ", ".join(points)]).strip(), plain(column.comment)


def _fields(fields: Iterable[CustomField]) -> Iterator[str]:
    yield from ("", '<a id="custom-fields"></a>', "## Custom fields of the account", "")
    yield "Filled: living records with a value, of all living records of that kind."
    place = ""
    for each in fields:
        if each.place != place:
            place = each.place
            yield from ("", f"### Fields of {plain(place)}", "", "| field | id | type | filled | columns | options |", "|---|---|---|---|---|---|")
        yield f"| {' | '.join(_field(each))} |"


def _field(each: CustomField) -> tuple[str, ...]:
    name = plain(each.name or "(no name)") + (f" ({code(each.code)})" if each.code else "") + ("" if each.is_live else ", deleted")
    more = [f"and {len(each.options) - OPTIONS} more"] if len(each.options) > OPTIONS else []
    columns = ", ".join(code(column) for column in each.columns)
    return (name, str(each.id), code(each.type), f"{each.filled:,} / {each.rows:,} ({plain(each.percent)})", columns,
            "; ".join([*(plain(option) for option in each.options[:OPTIONS]), *more]))
