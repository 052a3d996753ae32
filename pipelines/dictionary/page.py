"""dictionary → one HTML page: searchable, light and dark, self-contained. It loads nothing from the network,
and its Content-Security-Policy forbids that.

Every text from the database goes through `escape`: names of custom fields are arbitrary input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from pipelines.dictionary import diagram
from pipelines.dictionary.model import Column, CustomField, Dictionary, Group, Relation
from pipelines.schema.texts import say, speaking

FILES = Path(__file__).parent
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'")
LEGEND = ("{} is the primary key. {} is a reference to a table; {} is an enforced one. {} is an instant, "
          "shown in the time zone of the session; {} is exact; durations are seconds. {} searches, {} select "
          "a result, {} ends the search.")
KEY = "key"
LEGEND_SIGNS = ("<b>→</b>", "<b>⇒</b>", "<code>timestamptz</code>", "<code>numeric</code>", "<kbd>/</kbd>",
                "<kbd>↑</kbd> <kbd>↓</kbd> <kbd>Enter</kbd>", "<kbd>Esc</kbd>")
ZOOM_BUTTONS = (("1.25", "Larger", "+"), ("0.8", "Smaller", "−"), ("0", "Whole width", "↔"))
"""Factor of a button of the diagram (0: as wide as the page), its name, its sign."""
MAX_OPTIONS = 40
"""Options per field that are listed."""
FILLED = "Filled: living records with a value, of all living records of that kind."


def page(dictionary: Dictionary) -> str:
    with speaking(dictionary.language):
        return _page(dictionary)


def _page(dictionary: Dictionary) -> str:
    style = (FILES / "page.css").read_text(encoding="utf-8") + diagram.STYLE \
        + diagram.dark_rules('[data-theme="dark"] ') \
        + f"@media (prefers-color-scheme:dark){{{diagram.dark_rules(':root:not([data-theme=light]) ')}}}"
    return "".join((
        f'<!doctype html>\n<html lang="{dictionary.language}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{escape(dictionary.title)}</title>'
        f'<style>{style}</style></head><body>\n',
        _header(dictionary), _contents(dictionary), "<main>\n", _introduction(dictionary),
        _fields(dictionary.fields) if dictionary.has_account else "",
        "\n".join(_chapter(dictionary, group) for group in dictionary.groups
                  if dictionary.relations_in(group)),
        f'</main>\n<script>{(FILES / "page.js").read_text(encoding="utf-8")}</script></body></html>\n'))


def anchor_id(*names: str) -> str:
    """An HTML id made of the names, percent-encoded and escaped."""
    return escape(quote(".".join(names), safe=".-_~"))


def _header(dictionary: Dictionary) -> str:
    return (f'<header><a class="home" href="#top">{escape(dictionary.title)}</a><label class="search">'
            '<input id="q" type="search" autocomplete="off" spellcheck="false" '
            f'placeholder="{say("Search tables, columns, fields, options")}" aria-label="{say("Search")}" '
            f'aria-controls="hits"><kbd>/</kbd></label>'
            f'<span id="count" role="status" data-found="{say("found: {}")}"></span>'
            f'<button id="theme" title="{say("Light or dark")}" '
            f'aria-label="{say("Light or dark")}">◐</button></header>'
            f'<div id="hits" hidden role="listbox" aria-label="{say("Found")}"></div>\n')


def _contents(dictionary: Dictionary) -> str:
    parts = [f"<details open><summary>{escape(group.title)}</summary><ul>"
             + "".join(f'<li><a href="#{anchor_id(each.anchor)}"><bdi>{escape(each.name)}</bdi></a></li>'
                       for each in dictionary.relations_in(group))
             + "</ul></details>" for group in dictionary.groups if dictionary.relations_in(group)]
    places = dict.fromkeys(each.heading for each in dictionary.fields)
    if places:
        parts.insert(0, f"<details open><summary>{say('Custom fields')}</summary><ul>" + "".join(
            f'<li><a href="#{anchor_id("fields", place)}"><bdi>{escape(place)}</bdi></a></li>'
            for place in places) + "</ul></details>")
    return f'<nav aria-label="{say("Contents")}">{"".join(parts)}</nav>\n'


def _introduction(dictionary: Dictionary) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in dictionary.notes)
    return (f'<section id="top"><h1>{escape(dictionary.title)}</h1><p>{escape(dictionary.subtitle)}.</p>'
            f'{notes}<p class="dim">{say(LEGEND, f"<b>{say(KEY)}</b>", *LEGEND_SIGNS)}</p>'
            f'<details id="diagram" open><summary>{say("Diagram")}</summary><div class="zoom">'
            + "".join(f'<button data-zoom="{factor}" title="{say(words)}" aria-label="{say(words)}">{sign}'
                      "</button>" for factor, words, sign in ZOOM_BUTTONS)
            + f'</div><div class="scroll" id="canvas" tabindex="0">{diagram.svg(dictionary, style="")}</div>'
            "</details></section>\n")


def _chapter(dictionary: Dictionary, group: Group) -> str:
    return f"<h2>{escape(group.title)}</h2>\n" \
        + "\n".join(_relation(dictionary, each) for each in dictionary.relations_in(group))


def _relation(dictionary: Dictionary, relation: Relation) -> str:
    of_api = any(column.origin or column.refers for column in relation.columns)
    head = _head("column", "type", *(["points at"] if of_api else []), "what it is",
                 *(["from"] if of_api else []))
    rows = "".join(_column(relation, column, of_api) for column in relation.columns)
    about = "".join(f'<div class="dim">{line}</div>' for line in _summary_lines(dictionary, relation))
    name = f'<span class="dim">{escape(relation.schema)}.</span>{escape(relation.name)}' if relation.schema \
        else escape(relation.name)
    return (f'<section class="relation" id="{anchor_id(relation.anchor)}" '
            f'data-name="{escape(relation.full_name)}"><h3><bdi>{name}</bdi> '
            f'<a class="self" href="#{anchor_id(relation.anchor)}" '
            f'aria-label="{say("Link to this")}">#</a></h3>'
            f'<p class="comment">{escape(relation.comment)}</p>{about}<div class="scroll">'
            f'<table>{head}{rows}</table></div></section>')


def _summary_lines(dictionary: Dictionary, relation: Relation) -> Iterator[str]:
    if relation.rows is not None:
        living = "" if relation.live_rows is None or relation.live_rows == relation.rows \
            else ", " + say("{} of them visible in amoCRM", f"{relation.live_rows:,}")
        yield say("{} row" if relation.rows == 1 else "{} rows", f"{relation.rows:,}") + living
    if relation.sources:
        yield f"{say('From')} " + ", ".join(f"<code>{escape(source)}</code>" for source in relation.sources)
    parts = [_link(each) for each in dictionary.children_of(relation.name)]
    if parts:
        yield f"{say('Children')}: " + ", ".join(parts)
    pointing = list(dict.fromkeys(
        _link(each, column) for each, column in dictionary.referring_columns(relation.name)
        if each.owner != relation.name))
    if pointing:
        shown = ", ".join(pointing)
        yield f"{say('Pointed at by')} {shown}" if len(pointing) <= 8 else \
            f"<details><summary>{say('Pointed at by {} columns', len(pointing))}</summary>{shown}</details>"


def _link(relation: Relation, column: Column | None = None) -> str:
    names = (relation.anchor, column.name) if column else (relation.anchor,)
    return (f'<a href="#{anchor_id(*names)}">{escape(relation.name)}'
            f'{"." + escape(column.name) if column else ""}</a>')


def _column(relation: Relation, column: Column, of_api: bool) -> str:
    mark = f' <b class="mark">{say(KEY)}</b>' if column.is_key else "" if column.is_nullable \
        else f' <span class="mark">{say("not null")}</span>'
    points = ", ".join(f'<span class="point">{"⇒" if each.is_enforced else "→"} '
                       f'<a href="#{anchor_id(each.table)}">{escape(each.table)}</a></span>'
                       for each in column.refers)
    anchor = anchor_id(relation.anchor, column.name)
    origin = f'<td class="dim">{escape(column.origin)}' if of_api else ""
    return (f'<tr id="{anchor}" data-name="{escape(relation.full_name)}.{escape(column.name)}"><td>'
            f'<a class="name" href="#{anchor}"><bdi>{escape(column.name)}</bdi></a>{mark}'
            f'<td><code>{escape(column.type)}</code>{"<td>" + points if of_api else ""}'
            f'<td class="words"><bdi>{escape(column.comment)}</bdi>{origin}</tr>')


def _fields(fields: Iterable[CustomField]) -> str:
    place, parts = None, [
        f'<h2 id="custom-fields">{say("Custom fields of the account")}</h2>'
        f'<p class="dim">{say(FILLED)}</p>']
    for each in fields:
        if each.heading != place:
            parts.append("</table></div></section>" if place is not None else "")
            place = each.heading
            parts.append(f'<section class="relation" id="{anchor_id("fields", place)}" '
                         f'data-name="{say("fields of {}", escape(place))}"><h3>'
                         f'<bdi>{say("Fields of {}", escape(place))}</bdi></h3><div class="scroll"><table>'
                         + _head("field", "type", "filled", "columns", "options"))
        parts.append(_field(each))
    return "".join([*parts, "</table></div></section>" if place is not None else f"<p>{say('None.')}</p>"])


def _head(*columns: str) -> str:
    return f"<tr>{''.join(f'<th>{say(each)}' for each in columns)}</tr>"


def _field(each: CustomField) -> str:
    left_out = len(each.options) - MAX_OPTIONS
    more = ", " + say("and {} more", left_out) if left_out > 0 else ""
    options = ", ".join(f"<bdi>{escape(option)}</bdi>" for option in each.options[:MAX_OPTIONS]) + more
    code = f' <code>{escape(each.code)}</code>' if each.code else ""
    deleted_mark = "" if each.is_live else f' <span class="mark">{say("deleted")}</span>'
    columns = ", ".join(f"<code>{escape(column)}</code>" for column in each.columns)
    name = anchor_id("field", each.entity_type, str(each.id))
    return (f'<tr id="{name}" data-name="{escape(each.heading)}: {escape(each.name)}" '
            f'data-code="{escape(each.code)} {each.id}"><td>'
            '<a class="name" '
            f'href="#{name}"><bdi>{escape(each.name) or say("(no name)")}</bdi></a>{code}{deleted_mark}'
            f'<div class="dim">{each.id}</div><td><code>{escape(each.type)}</code>'
            f'<td class="fill"><meter max="1" value="{each.share:.4f}"></meter> {escape(each.percent)}'
            f'<div class="dim">'
            f"{each.filled:,} / {each.rows:,}</div><td>{columns}<td>{options}</tr>")
