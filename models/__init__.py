"""The tables: one SQLAlchemy class per table, grouped like amoCRM's documentation. Imports nothing from
pipelines."""


from models.base import AccountBase, MirrorBase

__all__ = ["AccountBase", "MirrorBase", "account", "activity", "bi", "catalogs", "crm", "customers",
           "deliveries", "history", "links", "memory", "reference", "wiring"]
