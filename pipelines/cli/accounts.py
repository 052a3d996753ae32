"""Commands on accounts: which ones the database mirrors, and with what access. Added to the root command by
`cli/app.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.common import Account, ErrorReporter, ExampleText
from pipelines.errors import UsageError
from pipelines.installation import Installation, open_installation
from pipelines.migrate import migrate

Name = Annotated[str, typer.Argument(
    help="Name of the account here: also that of its schema and of its partition in Dagster.")]


Browser = Annotated[bool, typer.Option("--browser", help="OAuth: agree in a browser on this computer.")]


Paste = Annotated[bool, typer.Option(
    "--paste", help="OAuth: agree in a browser elsewhere, and paste the address it is sent to.")]


Port = Annotated[int | None, typer.Option(
    help="Where to wait for the browser, on 127.0.0.1; else AMOCRM_REDIRECT_URI's, or 8976.",
    min=1, max=65535)]


def register(app: typer.Typer, report_errors: ErrorReporter, example: ExampleText) -> None:
    """Adds the commands to `app`. `report_errors` turns errors into exit codes, `example` ends a --help."""
    _register_access(app, report_errors, example)
    accounts = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown",
                           help="The accounts that this database mirrors: each has its own schema, "
                           "tokens, rate limit and cursors.",
                           epilog=example("amocrm-mirror accounts list",
                                          "amocrm-mirror accounts add acme https://acme.amocrm.ru < "
                                          "token.txt"))
    app.add_typer(accounts, name="accounts")
    _register_add_and_remove(accounts, report_errors, example)

    @accounts.command("list",
                      epilog=example("amocrm-mirror accounts list", "amocrm-mirror accounts list --json"))
    def list_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
        """Show every account: its address, when it was last read, and whether it is paused or amoCRM refuses
        it."""
        from pipelines.admin.manage_accounts import list_accounts
        with report_errors():
            found = list_accounts(open_installation())
            typer.echo(json.dumps(found, ensure_ascii=False, indent=2)) if as_json else _print_accounts(found)

    @accounts.command(epilog=example("amocrm-mirror accounts pause acme"))
    def pause(name: Name) -> None:
        """Start no sync of the account, by hand or by schedule, until it is resumed. Its data stay as they
        are."""
        from pipelines.admin.manage_accounts import set_paused
        with report_errors():
            typer.echo(set_paused(open_installation(), name, True))

    @accounts.command(epilog=example("amocrm-mirror accounts resume acme"))
    def resume(name: Name) -> None:
        """Let a paused account be synced again, from where it was."""
        from pipelines.admin.manage_accounts import set_paused
        with report_errors():
            typer.echo(set_paused(open_installation(), name, False))


def _register_add_and_remove(accounts: typer.Typer, report_errors: ErrorReporter,
                             example: ExampleText) -> None:
    @accounts.command(epilog=example("amocrm-mirror accounts add acme https://acme.amocrm.ru < token.txt",
                                     "amocrm-mirror accounts add acme acme --browser"))
    def add(name: Name,
            address: Annotated[str, typer.Argument(
                help="Its address: https://acme.amocrm.ru, or just acme.")],
            browser: Browser = False, paste: Paste = False, port: Port = None) -> None:
        """Mirror another account into a schema of its own: create the tables and ask for access, as `auth`
        does.

        If access is not given, nothing of the account is kept. Schedules find a new account without a
        restart.
        """
        from pipelines.admin import manage_accounts as work
        from pipelines.cli.authorize import authorize

        def grant(added: Installation) -> Iterator[str]:
            return authorize(added, browser, paste, port)

        with report_errors():
            for line in work.add(open_installation(), name, address, grant):
                typer.echo(line)

    @accounts.command(epilog=example("amocrm-mirror accounts remove acme",
                                     "amocrm-mirror accounts remove acme --keep-data --yes"))
    def remove(name: Name,
               yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
               keep_data: Annotated[bool, typer.Option(
                   "--keep-data", help="Leave its schema as it is.")] = False) -> None:
        """Stop mirroring the account, and delete its data here. The command lists the data and asks first."""
        with report_errors():
            _remove(open_installation(), name, yes, keep_data)


def _register_access(app: typer.Typer, report_errors: ErrorReporter, example: ExampleText) -> None:
    @app.command(epilog=example("amocrm-mirror auth", "amocrm-mirror auth < token.txt",
                                "amocrm-mirror auth --browser", "amocrm-mirror auth --paste"))
    def auth(browser: Browser = False, paste: Paste = False, port: Port = None,
             account: Account = "") -> None:
        """Give the mirror access to the account: a long-lived token, pasted unseen or piped in, or an OAuth
        integration.

        The token is checked first: which account it belongs to, what it cannot see, when it expires. It is
        stored, encrypted, only if it belongs to the account that the schema holds. After a token was revoked,
        this command lets syncs resume.
        """
        from pipelines.cli.authorize import authorize
        with report_errors():
            mirror = open_installation(account)
            migrate(mirror.conninfo, mirror.schema)
            for line in authorize(mirror, browser, paste, port):
                typer.echo(line)

    @app.command(epilog=example("amocrm-mirror keys rotate", "amocrm-mirror keys forget"))
    def keys(action: Annotated[str, typer.Argument(
            help="rotate: a new key; forget: drop the older ones", metavar="rotate|forget")]) -> None:
        """Encrypt the stored secrets with a new key of the key file, or with the first one of MIRROR_KEY."""
        from pipelines.admin import rotate_keys as work
        with report_errors():
            actions = {"rotate": work.rotate, "forget": work.drop_old_keys}
            if action not in actions:
                raise UsageError(f"there is no action {action!r}: use {', '.join(actions)}")
            mirror = open_installation()
            migrate(mirror.conninfo, mirror.schema)
            typer.echo(actions[action](mirror))


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


def _print_accounts(accounts: list[dict[str, object]]) -> None:
    from pipelines.cli.common import unlimited_width
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("account", "id", "address", "last complete", "fell short", "standing"):
        table.add_column(title, justify="right" if title in ("id", "fell short") else "left")
    for each in accounts:
        table.add_row(str(each["account"]), str(each["account_id"] or ""), str(each["address"]),
                      str(each["last_complete"] or "never"),
                      str(each["fell_short"]), Text(str(each["standing"])))
    unlimited_width(Console(highlight=False)).print(table)
    if not accounts:
        typer.echo("no account yet: `amocrm-mirror accounts add NAME https://….amocrm.ru`, or `amocrm-mirror "
                   "auth`")
