"""Forms of a database URL: what people configure, what psycopg and SQLAlchemy expect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from sqlalchemy import URL


def normalise_database_url(url: str) -> str:
    """Returns libpq's form of a database URL in one of the forms that SQLAlchemy and hosting companies
    use."""
    text = re.sub(r"^(postgres|postgresql)(\+\w+)?://", "postgresql://", url.strip())
    foreign = "://" in text.split("=")[0] and not text.startswith("postgresql://")
    try:
        parsed = {} if foreign else conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        parsed = {}
    if not parsed and text != "postgresql://":
        raise ValueError(
            "DATABASE_URL is not the address of a PostgreSQL database: write "
            "postgresql://user:password@host:5432/database (percent-encode special "
            "characters of the password), or leave it out to use the embedded Postgres."
        )
    return text


def sqlalchemy_url(conninfo: str) -> URL:
    """Returns SQLAlchemy's URL of the same database, through psycopg 3."""
    from sqlalchemy import URL  # here, because most commands need the settings but not SQLAlchemy
    options: dict[str, Any] = conninfo_to_dict(normalise_database_url(conninfo))
    user, password = options.pop("user", None), options.pop("password", None)
    database = options.pop("dbname", None)
    query = {name: str(value) for name, value in options.items()}
    hosts, ports = query.pop("host", ""), str(query.pop("port", ""))
    plain = bool(hosts) and "," not in hosts and not hosts.startswith("/")
    if not plain:
        query |= {k: v for k, v in (("host", hosts), ("port", ports)) if v}
    return URL.create(
        "postgresql+psycopg",
        username=user,
        password=password,
        host=hosts if plain else None,
        port=int(ports) if plain and ports else None,
        database=database,
        query=query,
    )
