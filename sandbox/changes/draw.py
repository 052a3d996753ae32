"""Random draws of records, kinds and names, from which the random changes are made."""

from random import Random

from sandbox.account.lists import KINDS
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset import vocabulary


class Draw:
    """Draws from one account with one random generator: the same seed on the same data draws the same."""

    def __init__(self, state: AccountState, rng: Random) -> None:
        self.state = state
        self.rng = rng

    def pick(self, path: str) -> Record:
        """Returns a random record of a list."""
        coll = self.state.list(path)
        record = coll.get(self.rng.choice(coll.ids))
        assert record is not None
        return record

    def pick_entity(self, path: str = "") -> Record:
        """Returns a random lead, contact, company or customer; of leads only accepted ones."""
        path = path or self.rng.choice(KINDS)
        for _ in range(20):
            record = self.pick(path)
            if path != "leads" or record.get("responsible_user_id") is not None:
                return record
        raise LookupError(path)

    def pick_kind(self) -> str:
        """Returns a random kind; leads twice as often as the others."""
        return self.rng.choice(("leads", *KINDS))

    def pick_name(self) -> str:
        """Returns a name such as a user would type."""
        return f"{self.rng.choice(vocabulary.PRODUCTS)} № {self.rng.randrange(10**6)}"
