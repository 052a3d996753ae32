"""How the account changes: operations on records, each with the events that amoCRM would leave, and random ones.

`core` applies operations, `single`, `links` and `setup` are the operations, `churn` draws them at random.
"""

from sandbox.changes.churn import Churn
from sandbox.changes.mutator import OPERATIONS, Mutator

__all__ = ["OPERATIONS", "Churn", "Mutator", "links", "setup", "single"]
