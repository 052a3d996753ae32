"""Commands on personal data: the role that may read the mirror (`grants`), and the erasure of a person
(`forget`)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.common import Account, example, open_migrated_mirror, open_mirror, report_errors
from pipelines.errors import UsageError

if TYPE_CHECKING:
    import psycopg

    from pipelines.installation import Installation

commands = typer.Typer()
PERSON_ENTITY = "contacts"


@commands.command(epilog=example("amocrm-mirror grants", "amocrm-mirror grants --role metabase --ask",
                                 "pass show bi | amocrm-mirror grants --stdin"))
def grants(role: Annotated[str, typer.Option(
               help="Name of the role; without it, AMOCRM_SCHEMA with _bi.")] = "",
           ask: Annotated[bool, typer.Option("--ask", help="Ask for its password, hidden.")] = False,
           stdin: Annotated[bool, typer.Option(
               "--stdin", help="Read its password from standard input.")] = False,
           new_password: Annotated[bool, typer.Option(
               "--new-password", help="Make a new password, even if the role has one.")] = False,
           account: Account = "",
           every: Annotated[bool, typer.Option(
               "--all", help="The views over all accounts instead of one account.")] = False) -> None:
    """Create or update a role that may only read: the account's tables and views, present and future, and
    never `mirror`.

    A new role gets a password that is made here and shown once, unless you give one.
    """
    with report_errors():
        _grants(role, ask, stdin, new_password, account, every)


@commands.command(epilog=example("amocrm-mirror forget --contact 48217735", "amocrm-mirror forget --list",
                                 "amocrm-mirror forget --lift 48217735"))
def forget(contact: Annotated[int | None, typer.Option(help="Id of the contact to erase.", min=1)] = None,
           lift: Annotated[int | None, typer.Option(
               help="Id of an erased contact that may come back.", min=1)] = None,
           show: Annotated[bool, typer.Option(
               "--list", help="Show the erased contacts, and when they were erased.")] = False,
           yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False,
           account: Account = "") -> None:
    """Erase a person everywhere: the contact, its values, links, notes, tasks, talks, events, history,
    quarantine and queue.

    No sync, sweep or verification brings it back until `--lift`. Then the next sync reads every list
    whole, and restores all that amoCRM has of the person.
    """
    with report_errors():
        _forget(contact, lift, show, yes, account)


# grants


def _grants(role: str, ask: bool, stdin: bool, new_password: bool, account: str, every: bool) -> None:
    if ask + stdin + new_password > 1:
        raise UsageError(
            "--ask, --stdin and --new-password each say where the password comes from: use one of them")
    if every and account:
        raise UsageError("--all and --account both say what the role reads: use one of them")
    from pipelines.admin import reader_role
    from pipelines.schema.names import ALL_ACCOUNTS_SCHEMA, bi_schema
    mirror = open_mirror(account, or_demo=not every)
    schema = ALL_ACCOUNTS_SCHEMA if every else mirror.schema
    # of the demo, the role that an account of one's own will have: the tools keep their connection
    role = role or bi_schema(schema if every or account else open_mirror().schema)
    fault = reader_role.role_name_problem(role)
    if fault:
        raise UsageError(fault)
    given = _chosen_password(role, ask, stdin)
    with mirror.connect_autocommit() as connection:
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
        password = given or (None if known and not new_password else reader_role.generate_password())
        try:
            granted = reader_role.grant_read_access(connection, schema, role, password,
                                                    is_generated=not given)
        except reader_role.AdministratorRequiredError as reason:
            typer.echo(reason.sql, nl=False)
            raise
    typer.echo(f"{role}: {'created' if granted.created else 'updated'}; "
               + (f"may read {', '.join(granted.schemas)}, but {granted.hidden}" if granted.hidden else
                  f"reads {', '.join(granted.schemas)}, and tables made there later"))
    typer.echo(granted.url)
    typer.echo("This password is not shown again." if password and not given
               else "With the password that you gave." if given else
               "Its password is unchanged; --new-password makes another.")
    for note in granted.notes:
        typer.echo(note)
    if granted.hidden:
        raise typer.Exit(3)


def _chosen_password(role: str, ask: bool, stdin: bool) -> str:
    """Returns the password from a prompt or from standard input; empty if the caller wants neither. Raises
    UsageError for a password that Postgres cannot hold."""
    if not ask and not stdin:
        return ""
    given = (str(typer.prompt(f"Password of {role}", hide_input=True, confirmation_prompt=True)) if ask
             else sys.stdin.readline().rstrip("\r\n"))
    if not given or "\0" in given:
        raise UsageError("the password is empty, or holds a character that no password can: give another")
    return given


# forget


def _forget(contact: int | None, lift: int | None, show: bool, yes: bool, account: str) -> None:
    if (contact is not None) + (lift is not None) + show != 1:
        raise UsageError("say one of --contact ID, --lift ID and --list")
    from pipelines import erasure
    mirror = open_migrated_mirror(account)
    with mirror.connect_autocommit() as connection:
        if connection.execute("SELECT FROM mirror.accounts WHERE name = %s",
                              [mirror.account]).fetchone() is None:
            raise UsageError(f"nothing is mirrored into {mirror.schema!r} yet: there is no contact to erase")
        if contact is not None:
            _erase(connection, mirror, contact, yes)
        elif lift is not None:
            if not erasure.allow_again(connection, mirror.account, PERSON_ENTITY, lift):
                raise UsageError(f"contact {lift} was not forgotten here; --list shows who was")
            typer.echo(f"contact {lift} may come back: the next sync reads every list whole, which takes "
                       "longer once, and restores its links, notes, tasks and events, as far as amoCRM still "
                       "has them. What only the mirror knew (its observations) is gone")
        else:
            for key, moment in erasure.suppressed_records(connection, mirror.account, PERSON_ENTITY):
                typer.echo(f"contact {key}, erased {moment:%Y-%m-%d %H:%M %Z}")


def _erase(connection: psycopg.Connection[Any], mirror: Installation, contact: int, yes: bool) -> None:
    import psycopg

    from pipelines.bi import stored
    from pipelines.erasure import NOT_REACHED, erase_person
    if not yes:
        with connection.transaction() as preview:
            _print_counts(erase_person(connection, mirror.schema, mirror.account, PERSON_ENTITY, contact),
                          "would be erased or changed")
            raise psycopg.Rollback(preview)
        typer.confirm(f"Erase contact {contact}{_name_suffix(connection, mirror.schema, contact)} for good?",
                      abort=True)
    _print_counts(erase_person(connection, mirror.schema, mirror.account, PERSON_ENTITY, contact),
                  "erased or changed")
    for step in stored.refresh(connection, mirror.schema, force=True):
        if step.reason:
            typer.echo(f"{', '.join(step.marts)}: {step.reason}")
    typer.echo(f"contact {contact} is erased, and kept from coming back until `amocrm-mirror forget --lift "
               f"{contact}{mirror.cli_option}`.")
    typer.echo(NOT_REACHED)


def _print_counts(touched: dict[str, int], what: str) -> None:
    """Prints the number of rows by table."""
    for table, count in touched.items():
        typer.echo(f"{table}: {count} {what}")
    if not touched:
        typer.echo("nothing of it is here")


def _name_suffix(connection: psycopg.Connection[Any], schema: str, contact: int) -> str:
    """Returns the contact's name in parentheses, with a space before it; empty if the mirror has none."""
    from psycopg.sql import SQL, Identifier
    row = connection.execute(
        SQL("SELECT name FROM {} WHERE id = %s").format(Identifier(schema, PERSON_ENTITY)),
        [contact]).fetchone()
    return f" ({row[0]})" if row and row[0] else ""
