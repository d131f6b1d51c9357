"""The endpoints that receive events. They come from dialtone.toml, which a reload reads again."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from app.vending.visibility import ALL_ISSUERS, Visibility

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """One URL that gets events, and the secrets that sign them."""

    name: str
    url: str
    types: frozenset[str]
    """The types of events that it gets."""
    secrets: tuple[bytes, ...] = field(repr=False)
    """The current secret, and the previous one during a rotation. Each signs every request."""
    ca_pem: str | None = field(default=None, repr=False)
    """The CA certificates of its server; None for the system's."""
    allowed_networks: tuple[Network, ...] = ()
    """Private networks that may contain the server."""
    visibility: Visibility = ALL_ISSUERS
    """The issuers whose users it gets events about. If it is limited, events about no single user are excluded."""

    def receives(self, event_type: str, issuer: str) -> bool:
        """Whether the endpoint gets events of this type about users of this issuer; empty: about no single user."""
        return event_type in self.types and self.visibility.includes(issuer)


class ActiveEndpoints:
    """The endpoints in use, which a reload replaces."""

    def __init__(self, endpoints: tuple[WebhookEndpoint, ...]) -> None:
        self.endpoints = endpoints

    def find(self, name: str) -> WebhookEndpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.name == name), None)

    def names(self) -> list[str]:
        return [endpoint.name for endpoint in self.endpoints]

    def names_for(self, event_type: str, issuer: str) -> list[str]:
        """The endpoints that get events of this type about users of this issuer."""
        return [endpoint.name for endpoint in self.endpoints if endpoint.receives(event_type, issuer)]
