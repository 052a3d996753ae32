"""Commands about people: who may read the mirror. Registered by cli.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from pipelines import grants_role
from pipelines.resources import open_mirror
from pipelines.sync import WrongUse

Told = Callable[[], AbstractContextManager[None]]
Example = Callable[..., str]


def register(app: typer.Typer, told: Told, example: Example) -> None:
    """`told` makes messages and exit codes of what goes wrong, `example` the last lines of --help."""

    @app.command(epilog=example("amocrm-mirror grants", "amocrm-mirror grants --role metabase --ask", "pass show bi | amocrm-mirror grants --stdin"))
    def grants(role: Annotated[str, typer.Option(help="Name of the role; AMOCRM_SCHEMA with _bi without it.")] = "",
               ask: Annotated[bool, typer.Option("--ask", help="Ask for its password, hidden.")] = False,
               stdin: Annotated[bool, typer.Option("--stdin", help="Read its password from standard input.")] = False,
               new_password: Annotated[bool, typer.Option("--new-password", help="Make a new one, though it has one.")] = False) -> None:
        """Create or update a role that may only read: the account's tables and views, present and future, and never `mirror`.

        A new role gets a password that is made here and shown once, unless you give one.
        """
        with told():
            _grants(role, ask, stdin, new_password)


def _grants(role: str, ask: bool, stdin: bool, new_password: bool) -> None:
    if ask + stdin + new_password > 1:
        raise WrongUse("--ask, --stdin and --new-password each say where the password comes from: use one of them")
    mirror = open_mirror()
    role = role or f"{mirror.schema}_bi"
    fault = grants_role.fault_of(role)
    if fault:
        raise WrongUse(fault)
    given = _given(role, ask, stdin)
    with mirror.connect_autocommit() as connection:
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
        password = given or (None if known and not new_password else grants_role.made_password())
        try:
            granted = grants_role.grant(connection, mirror.schema, role, password, is_made=not given)
        except grants_role.NeedsAdministrator as reason:
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
