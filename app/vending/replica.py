"""One replica of the service, as far as the ledger and Telnyx see it: its id, the names it gives, its deadlines."""

from dataclasses import dataclass

from app.vending.telephony.naming import Naming
from app.vending.telephony.timing import Timing


@dataclass(frozen=True, slots=True)
class Replica:
    """What every writer of claims has in common."""

    id: str
    """Names the holder of a claim in the ledger. New with every start."""
    naming: Naming
    timing: Timing
