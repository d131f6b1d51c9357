"""The interfaces that the front uses: its host, which limits connections and requests, and the fast path."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from app.api.problems import ProblemKind
from app.serving.framing import RequestHead
from app.serving.outbox import Outbox

if TYPE_CHECKING:
    from app.serving.front import FrontProtocol
    from app.serving.rounds import Rounds

Answer = tuple[int, bytes]
"""The status and the response after the server's own headers."""


class Request(NamedTuple):
    """A complete request, as the fast path gets it."""

    address: str | None
    """The client's address. Behind a proxy that is not trusted, the proxy's."""
    head: RequestHead
    body: bytes


class Responder(Protocol):
    """May answer requests from memory, without running the app."""

    target: bytes
    max_body_bytes: int
    """Requests with a longer body are not answered. The front waits for shorter ones, which often arrive apart."""

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer | None]:
        """An answer for each request; None if the app must run."""


def may_answer(fast_path: Responder, head: RequestHead) -> bool:
    """Whether the fast path may answer the request once it is complete."""
    length = head.content_length
    is_short = length is not None and length <= fast_path.max_body_bytes
    return head.target == fast_path.target and is_short and b"expect" not in head.by_name


class FrontHost(Protocol):
    """The part of ConnectionLimiter that FrontProtocol uses."""

    outbox: Outbox
    rounds: "Rounds"
    fast_path: Responder | None
    health_check_starts: tuple[bytes, ...]
    """How a health check's request begins: method and path."""

    def opened(self, front: "FrontProtocol") -> None: ...

    def closed(self, front: "FrontProtocol") -> None: ...

    def address_of(self, peer: str | None, head: RequestHead) -> str | None:
        """The client's address. `peer` is the connection's other end, possibly a trusted proxy."""

    def writing_paused(self, front: "FrontProtocol") -> None:
        """The client does not read its responses as fast as they are sent."""

    def writing_resumed(self, front: "FrontProtocol") -> None: ...

    def admit(self, front: "FrontProtocol", head: RequestHead) -> bool:
        """Whether the app may start the request now. Otherwise the front's `start` is called later."""

    def admit_unfinished(self, front: "FrontProtocol") -> bool:
        """Whether the app may start a request whose body has not arrived. Otherwise the front waits for the body."""

    def received(self, front: "FrontProtocol") -> None:
        """The body of a request that the app has got is complete."""

    def released(self, front: "FrontProtocol") -> None:
        """The request that was admitted has been answered."""

    def answered(self, front: "FrontProtocol") -> None:
        """The connection waits for its client's next request."""

    def buffered(self, size: int) -> None:
        """Count bytes of unfinished requests; negative when they are gone."""

    def reject(self, kind: ProblemKind, peer: str | None, head: RequestHead | None, began: float) -> bytes:
        """Record a rejection, and return the response to write before the connection is closed."""
