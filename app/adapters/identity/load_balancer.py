"""Tokens that an AWS application load balancer adds to requests after it has authenticated the user.

Source: "Authenticate users using an Application Load Balancer" in the documentation of Elastic Load Balancing.
They differ from other tokens:

- The parts are in base64url with padding, and the signature covers the padding.
- All load balancers of a region share keys. Only `signer` in the header tells which load balancer signed the token, so
  it must be exactly the configured ARN.
- `client`, the audience, and `exp` are in the header, which the signature covers too.
- Each key is at its own URL, by `kid`, in PEM.
"""

import re
from typing import Any

from app.adapters.identity.compact_jws import CompactJws
from app.vending.errors import TokenRejected

HEADER = "x-amzn-oidc-data"

_ARN = re.compile(
    r"arn:aws:elasticloadbalancing:([a-z]{2}(?:-[a-z]+)+-[1-9]):[0-9]{12}:loadbalancer/app/[A-Za-z0-9-]{1,32}/[0-9a-f]{16}\Z"
)
"""Of the commercial partition. AWS GovCloud and China publish their keys elsewhere."""


def region_of(arn: str) -> str | None:
    """The region of an application load balancer; None if this is not its ARN."""
    match = _ARN.match(arn)
    return None if match is None else match[1]


def keys_url(arn: str) -> str:
    """The URL below which the region's keys are. Raises ValueError for an invalid ARN."""
    region = region_of(arn)
    if region is None:
        raise ValueError("not the ARN of an application load balancer")
    return f"https://public-keys.auth.elb.{region}.amazonaws.com"


def parse(unverified_token: str, max_length: int) -> CompactJws:
    """A token with or without padding. Raises TokenRejected."""
    parts = unverified_token.split(".")
    token = CompactJws.parse(".".join(_without_padding(part) for part in parts), max_length)
    return token._replace(signing_input=".".join(parts[:2]).encode("ascii", "replace"))


def claims_of(token: CompactJws, header: dict[str, Any], signer: str) -> dict[str, Any]:
    """The claims of the user, with issuer, audience and expiry from the header. Raises TokenRejected.

    The header's values come from the load balancer. Those of the payload come from the identity provider.
    """
    if header.get("signer") != signer:
        raise TokenRejected("wrong_signer")
    claims = token.claims()
    if "iss" in claims and claims["iss"] != header.get("iss"):
        raise TokenRejected("unknown_issuer")
    own = {"iss": header.get("iss"), "aud": header.get("client"), "exp": header.get("exp")}
    return claims | {name: value for name, value in own.items() if value is not None or name == "aud"}


def _without_padding(part: str) -> str:
    return part.removesuffix("=").removesuffix("=") if len(part) % 4 == 0 else part
