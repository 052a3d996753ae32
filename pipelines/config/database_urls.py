"""DATABASE_URL: the forms that people configure, checked part by part. No message repeats a piece of it that
may belong to a password; the driver's own messages do."""

from __future__ import annotations

import re
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

CURE = ("write postgresql://user:password@host:5432/database (percent-encode special characters of the "
        "password), or leave it out to use the embedded Postgres.")
WRONG_PORT = "DATABASE_URL: the port is not a number from 1 to 65535"
NO_ADDRESS = f"DATABASE_URL is not the address of a PostgreSQL database: {CURE}"
URL = re.compile(r"(?:(?P<user>[^:@/?]*)(?::(?P<password>[^@/?]*))?@)?(?P<hosts>[^@/?#]*)"
                 r"(?:/(?P<database>[^@?#]*))?(?:\?(?P<query>[^@#]*|.*))?", re.DOTALL)
HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[\w.%-]*)(?P<port>:.*)?", re.DOTALL)
SPECIAL = {"@": "%40", "/": "%2F", "?": "%3F"}
"""Characters that end a part of an address, and how they are written inside one."""
WRONG_CODE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def normalise_database_url(url: str) -> str:
    """Returns libpq's form of a database URL in one of the forms that SQLAlchemy and hosting companies use.
    Raises ValueError, with the part that is wrong."""
    text = re.sub(r"^(postgres|postgresql)(\+\w+)?://", "postgresql://", url.strip())
    is_url = text.startswith("postgresql://")
    if is_url:
        _check_url(text.removeprefix("postgresql://"))
    foreign = "://" in text.split("=")[0] and not is_url
    try:
        parsed = {} if foreign else conninfo_to_dict(text)
    except (psycopg.ProgrammingError, UnicodeError):
        parsed = {}
    if not parsed and text != "postgresql://":
        raise ValueError(NO_ADDRESS)
    _check_values({name: str(value) for name, value in parsed.items()})
    return text


def _check_url(rest: str) -> None:
    """Raises ValueError for what follows the `://`, if libpq would take its parts for others."""
    found = URL.fullmatch(rest)
    query = (found["query"] or "") if found else ""
    hosts_fit = found is not None and all(_is_host(host) for host in found["hosts"].split(","))
    query_fits = all("=" in pair for pair in query.split("&") if pair)
    if found is None or ((not hosts_fit or not query_fits) and "@" in rest and found["user"] is None):
        raise ValueError(_unencoded_message(rest))
    for part, value in (("user", found["user"]), ("password", found["password"]),
                        ("database's name", found["database"]), ("host", found["hosts"]),
                        ("parameters", query)):
        if value and not _is_encoded(value):
            raise ValueError(f"DATABASE_URL: the {part} holds a % that begins no code of a UTF-8 character: "
                             "write %25 for each % that is meant.")
    if not hosts_fit:
        raise ValueError(_wrong_host_message(found["hosts"]))
    _check_query(query, is_safe=found["user"] is not None or "@" not in rest)


def _is_encoded(text: str) -> bool:
    try:
        return not WRONG_CODE.search(text) and bool(unquote(text, errors="strict"))
    except UnicodeError:
        return False


def _is_host(text: str) -> bool:
    found = HOST.fullmatch(text)
    return found is not None and _is_port((found["port"] or "").removeprefix(":"))


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 0 < int(text) < 65536)


def _unencoded_message(rest: str) -> str:
    """Returns which part holds a character that ends it."""
    before, at, _ = rest.rpartition("@")
    if not at:
        return NO_ADDRESS
    user, colon, password = before.partition(":")
    part, value = (("user", user) if any(each in user for each in "@/?") or not colon
                   else ("password", password))
    wrong = [each for each in SPECIAL if each in value]
    if not wrong:
        return NO_ADDRESS
    return (f"DATABASE_URL: the {part} holds {' and '.join(wrong)}, which would end it: write "
            + ", ".join(f"{SPECIAL[each]} for {each}" for each in wrong) + ".")


def _wrong_host_message(hosts: str) -> str:
    for each in hosts.split(","):
        found = HOST.fullmatch(each)
        if found is not None and not _is_host(each):
            return f"{WRONG_PORT}: {CURE}"
    return f"DATABASE_URL: the host holds a character that no host's name has: {CURE}"


def _check_query(query: str, is_safe: bool) -> None:
    """Raises ValueError for a parameter that is another program's. `is_safe`: the query is no piece of a
    password."""
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name == "ssl":  # as JDBC writes it
            continue
        try:
            make_conninfo(**{unquote(name): unquote(value)})
        except (psycopg.ProgrammingError, TypeError, UnicodeError):
            shown = name if is_safe and re.fullmatch(r"[A-Za-z_]{1,40}", name) else "one"
            raise ValueError(
                f"DATABASE_URL: of the parameters after the question mark, {shown} is not one of Postgres "
                f"but of another program: remove {'it' if shown == 'one' else f'{shown}=…'}.") from None


def _check_values(parts: dict[str, str]) -> None:
    if not all(_is_port(port.strip()) for port in parts.get("port", "").split(",")):
        raise ValueError(f"{WRONG_PORT}: {CURE}")
    if parts.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"DATABASE_URL: sslmode is none of {', '.join(SSL_MODES)}: use one of them.")
    if not re.fullmatch(r"\s*\d*\s*", parts.get("connect_timeout", "")):
        raise ValueError("DATABASE_URL: connect_timeout is not a number of seconds: write "
                         "connect_timeout=10.")
