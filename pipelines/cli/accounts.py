"""Commands on accounts: which ones the database mirrors, and with what access."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pipelines.cli.common import (
    Account,
    example,
    open_existing_mirror,
    open_migrated_mirror,
    open_mirror,
    report_errors,
    stdout_console,
    table,
)
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.installation import Installation

access = typer.Typer()
accounts = typer.Typer(
    name="accounts", no_args_is_help=True, rich_markup_mode="markdown",
    help="The accounts that this database mirrors: each has its own schema, tokens, rate limit and cursors.",
    epilog=example("amocrm-mirror accounts list",
                   "amocrm-mirror accounts add acme https://acme.amocrm.ru < token.txt"))

Name = Annotated[str, typer.Argument(
    help="Name of the account here: also that of its schema and of its partition in Dagster.")]
Browser = Annotated[bool, typer.Option("--browser", help="OAuth: agree in a browser on this computer.")]
Paste = Annotated[bool, typer.Option(
    "--paste", help="OAuth: agree in a browser elsewhere, and paste the address it is sent to.")]
Port = Annotated[int | None, typer.Option(
    help="Where to wait for the browser, on 127.0.0.1; else AMOCRM_REDIRECT_URI's, or 8976.",
    min=1, max=65535)]


@access.command(epilog=example("amocrm-mirror auth", "amocrm-mirror auth < token.txt",
                               "amocrm-mirror auth --browser", "amocrm-mirror auth --paste"))
def auth(browser: Browser = False, paste: Paste = False, port: Port = None, account: Account = "") -> None:
    """Give the mirror access to the account: a long-lived token, pasted unseen or piped in, or an OAuth
    integration.

    The token is checked first: which account it belongs to, what it cannot see, when it expires. It is
    stored, encrypted, only if it belongs to the account that the schema holds. After a token was revoked,
    this command lets syncs resume.
    """
    with report_errors():
        from pipelines.cli.authorize import authorize
        for line in authorize(open_migrated_mirror(account), browser, paste, port):
            typer.echo(line)


@access.command(epilog=example("amocrm-mirror keys rotate", "amocrm-mirror keys forget"))
def keys(action: Annotated[str, typer.Argument(
        help="rotate: a new key; forget: drop the older ones", metavar="rotate|forget")]) -> None:
    """Encrypt the stored secrets with a new key of the key file, or with the first one of MIRROR_KEY."""
    with report_errors():
        from pipelines.admin import rotate_keys as work
        actions = {"rotate": work.rotate, "forget": work.drop_old_keys}
        if action not in actions:
            raise UsageError(f"there is no action {action!r}: use {', '.join(actions)}")
        typer.echo(actions[action](open_migrated_mirror()))


@accounts.command("list",
                  epilog=example("amocrm-mirror accounts list", "amocrm-mirror accounts list --json"))
def list_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every account: its address, when it was last read, and whether it is paused or amoCRM refuses
    it."""
    with report_errors():
        from pipelines.admin.manage_accounts import list_accounts
        found = list_accounts(open_existing_mirror())
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2)) if as_json else _print_accounts(found)


@accounts.command(epilog=example("amocrm-mirror accounts add acme https://acme.amocrm.ru < token.txt",
                                 "amocrm-mirror accounts add acme acme --browser"))
def add(name: Name,
        address: Annotated[str, typer.Argument(help="Its address: https://acme.amocrm.ru, or just acme.")],
        browser: Browser = False, paste: Paste = False, port: Port = None) -> None:
    """Mirror another account into a schema of its own: create the tables and ask for access, as `auth`
    does.

    If access is not given, nothing of the account is kept. Schedules find a new account without a restart.
    """
    with report_errors():
        from pipelines.admin import manage_accounts as work
        from pipelines.cli.authorize import authorize

        def grant(added: Installation) -> Iterator[str]:
            return authorize(added, browser, paste, port)

        for line in work.add(open_mirror(), name, address, grant):
            typer.echo(line)


@accounts.command(epilog=example("amocrm-mirror accounts remove acme",
                                 "amocrm-mirror accounts remove acme --keep-data --yes"))
