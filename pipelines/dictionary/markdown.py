"""dictionary → Markdown, for a repository, a wiki or a language model. Names come from amoCRM and may be
hostile, so they are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from pipelines.dictionary.model import Column, CustomField, Dictionary, Relation
from pipelines.schema.texts import say, speaking

MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]|~#])")
BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Unicode bidirectional controls, which change the direction of the text after them."""
MAX_OPTIONS = 30
"""Options per field that are listed."""


def markdown(dictionary: Dictionary, diagram: str = "") -> str:
    """The dictionary as Markdown. `diagram` is the address of the SVG."""
    with speaking(dictionary.language):
        return "\n".join(_lines(dictionary, diagram)).rstrip() + "\n"


def escape_text(text: str) -> str:
    """The text on one line, escaped so that Markdown shows it unchanged."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", escape(" ".join(BIDI_CONTROLS.sub("", text).split()), quote=False))


def code_span(text: str) -> str:
    """A name as a code span, or as escaped text if it contains characters that would end the span or that a
    renderer could take for HTML."""
    flat = " ".join(text.split())
    return (escape_text(flat) if set(flat) & set("`|<>&\\") or BIDI_CONTROLS.search(flat)
            or not flat else f"`{flat}`")


def _lines(dictionary: Dictionary, diagram: str) -> Iterator[str]:
    yield from (f"# {escape_text(dictionary.title)}", "", f"{escape_text(dictionary.subtitle)}.", "")
    yield from (line for note in dictionary.notes for line in (escape_text(note), ""))
    if diagram:
        yield from (f"[![{say('The tables and their references')}]({diagram})]({diagram})", "")
    yield say("Written by `amocrm-mirror dictionary`; changes made by hand are lost. "
              "`timestamptz` is an instant, shown in the time zone of")
    yield say("the session; `numeric` is exact; durations are seconds. **Key** columns are the primary key. "
              "→ is a reference to a table; ⇒ is an enforced one.")
    yield ""
    for group in dictionary.groups:
        found = dictionary.relations_in(group)
        if found:
            yield f"- **{escape_text(group.title)}:** " + ", ".join(
                f"[{escape_text(each.name)}](#{_anchor(each)})" for each in found)
    if dictionary.has_account:
        yield f"- **[{say('Custom fields of the account')}](#custom-fields)**"
    if dictionary.has_account:
        yield from _fields(dictionary.fields)
    for group in dictionary.groups:
        yield from (line for each in _chapter(dictionary, group.title, dictionary.relations_in(group))
                    for line in each)


def _chapter(dictionary: Dictionary, title: str, relations: Iterable[Relation]) -> Iterator[Iterator[str]]:
    """The lines of a chapter; none if it is empty."""
    found = list(relations)
    if found:
        yield iter(("", f"## {escape_text(title)}"))
        yield from (_relation(dictionary, each) for each in found)


def _anchor(relation: Relation) -> str:
    return re.sub(r"[^\w.-]", "-", relation.anchor)


def _relation(dictionary: Dictionary, relation: Relation) -> Iterator[str]:
    yield from ("", f'<a id="{_anchor(relation)}"></a>', f"### {escape_text(relation.name)}", "",
                f"{escape_text(relation.comment) or say('No comment')}.  ")
    yield from (f"{line}  " for line in _summary_lines(dictionary, relation))
    if any(column.origin for column in relation.columns):
        yield from ("", f"| {say('column')} | {say('type')} | | {say('what it is')} | {say('from')} |",
                    "|---|---|---|---|---|")
        yield from (
            f"| {' | '.join((*_cells(column), escape_text(column.origin)))} |" for column in relation.columns)
        return
    yield from ("", f"| {say('column')} | {say('type')} | | {say('what it is')} |", "|---|---|---|---|")
    yield from (f"| {' | '.join(_cells(column))} |" for column in relation.columns)


def _summary_lines(dictionary: Dictionary, relation: Relation) -> Iterator[str]:
    if relation.rows is not None:
        living = "" if relation.live_rows is None or relation.live_rows == relation.rows \
            else ", " + say("{} of them visible in amoCRM", f"{relation.live_rows:,}")
        yield f"{say('Rows: {}', f'{relation.rows:,}')}{living}."
    if relation.sources:
        yield f"{say('From')}: " + ", ".join(code_span(source) for source in relation.sources) + "."
    parts = dictionary.children_of(relation.name)
    if parts:
        yield f"{say('Children')}: " + ", ".join(f"[{escape_text(each.name)}](#{_anchor(each)})"
                                       for each in parts) + "."


def _cells(column: Column) -> tuple[str, str, str, str]:
    notes = ([f"**{say('key')}**"] if column.is_key else []) \
        + ([] if column.is_nullable or column.is_key else [say("not null")])
    points = [f"{'⇒' if each.is_enforced else '→'} [{escape_text(each.table)}](#{each.table})"
              for each in column.refers]
    return (code_span(column.name), code_span(column.type), " ".join([*notes, ", ".join(points)]).strip(),
            escape_text(column.comment))


def _fields(fields: Iterable[CustomField]) -> Iterator[str]:
    yield from ("", '<a id="custom-fields"></a>', f"## {say('Custom fields of the account')}", "")
    yield say("Filled: living records with a value, of all living records of that kind.")
    place = ""
    for each in fields:
        if each.heading != place:
            place = each.heading
            heads = " | ".join(say(each) for each in ("field", "id", "type", "filled", "columns", "options"))
            yield from ("", f"### {say('Fields of {}', escape_text(place))}", "", f"| {heads} |",
                        "|---|---|---|---|---|---|")
        yield f"| {' | '.join(_field(each))} |"


def _field(each: CustomField) -> tuple[str, ...]:
    name = escape_text(each.name or say("(no name)")) + (f" ({code_span(each.code)})" if each.code else "") \
        + ("" if each.is_live else f", {say('deleted')}")
    more = [say("and {} more", len(each.options) - MAX_OPTIONS)] if len(each.options) > MAX_OPTIONS else []
    columns = ", ".join(code_span(column) for column in each.columns)
    return (name, str(each.id), code_span(each.type),
            f"{each.filled:,} / {each.rows:,} ({escape_text(each.percent)})", columns,
            "; ".join([*(escape_text(option) for option in each.options[:MAX_OPTIONS]), *more]))
