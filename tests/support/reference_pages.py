"""`python -m tests.support.reference_pages`: writes docs/options.md from the commands' own help, and the
defaults and values in docs/settings.md and docs/ru/settings.md from the declaration of the settings.
`make docs` runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.main import get_command

from pipelines.cli.app import app
from pipelines.cli.common import COMMAND
from pipelines.config.settings import Settings
from tests.support.commands import REPOSITORY

OPTIONS = REPOSITORY / "docs" / "options.md"
SETTINGS = {"en": REPOSITORY / "docs" / "settings.md", "ru": REPOSITORY / "docs" / "ru" / "settings.md"}
"""Language → page."""
RANGES = {"en": ("{} to {}", "{} or more", "above {}"), "ru": ("от {} до {}", "от {}", "больше {}")}
"""Language → words for a number with two bounds, with a lower one, and above one."""
HEAD = """# Every command and its options

What each command says with `--help`, on one page. What commands are for, exit codes and examples of what they
print: [commands](commands.md).

"""
FOOT = """
## What was tried

`make docs` writes this page from the program, and a test compares both. Each example is a command that
exists, with options that it takes: a test reads them.
"""


def options_page() -> str:
    """What Typer writes about the commands, with a list of links instead of its shortened lines."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    context: Any = root.make_context(COMMAND, [], resilient_parsing=True)
    text = str(get_docs_for_click(obj=root, ctx=context, name=COMMAND))
    _, _, below = text.partition("**Commands**:")
    listed, _, sections = below.partition("\n## ")
    links = " · ".join(f"[{name}](#{COMMAND}-{name})" for name in re.findall(r"\* `([\w-]+)`", listed))
    return HEAD + links + "\n\n" + tidy(f"## {sections}").rstrip() + "\n" + FOOT


def tidy(text: str) -> str:
    """Without what every command has, and without the shortened lines of groups."""
    text = re.sub(r"\* `--help`: Show this message and exit\.\n", "", text)
    text = re.sub(r"\*\*(Options|Commands)\*\*:\n\n(?=\n|\*\*|#)", "", text)
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n?", "", text)
    text = re.sub(r"\*\*Usage\*\*:\n\n```console\n\$ (.*)\n```", r"    \1", text)
    text = re.sub(r"(?<=\[)([^\[\]\n]*)x>=(\d+)(?=\])", r"\1\2 or more", text)
    text = re.sub(r"(?<=[\[ ])(-?\d+)<=x<=(-?\d+)(?=\])", r"\1 to \2", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" <(int|float) range>", r" <\1>", text))


def settings_page(language: str) -> str:
    """The page with its cells of defaults and values written anew; all other text is the page's own."""
    lines = SETTINGS[language].read_text(encoding="utf-8").splitlines()
    return "\n".join(setting_row(line, language) if line.startswith("| `") else line for line in lines) + "\n"


def setting_row(line: str, language: str) -> str:
    _, names, default, _, text, _ = re.split(r"(?<!\\)\|", line)
    fields = [Settings.model_fields[name.lower()] for name in re.findall(r"`(\w+)`", names)]
    defaults = [shown_default(field) for field in fields]
    shown = ", ".join(f"`{each}`" for each in defaults) if all(defaults) else default.strip()
    allowed = ", ".join(sorted({allowed_values(field, language) for field in fields} - {""}))
    return f"|{names}|{cell(shown)}|{cell(allowed)}|{text}|"


def cell(text: str) -> str:
    return f" {text} " if text else " "


def shown_default(field: FieldInfo) -> str:
    """The default as one writes it in .env; empty where words have to say what it is."""
    if field.is_required() or field.default_factory or field.default in (None, ""):
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return str(field.default)


def allowed_values(field: FieldInfo, language: str) -> str:
    if field.annotation is bool:
        return "`on`, `off`"
    if choices := [each for part in parts(field.annotation) if get_origin(part) is Literal
                   for each in get_args(part)]:
        return ", ".join(f"`{each}`" for each in choices)
    between, least, above = RANGES[language]
    bounds = {type(each): each for each in [*field.metadata, *metadata(field.annotation)]}
    low, high, over = bounds.get(Ge), bounds.get(Le), bounds.get(Gt)
    if low and high:
        return between.format(low.ge, high.le)
    return least.format(low.ge) if low else above.format(over.gt) if over else ""


def parts(annotation: Any) -> Iterator[Any]:
    """A type, and the types of a union."""
    yield annotation
    for part in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from parts(part)


def metadata(annotation: Any) -> list[Any]:
    """The bounds that stand inside an optional type."""
    return [bound for part in parts(annotation) for field in getattr(part, "__metadata__", ())
            for bound in getattr(field, "metadata", [field])]


def main() -> None:
    OPTIONS.write_text(options_page(), encoding="utf-8")
    for language, path in SETTINGS.items():
        path.write_text(settings_page(language), encoding="utf-8")


if __name__ == "__main__":
    main()
