"""What a row looks like: one class per table, grouped as amoCRM's documentation groups them. Imports nothing from pipelines."""


from models.base import AccountBase, MemoryBase

__all__ = ["AccountBase", "MemoryBase", "account", "activity", "bi", "catalogs", "crm", "customers", "deliveries", "history", "links", "memory",
           "reference", "wiring"]
