"""Tables in a policy rule of dialtone.toml: lifetimes, options of the WebRTC SDK, and the issuers of operators."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, field_validator
from pydantic.alias_generators import to_camel

from app.adapters.identity.tenants import IssuerTemplate
from app.config.tables import FieldError, Table
from app.config.token_claims import TokenTable, issuers_of
from app.vending.models import RtcOptions
from app.vending.telephony.durations import MAX_TTL, MIN_LEASE_AGE, MIN_TTL
from app.vending.visibility import ALL_ISSUERS, Tenant, Visibility

Ttl = Annotated[int, Field(strict=True, ge=int(MIN_TTL.total_seconds()), le=int(MAX_TTL.total_seconds()))]
LeaseAge = Annotated[int, Field(strict=True, ge=int(MIN_LEASE_AGE.total_seconds()), le=10 * 365 * 86_400)]
Region = Literal["eu", "us-central", "us-east", "us-west", "ca-central", "apac", "south-asia"]
"""Values of the SDK's option `region`."""

IssuerNames = frozenset[Annotated[StrictStr, Field(min_length=1)]]
"""Names of configured issuers, and issuers of tenants."""


class TtlTable(Table):
    """Lifetimes of a credential by platform, in seconds."""

    browser: Ttl | None = None
    ios: Ttl | None = None
    android: Ttl | None = None


class ClientOptionsTable(Table):
    """Options for the constructor of the WebRTC SDK, by the SDK's names.

    Not allowed are options that contain a secret, name a server or record a call, and those that dialtone-client sets.
    """

    model_config = ConfigDict(alias_generator=to_camel)

    debug: StrictBool | None = Field(None, description="Collect WebRTC statistics of calls.")
    prefetch_ice_candidates: StrictBool | None = Field(None, description="Gather ICE candidates before a call.")
    force_relay_candidate: StrictBool | None = Field(None, description="Send media through TURN servers only.")
    trickle_ice: StrictBool | None = Field(None, description="Send ICE candidates one by one.")
    keep_connection_alive_on_socket_close: StrictBool | None = Field(
        None, description="Keep calls when the signalling connection closes."
    )
    hangup_on_before_unload: StrictBool | None = Field(None, description="End calls when the page is closed.")
    muted_mic_on_start: StrictBool | None = Field(None, description="Start calls with a muted microphone.")
    enable_call_reports: StrictBool | None = Field(None, description="Send statistics to Telnyx after each call.")


class RtcTable(Table):
    """Options that clients of the rule's users pass to the WebRTC SDK."""

    region: Region | None = Field(None, description="The signalling region. Default: DIALTONE_RTC_REGION.")
    caller_id_name: StrictStr | None = Field(
        None, min_length=1, max_length=128, description="The name in the caller ID of outgoing calls."
    )
    caller_id_number: StrictStr | None = Field(
        None, pattern=r"^\+[1-9][0-9]{6,14}$", description="The number in the caller ID, in E.164, such as +3224850111."
    )
    client_options: ClientOptionsTable = ClientOptionsTable()

    @field_validator("caller_id_name")
    @classmethod
    def _check_name(cls, value: str | None) -> str | None:
        if value is not None and (not value.isprintable() or value != value.strip()):
            raise ValueError("must be printable, without spaces at its ends")
        return value

    def options(self) -> RtcOptions:
        client_options = self.client_options.model_dump(by_alias=True, exclude_none=True)
        return RtcOptions(self.region, self.caller_id_name, self.caller_id_number, client_options)


class AdminTable(Table):
    """Operators of some issuers."""

    issuers: IssuerNames = Field(
        min_length=1,
        description="Names of issuers, and issuers of tenants. The operators see and change only their users.",
    )

    def visibility(self, named: Mapping[str, TokenTable]) -> Visibility:
        """The visible issuers, from the configured issuers by name. Raises FieldError for another one."""
        issuers, tenants = issuers_of_names("admin.issuers", self.issuers, named)
        return Visibility(issuers, frozenset(one for one in tenants if one.template not in issuers))


def issuers_of_names(
    field: str, names: frozenset[str], named: Mapping[str, TokenTable]
) -> tuple[frozenset[str], frozenset[Tenant]]:
    """The `iss` of the tokens of these issuers, and those of the issuers that are single tenants.

    `named`: the configured issuers by name. Raises FieldError for `field` if an issuer is not configured, or is a
    template that accepts every tenant.
    """
    issuers: set[str] = set()
    tenants: set[Tenant] = set()
    for name in sorted(names):
        table = named.get(name)
        if table is not None and table.tenants == "any":
            raise FieldError(field, f"{name!r} accepts every tenant; list the issuers of single tenants")
        if table is not None:
            issuers |= {table.issuer, *issuers_of(table.issuer, table.tenants)}
        elif any(table.tenants is None and table.issuer == name for table in named.values()):
            issuers.add(name)
        elif (tenant := next(filter(None, (_tenant(table, name) for table in named.values())), None)) is not None:
            issuers.add(name)
            tenants.add(tenant)
        else:
            raise FieldError(field, f"{name!r} is not a configured issuer or the issuer of a tenant")
    return frozenset(issuers), frozenset(tenants)


def _tenant(table: TokenTable, iss: str) -> Tenant | None:
    """The accepted tenant whose tokens have this `iss`; None if the issuer is not a template, or has no such tenant."""
    if table.tenants is None:
        return None
    template = IssuerTemplate.parse(table.issuer)
    tenant_id = template.tenant_of(iss)
    if tenant_id is None or (table.tenants != "any" and tenant_id not in table.tenants):
        return None
    return Tenant(iss, table.issuer, template.claim, tenant_id)


def _check_admin(value: Any) -> Any:
    """Report one fault. pydantic would report one for every branch of the union."""
    if isinstance(value, bool | AdminTable):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be true, false, or { issuers = [...] }")  # noqa: TRY004 - pydantic expects ValueError
    AdminTable.check_names(value)
    names = value.get("issuers")
    if not isinstance(names, list | tuple | frozenset) or not names or not all(isinstance(name, str) for name in names):
        raise FieldError("issuers", 'must be a list of issuers, such as ["acme"]')
    return value


Admin = Annotated[StrictBool | AdminTable, BeforeValidator(_check_admin)]
"""Whether users are operators, and of which issuers."""


def visibility_of(admin: bool | AdminTable, named: Mapping[str, TokenTable]) -> Visibility:
    """The issuers that the rule's operators see. Raises FieldError."""
    return admin.visibility(named) if isinstance(admin, AdminTable) else ALL_ISSUERS
