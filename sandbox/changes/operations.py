"""All operations of the account: importing this module registers them, and `new_mutator` applies them."""

from sandbox.account.state import AccountState
from sandbox.changes import link_ops, record_ops, setup_ops
from sandbox.changes.mutator import Mutator

MODULES = (record_ops, link_ops, setup_ops)
"""Each registers its operations in `mutator.OPERATIONS` when it is imported."""


def new_mutator(state: AccountState) -> Mutator:
    """Returns a mutator that knows every operation."""
    return Mutator(state)
