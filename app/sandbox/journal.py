"""The journal of the sandbox: requests, what each changed, and responses. Tests read it."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

KEPT = 100_000
"""Maximum number of entries. The oldest are removed first."""

MASKED_FIELDS = frozenset({"password", "private_key", "certificate", "project_account_json_file"})


@dataclass(slots=True)
class Entry:
    """One request. `status` is None until the response starts, and stays None if there is no response."""

    number: int
    at: str
    method: str
    path: str
    query: str
    body: Any = None
    committed: str | None = None
    """The change that the request made, such as `create 9b2...`, whether or not the response arrived."""
    fault: str | None = None
    status: int | None = None


@dataclass(slots=True)
class Journal:
    entries: list[Entry] = field(default_factory=list)
    _count: int = 0

    def open(self, method: str, path: str, query: str) -> Entry:
        self._count += 1
        entry = Entry(self._count, datetime.now(UTC).isoformat(), method, path, query)
        self.entries.append(entry)
        del self.entries[:-KEPT]
        return entry

    def clear(self) -> None:
        self.entries.clear()

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(entry) for entry in self.entries]


def masked(body: Any) -> Any:
    """The body of a request for the journal, without key material."""
    if not isinstance(body, dict):
        return body
    return {name: "[masked]" if name in MASKED_FIELDS else value for name, value in body.items()}
