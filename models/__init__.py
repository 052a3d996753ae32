"""The tables: one SQLAlchemy class per table, grouped like amoCRM's documentation. Imports nothing from
pipelines."""

from models import (
    account,
    activity,
    bi_views,
    catalogs,
    crm,
    customers,
    history,
    integrations,
    links,
    mirror_state,
    reference,
)
from models.base import AccountBase, MirrorBase

__all__ = ["AccountBase", "MirrorBase", "account", "activity", "bi_views", "catalogs", "crm", "customers",
           "history", "integrations", "links", "mirror_state", "reference"]
