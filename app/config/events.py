"""The tables of dialtone.toml for events: the endpoints that receive them by webhooks."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from app.adapters.addresses import has_plain_host, is_safe_url
from app.adapters.http_client import checked_ca_pem
from app.adapters.webhooks import is_address, is_allowed_address, signing_secret
from app.config.rule_tables import IssuerNames, issuers_of_names
from app.config.secret_references import SecretOf, load, load_secret, read_text
from app.config.tables import FieldError, Table
from app.config.token_claims import TokenTable
from app.vending.events.endpoints import WebhookEndpoint
from app.vending.events.models import EventType
from app.vending.grants.models import GRANT_ISSUERS
from app.vending.visibility import ALL_ISSUERS, Visibility

EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

MAX_ENDPOINTS = 10
"""Each event has a row in the ledger for each endpoint."""


class EndpointTable(Table):
    """One endpoint. Each secret is `whsec_` and 24 to 64 random bytes in base64."""

    name: EndpointName = Field(description="The name in metrics and commands: lower-case letters, digits and hyphens.")
    url: str = Field(description="The https URL that receives events. Redirects are not followed.")
    types: frozenset[EventType] = Field(
        frozenset(EventType), min_length=1, description="The types of events that it gets. Default: all."
    )
    issuers: IssuerNames | None = Field(
        None,
        min_length=1,
        description=(
            "Names of issuers, and issuers of tenants; dialtone:users and dialtone:guests for grants. The endpoint "
            "gets only events about their users. Default: all events."
        ),
    )
    secret_env: Variable | None = Field(None, description="The environment variable with the secret that signs.")
    secret_file: str | None = Field(None, description="The file with the secret that signs.")
    previous_secret_env: Variable | None = Field(
        None, description="The environment variable with the former secret. During a rotation, both sign."
    )
    previous_secret_file: str | None = Field(None, description="The file with the former secret.")
    ca_file: str | None = Field(
        None, description="The file with the CA certificates of the server, in PEM. Replaces the system's certificates."
    )
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        max_length=20,
        description="Private networks that may contain the server, such as 10.1.0.0/16.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not value.isascii() or not is_safe_url(value) or urlsplit(value).scheme != "https":
            raise ValueError("must be an https URL in ASCII, without user, password or fragment")
        if not has_plain_host(value):
            raise ValueError(
                "must have a host name, or an IP address in its usual form such as 192.0.2.1 or [2001:db8::1]"
            )
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.secret_env is None) == (self.secret_file is None):
            raise FieldError("secret_env", "set either secret_env or secret_file")
        if self.previous_secret_env is not None and self.previous_secret_file is not None:
            raise FieldError("previous_secret_env", "excludes previous_secret_file; keep one")
        host = urlsplit(self.url).hostname or ""
        if is_address(host) and not is_allowed_address(host, self.allowed_networks):
            raise FieldError("url", "has an address that is not public; add its network to allowed_networks")
        return self

    def as_endpoint(self, secret_of: SecretOf, named: Mapping[str, TokenTable]) -> WebhookEndpoint:
        """The endpoint with its secrets. `named`: the configured issuers by name. Raises FieldError."""
        found = [load_secret(self, name, secret_of, _decode) for name in ("secret", "previous_secret")]
        secrets = tuple(secret for secret in found if secret is not None)
        if len(set(secrets)) != len(secrets):
            raise FieldError("previous_secret_env", "is equal to the secret")
        ca_pem = None if self.ca_file is None else load("ca_file", checked_ca_pem, read_text("ca_file", self.ca_file))
        return WebhookEndpoint(
            self.name,
            self.url,
            frozenset(event_type.value for event_type in self.types),
            secrets,
            ca_pem,
            self.allowed_networks,
            self._visibility(named),
        )

    def _visibility(self, named: Mapping[str, TokenTable]) -> Visibility:
        if self.issuers is None:
            return ALL_ISSUERS
        granting = self.issuers & GRANT_ISSUERS.keys()
        issuers, _ = issuers_of_names("issuers", self.issuers - granting, named)
        return Visibility(granting | issuers)


class EventsTable(Table):
    """Events that backends receive by webhooks."""

    endpoints: tuple[EndpointTable, ...] = Field((), max_length=MAX_ENDPOINTS)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise FieldError("endpoints", "two endpoints have the same name")
        return self

    def as_endpoints(self, secret_of: SecretOf, named: Mapping[str, TokenTable]) -> tuple[WebhookEndpoint, ...]:
        """The endpoints with their secrets. `named`: the configured issuers by name.

        Raises FieldError, whose field is a path into the file.
        """
        found = []
        for number, endpoint in enumerate(self.endpoints):
            try:
                found.append(endpoint.as_endpoint(secret_of, named))
            except FieldError as fault:
                raise FieldError(f"events.endpoints[{number}].{fault.field}", str(fault)) from None
        return tuple(found)


def _decode(text: str | None) -> bytes:
    return signing_secret(text or "")
