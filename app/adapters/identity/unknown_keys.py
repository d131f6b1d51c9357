"""Tokens whose key is not in the issuer's key set: which of them are rejected, and which may be retried.

An identity provider may rotate its keys within the cooldown that another unknown `kid` started. A client that gets 401
signs its user out, so such a token gets 503 until the keys have been fetched again.

A `kid` costs an attacker nothing, because the token is not verified yet. Therefore:

- The caller checks the token's header and claims first. A token that no key could make valid causes no fetch and gets
  401.
- At most MAX_PENDING keys are pending at once. Providers introduce one or two keys at a time. Above this limit, a token
  gets 401. A flood of random `kid` values causes no additional fetch and takes no memory. At worst, a rotated key is
  above the limit until the next fetch.
- A key that a whole fetch did not find is absent until the next fetch, so an invalid token gets 401 then.
- BearerAuthMiddleware counts these 503 responses as rejected tokens of the client's address.
"""

MAX_PENDING = 8

WantedKey = tuple[str, str | None]
"""`alg` and `kid` of a token."""


class UnknownKeys:
    """The keys that tokens named and that the key set did not contain, before and since its last fetch."""

    def __init__(self) -> None:
        self._pending: set[WantedKey] = set()
        self._in_fetch: frozenset[WantedKey] = frozenset()
        self._absent: frozenset[WantedKey] = frozenset()

    def add(self, wanted: WantedKey) -> None:
        """Record that a token named this key."""
        if len(self._pending) < MAX_PENDING:
            self._pending.add(wanted)

    def is_pending(self, wanted: WantedKey) -> bool:
        """True if only the next fetch can tell whether the key exists, and the key is within the limit."""
        return wanted not in self._absent and (wanted in self._pending or wanted in self._in_fetch)

    def fetch_started(self) -> None:
        """Keys that are named from now on may have been published after this fetch read the key set."""
        self._in_fetch, self._pending = frozenset(self._pending), set()

    def fetch_succeeded(self) -> None:
        self._absent, self._in_fetch = self._in_fetch, frozenset()

    def fetch_failed(self) -> None:
        """The keys remain pending, because the fetch did not show that they do not exist."""
        self._pending = set([*self._in_fetch, *self._pending][:MAX_PENDING])
        self._in_fetch = frozenset()
