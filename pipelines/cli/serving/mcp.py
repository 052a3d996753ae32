"""`amocrm-mirror mcp`: an AI assistant reads the account."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.common import Account, example, exit_on_interrupt, report_errors
from pipelines.errors import UsageError

commands = typer.Typer()
NO_READER = (
    "MIRROR_READER_URL is not set: `amocrm-mirror grants{option}` makes a role that only reads, and prints "
    "its address; set MIRROR_READER_URL to that address, in the environment or in .env")


@commands.command(epilog=example("amocrm-mirror mcp --check", "amocrm-mirror mcp",
                                 "amocrm-mirror mcp --account acme"))
def mcp(check: Annotated[bool, typer.Option(
            "--check", help="Only check the role of MIRROR_READER_URL, and say what it reads.")] = False,
        account: Account = "") -> None:
    """Let an AI assistant read the account: a server of the Model Context Protocol on standard input and
    output.

    It reads as the role of MIRROR_READER_URL, which `amocrm-mirror grants` makes: the account's tables and
    views, in transactions that only read, at most 15 seconds and 500 rows a query. It never uses
    DATABASE_URL, and holds no token.
    """
    with report_errors(), exit_on_interrupt():
        from pipelines.assistant.reader import Reader
        from pipelines.assistant.server import make_server, require_sdk
        from pipelines.config.settings import load_settings, validate_schema_name
        require_sdk()
        settings = load_settings()
        if settings.mirror_reader_url is None:
            raise UsageError(NO_READER.format(option=f" --account {account}" if account else ""))
        try:
            schema = validate_schema_name(account or settings.amocrm_schema, "--account")
        except ValueError as reason:
            raise UsageError(str(reason)) from None
        reader = Reader(settings.mirror_reader_url.get_secret_value(), schema)
        reader.check()
        if check:
            typer.echo(f"the role of MIRROR_READER_URL reads the account {schema}, and nothing else")
        else:
            make_server(reader).run("stdio")