def remove(name: Name,
           yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
           keep_data: Annotated[bool, typer.Option(
               "--keep-data", help="Leave its schema as it is.")] = False) -> None:
    """Stop mirroring the account, and delete its data here. The command lists the data and asks first."""
    with report_errors():
        _remove(open_mirror(), name, yes, keep_data)


@accounts.command(epilog=example("amocrm-mirror accounts export acme",
                                 "amocrm-mirror accounts export acme --out /srv/acme.zip"))
def export(name: Name,
           out: Annotated[Path | None, typer.Option(
               help="The file to write; else NAME.zip here.", metavar="FILE",
               dir_okay=False)] = None) -> None:
    """Write the account into one file, to move it to another database: its rows, cursors, runs, erased
    people, webhook inbox, and its tokens, encrypted. Changes nothing here.

    The other database may be of another PostgreSQL, 15 or later."""
    with report_errors():
        from pipelines.admin.move_account import export_account
        for line in export_account(open_existing_mirror(), name, out or Path(f"{name}.zip")):
            typer.echo(line)


@accounts.command("import", epilog=example("amocrm-mirror accounts import acme.zip",
                                           "amocrm-mirror accounts import acme.zip --name acme_2"))
def import_(file: Annotated[Path, typer.Argument(help="A file of `accounts export`.", dir_okay=False)],
            name: Annotated[str, typer.Option(help="Another name than it had.")] = "",
            with_tokens: Annotated[bool, typer.Option(
                "--with-tokens/--without-tokens",
                help="Take its tokens along; else give access anew.")] = True) -> None:
    """Take an account from a file of `accounts export` into this database. The next sync goes on where the
    last one ended there. If it fails, nothing is left of it."""
    with report_errors():
        from pipelines.admin.move_account import import_account
        for line in import_account(open_mirror(), file, name, with_tokens):
            typer.echo(line)


@accounts.command(epilog=example("amocrm-mirror accounts pause acme"))
def pause(name: Name) -> None:
    """Start no sync of the account, by hand or by schedule, until it is resumed. Its data stay as they
    are."""
    with report_errors():
        from pipelines.admin.manage_accounts import set_paused
        typer.echo(set_paused(open_mirror(), name, True))


@accounts.command(epilog=example("amocrm-mirror accounts resume acme"))
def resume(name: Name) -> None:
    """Let a paused account be synced again, from where it was."""
    with report_errors():
        from pipelines.admin.manage_accounts import set_paused
        typer.echo(set_paused(open_mirror(), name, False))


def _remove(mirror: Installation, name: str, yes: bool, keep_data: bool) -> None:
    from pipelines.admin import manage_accounts as work
    preview = work.preview_removal(mirror, name, keep_data)
    typer.echo(f"{name}, {preview.account.base_url}: "
               "its tokens, cursors and records of runs, and its partition in Dagster go")
    kept = f"{', '.join(preview.schemas) or 'no schema'} ({preview.tables} tables, {preview.size})"
    typer.echo(
        f"its data: {kept} "
        f"{'stay; the next account of that name must be the same one' if keep_data else 'go for good'}")
    if preview.suppressed:
        typer.echo(f"{preview.suppressed} people were erased there (`forget`). The list of them goes too: "
                   "if the account is added again, they come back")
    if name == mirror.account and mirror.settings.amocrm_base_url:
        typer.echo("it is the configured account: the next sync adds it again, unless you change "
                   "AMOCRM_SCHEMA or AMOCRM_BASE_URL")
    if not yes:
        typer.confirm(f"Remove the account {name}?", abort=True)
    for line in work.remove(mirror, preview, keep_data):
        typer.echo(line)


def _print_accounts(found: list[dict[str, object]]) -> None:
    shown = table("account", ">id", "address", "last complete", ">fell short", "standing")
    for each in found:
        shown.add_row(str(each["account"]), str(each["account_id"] or ""), str(each["address"]),
                      str(each["last_complete"] or "never"), str(each["fell_short"]),
                      Text(str(each["standing"])))
    stdout_console().print(shown)
    if not found:
        typer.echo("no account yet: `amocrm-mirror accounts add NAME https://….amocrm.ru`, or `amocrm-mirror "
                   "auth`")
