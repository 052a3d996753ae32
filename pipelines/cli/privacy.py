"""Commands about people: who may read the mirror, and who is to be erased from it. Registered by cli.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

import psycopg
import typer
from psycopg.sql import SQL, Identifier

from pipelines import erasure as forgetting
from pipelines.admin import reader_role
from pipelines.bi import all_accounts
from pipelines.cli.common import Account
from pipelines.errors import WrongUse
from pipelines.installation import Mirror, open_mirror
from pipelines.migrate import migrate

Told = Callable[[], AbstractContextManager[None]]
Example = Callable[..., str]


def register(app: typer.Typer, told: Told, example: Example) -> None:
    """`told` makes messages and exit codes of what goes wrong, `example` the last lines of --help."""

    @app.command(epilog=example("amocrm-mirror grants", "amocrm-mirror grants --role metabase --ask", "pass show bi | amocrm-mirror grants --stdin"))
    def grants(role: Annotated[str, typer.Option(help="Name of the role; AMOCRM_SCHEMA with _bi without it.")] = "",
               ask: Annotated[bool, typer.Option("--ask", help="Ask for its password, hidden.")] = False,
               stdin: Annotated[bool, typer.Option("--stdin", help="Read its password from standard input.")] = False,
               new_password: Annotated[bool, typer.Option("--new-password", help="Make a new one, though it has one.")] = False,
               account: Account = "",
               every: Annotated[bool, typer.Option("--all", help="The views over all accounts instead of one account.")] = False) -> None:
        """Create or update a role that may only read: the account's tables and views, present and future, and never `mirror`.

        A new role gets a password that is made here and shown once, unless you give one.
        """
        with told():
            _grants(role, ask, stdin, new_password, account, every)

    @app.command(epilog=example("amocrm-mirror forget --contact 48217735", "amocrm-mirror forget --list", "amocrm-mirror forget --lift 48217735"))
    def forget(contact: Annotated[int | None, typer.Option(help="Id of the contact to erase.", min=1)] = None,
               lift: Annotated[int | None, typer.Option(help="Id of a contact that may come back.", min=1)] = None,
               show: Annotated[bool, typer.Option("--list", help="Who was forgotten, and when.")] = False,
               yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False, account: Account = "") -> None:
        """Erase a person everywhere: the contact, its values, links, notes, tasks, talks, events, history, quarantine and queue.

        No sync, sweep or verification brings it back until `--lift`; then the next sync reads every list whole, and brings all that is on it.
        """
        with told():
            _forget(contact, lift, show, yes, account)


def _grants(role: str, ask: bool, stdin: bool, new_password: bool, account: str, every: bool) -> None:
    if ask + stdin + new_password > 1:
        raise WrongUse("--ask, --stdin and --new-password each say where the password comes from: use one of them")
    if every and account:
        raise WrongUse("--all and --account both say what the role reads: use one of them")
    mirror = open_mirror(account)
    schema = all_accounts.SCHEMA if every else mirror.schema
    role = role or f"{schema}_bi"
    fault = reader_role.fault_of(role)
    if fault:
        raise WrongUse(fault)
    given = _given(role, ask, stdin)
    with mirror.connect_autocommit() as connection:
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
        password = given or (None if known and not new_password else reader_role.made_password())
        try:
            granted = reader_role.grant(connection, schema, role, password, is_made=not given)
        except reader_role.NeedsAdministrator as reason:
            typer.echo(reason.sql, nl=False)
            raise
    typer.echo(f"{role}: {'created' if granted.created else 'updated'}; reads {', '.join(granted.schemas)}, and tables made there later")
    typer.echo(granted.url)
    typer.echo("This password is not shown again." if password and not given else "With the password that you gave." if given else
               "Its password is the one that it had; --new-password makes another.")
    for note in granted.notes:
        typer.echo(note)


def _given(role: str, ask: bool, stdin: bool) -> str:
    """The password from a prompt or from standard input; empty: none was asked for."""
    if not ask and not stdin:
        return ""
    given = str(typer.prompt(f"Password of {role}", hide_input=True, confirmation_prompt=True)) if ask else sys.stdin.readline().rstrip("\r\n")
    if not given or "\0" in given:
        raise WrongUse("the password is empty, or holds a character that no password can: give another")
    return given


PEOPLE = "contacts"


def _forget(contact: int | None, lift: int | None, show: bool, yes: bool, account: str) -> None:
    if (contact is not None) + (lift is not None) + show != 1:
        raise WrongUse("say one of --contact ID, --lift ID and --list")
    mirror = open_mirror(account)
    migrate(mirror.conninfo, mirror.schema)
    with mirror.connect_autocommit() as connection:
        if connection.execute("SELECT FROM mirror.accounts WHERE name = %s", [mirror.account]).fetchone() is None:
            raise WrongUse(f"nothing is mirrored into {mirror.schema!r} yet: there is nobody to forget")
        if contact is not None:
            _erase(connection, mirror, contact, yes)
        elif lift is not None:
            if not forgetting.lift(connection, mirror.account, PEOPLE, lift):
                raise WrongUse(f"contact {lift} was not forgotten here; --list shows who was")
            typer.echo(f"contact {lift} may come back: the next sync reads every list whole, which takes longer once, and brings it with its links, "
                       "notes, tasks and events, as far as amoCRM still has them. What only the mirror knew (its observations) is gone")
        else:
            for key, moment in forgetting.listed(connection, mirror.account, PEOPLE):
                typer.echo(f"contact {key}, erased {moment:%Y-%m-%d %H:%M %Z}")


def _erase(connection: psycopg.Connection[Any], mirror: Mirror, contact: int, yes: bool) -> None:
    if not yes:
        with connection.transaction() as preview:
            _told(forgetting.forget(connection, mirror.schema, mirror.account, PEOPLE, contact), "would be erased or changed")
            raise psycopg.Rollback(preview)
        typer.confirm(f"Erase contact {contact}{_name(connection, mirror.schema, contact)} for good?", abort=True)
    _told(forgetting.forget(connection, mirror.schema, mirror.account, PEOPLE, contact), "erased or changed")
    typer.echo(f"contact {contact} is erased, and kept from coming back until `amocrm-mirror forget --lift {contact}{mirror.option}`.")
    typer.echo(forgetting.NOT_REACHED)


def _told(touched: dict[str, int], what: str) -> None:
    for table, count in touched.items():
        typer.echo(f"{table}: {count} {what}")
    if not touched:
        typer.echo("nothing of it is here")


def _name(connection: psycopg.Connection[Any], schema: str, contact: int) -> str:
    row = connection.execute(SQL("SELECT name FROM {} WHERE id = %s").format(Identifier(schema, PEOPLE)), [contact]).fetchone()
    return f" ({row[0]})" if row and row[0] else ""
