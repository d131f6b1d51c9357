"""One replica of the service as the ledger and Telnyx see it: its id, its naming and its timeouts."""

from dataclasses import dataclass

from app.vending.telephony.deadlines import Timing
from app.vending.telephony.naming import Naming


@dataclass(frozen=True, slots=True)
class Replica:
    """Identity, naming and timing shared by all components that claim rows."""

    id: str
    """Identifies the holder of a claim in the ledger. Every start draws a new id."""
    naming: Naming
    timing: Timing
