"""Commands about accounts: which ones the database mirrors, and with what access. Registered by cli.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.common import Account, Example, Told
from pipelines.errors import WrongUse
from pipelines.installation import Mirror, open_mirror
from pipelines.migrate import migrate

Name = Annotated[str, typer.Argument(help="Name of the account here: that of its schema, and of its partition in Dagster.")]


Browser = Annotated[bool, typer.Option("--browser", help="OAuth: agree in a browser on this computer.")]


Paste = Annotated[bool, typer.Option("--paste", help="OAuth: agree in a browser elsewhere, and paste the address it is sent to.")]


Port = Annotated[int | None, typer.Option(help="Where to wait for the browser, on 127.0.0.1; else AMOCRM_REDIRECT_URI's, or 8976.", min=1, max=65535)]


def register(app: typer.Typer, told: Told, example: Example) -> None:
    """`told` makes messages and exit codes of what goes wrong, `example` the last lines of --help."""
    _register_access(app, told, example)
    accounts = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="The accounts that this database mirrors: each has a schema, "
                           "tokens, a budget and cursors of its own.",
                           epilog=example("amocrm-mirror accounts list", "amocrm-mirror accounts add acme https://acme.amocrm.ru < token.txt"))
    app.add_typer(accounts, name="accounts")
    _register_coming_and_going(accounts, told, example)

    @accounts.command("list", epilog=example("amocrm-mirror accounts list", "amocrm-mirror accounts list --json"))
    def list_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
        """Show every account: address, how it stands with amoCRM and with you, and when it was last read."""
        from pipelines.admin.manage_accounts import listed
        with told():
            found = listed(open_mirror())
            typer.echo(json.dumps(found, ensure_ascii=False, indent=2)) if as_json else _show(found)

    @accounts.command(epilog=example("amocrm-mirror accounts pause acme"))
    def pause(name: Name) -> None:
        """Let no sync of the account start, by hand or by schedule, until it is resumed. Its data stay as they are."""
        from pipelines.admin.manage_accounts import set_paused
        with told():
            typer.echo(set_paused(open_mirror(), name, True))

    @accounts.command(epilog=example("amocrm-mirror accounts resume acme"))
    def resume(name: Name) -> None:
        """Let a paused account be synced again, from where it was."""
        from pipelines.admin.manage_accounts import set_paused
        with told():
            typer.echo(set_paused(open_mirror(), name, False))


def _register_coming_and_going(accounts: typer.Typer, told: Told, example: Example) -> None:
    @accounts.command(epilog=example("amocrm-mirror accounts add acme https://acme.amocrm.ru < token.txt",
                                     "amocrm-mirror accounts add acme acme --browser"))
    def add(name: Name, address: Annotated[str, typer.Argument(help="Its address: https://acme.amocrm.ru, or just acme.")],
            browser: Browser = False, paste: Paste = False, port: Port = None) -> None:
        """Mirror another account into a schema of its own: makes the tables and asks for access, as `auth` does.

        Nothing is left of it where access is not given. Nothing has to be restarted: schedules find it.
        """
        from pipelines.admin import manage_accounts as work
        from pipelines.cli.authorize import authorize

        def grant(added: Mirror) -> Iterator[str]:
            return authorize(added, browser, paste, port)

        with told():
            for line in work.add(open_mirror(), name, address, grant):
                typer.echo(line)

    @accounts.command(epilog=example("amocrm-mirror accounts remove acme", "amocrm-mirror accounts remove acme --keep-data --yes"))
    def remove(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
               keep_data: Annotated[bool, typer.Option("--keep-data", help="Leave its schema as it is.")] = False) -> None:
        """Mirror the account no longer, and drop what there is of it. It says what that is, and asks."""
        with told():
            _remove(open_mirror(), name, yes, keep_data)


def _register_access(app: typer.Typer, told: Told, example: Example) -> None:
    @app.command(epilog=example("amocrm-mirror auth", "amocrm-mirror auth < token.txt", "amocrm-mirror auth --browser", "amocrm-mirror auth --paste"))
    def auth(browser: Browser = False, paste: Paste = False, port: Port = None, account: Account = "") -> None:
        """Give the mirror access to the account: a long-lived token, pasted unseen or piped in, or an OAuth integration.

        What amoCRM gives is looked at first: whose it is, what it cannot see, when it ends. It is stored, encrypted, only when it is of the
        account that the schema holds. After a token was revoked, this is how syncs resume.
        """
        from pipelines.cli.authorize import authorize
        with told():
            mirror = open_mirror(account)
            migrate(mirror.conninfo, mirror.schema)
            for line in authorize(mirror, browser, paste, port):
                typer.echo(line)

    @app.command(epilog=example("amocrm-mirror keys rotate", "amocrm-mirror keys forget"))
    def keys(action: Annotated[str, typer.Argument(help="rotate: a new key; forget: drop the older ones", metavar="rotate|forget")]) -> None:
        """Encrypt the stored secrets with a new key of the key file, or with the first one of MIRROR_KEY."""
        from pipelines.admin import rotate_keys as work
        with told():
            actions = {"rotate": work.rotate, "forget": work.forget}
            if action not in actions:
                raise WrongUse(f"there is no action {action!r}: use {', '.join(actions)}")
            mirror = open_mirror()
            migrate(mirror.conninfo, mirror.schema)
            typer.echo(actions[action](mirror))


def _remove(mirror: Mirror, name: str, yes: bool, keep_data: bool) -> None:
    from pipelines.admin import manage_accounts as work
    gone = work.leaving(mirror, name, keep_data)
    typer.echo(f"{name}, {gone.account.base_url}: its tokens, cursors and records of runs, and its partition in Dagster go")
    kept = f"{', '.join(gone.schemas) or 'no schema'} ({gone.tables} tables, {gone.size})"
    typer.echo(f"its data: {kept} {'stay; the next account of that name must be the same one' if keep_data else 'go for good'}")
    if gone.forgotten:
        typer.echo(f"{gone.forgotten} people are forgotten there, which is forgotten too: should the account be added again, they come back")
    if name == mirror.account and mirror.settings.amocrm_base_url:
        typer.echo("it is the configured account: the next sync adds it again, unless you change AMOCRM_SCHEMA or AMOCRM_BASE_URL")
    if not yes:
        typer.confirm(f"Remove the account {name}?", abort=True)
    for line in work.remove(mirror, gone, keep_data):
        typer.echo(line)


def _show(found: list[dict[str, object]]) -> None:
    from pipelines.cli.common import wide
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("account", "id", "address", "last complete", "fell short", "standing"):
        table.add_column(title, justify="right" if title in ("id", "fell short") else "left")
    for each in found:
        table.add_row(str(each["account"]), str(each["account_id"] or ""), str(each["address"]), str(each["last_complete"] or "never"),
                      str(each["fell_short"]), Text(str(each["standing"])))
    wide(Console(highlight=False)).print(table)
    if not found:
        typer.echo("no account yet: `amocrm-mirror accounts add NAME https://….amocrm.ru`, or `amocrm-mirror auth`")
