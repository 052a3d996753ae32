"""What a row looks like: one class per table, grouped as amoCRM's documentation groups them. Imports nothing from pipelines."""

from models import account, crm, links, memory, reference
from models.base import AccountBase, MemoryBase

__all__ = ["AccountBase", "MemoryBase", "account", "crm", "links", "memory", "reference"]
