"""Constants of the imitated account, and names of its records and lists."""

from zoneinfo import ZoneInfo

from sandbox.account.lists import KINDS
from sandbox.account.store import Record

SUBDOMAIN = "uralkedr"
DOMAIN = f"{SUBDOMAIN}.amocrm.ru"
API_URL = f"https://{DOMAIN}/api/v4"
ACCOUNT_ID = 30984512
TIME_ZONE = ZoneInfo("Asia/Yekaterinburg")


def href(path: str) -> Record:
    """Returns `_links` of a record."""
    return {"self": {"href": f"{API_URL}/{path}"}}


def singular(kind: str) -> str:
    """Returns the singular that events use: leads → lead (API section 3.20)."""
    return {"companies": "company"}.get(kind, kind.removesuffix("s"))


def plural(entity: str) -> str:
    """Returns the plural: lead → leads."""
    return next((kind for kind in (*KINDS, "tasks", "talks", "users") if singular(kind) == entity), entity)
