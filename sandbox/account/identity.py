"""TODO docstring."""

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sandbox.account.lists import KINDS
from sandbox.account.store import Record

if TYPE_CHECKING:
    pass


SUBDOMAIN = "uralkedr"


DOMAIN = f"{SUBDOMAIN}.amocrm.ru"


BASE = f"https://{DOMAIN}/api/v4"


ACCOUNT_ID = 30984512


ZONE = ZoneInfo("Asia/Yekaterinburg")


def href(path: str) -> Record:
    """`_links` of a record."""
    return {"self": {"href": f"{BASE}/{path}"}}


def singular(kind: str) -> str:
    """leads → lead, as events name entities (API section 3.20)."""
    return {"companies": "company"}.get(kind, kind.removesuffix("s"))


def plural(entity: str) -> str:
    """lead → leads."""
    return next((kind for kind in (*KINDS, "tasks") if singular(kind) == entity), entity)
