"""The endpoints that receive events. They come from dialtone.toml, which a reload reads again."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

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
    """Networks without public addresses in which the server may be."""


class ActiveEndpoints:
    """The endpoints in use, which a reload replaces."""

    def __init__(self, endpoints: tuple[WebhookEndpoint, ...]) -> None:
        self.endpoints = endpoints

    def find(self, name: str) -> WebhookEndpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.name == name), None)

    def names_for(self, event_type: str) -> list[str]:
        """The endpoints that get events of this type."""
        return [endpoint.name for endpoint in self.endpoints if event_type in endpoint.types]
