"""Changes of the account: operations that leave the events amoCRM would leave, and random changes.

`mutator.py` applies operations; `record_ops.py`, `link_ops.py` and `setup_ops.py` define them; `churn.py` and
`random_setup.py` choose them at random.
"""

from sandbox.changes import link_ops, record_ops, setup_ops

MODULES = (record_ops, link_ops, setup_ops)
"""Importing them registers their operations in `mutator.OPERATIONS`."""
