"""Ids of leases as arguments: a unique prefix to read a lease, the whole id to revoke it."""

import re
from typing import Annotated

import typer

from app.cli.output import end, note
from app.cli.service_client import ServiceClient

LENGTH = 32
MIN_PREFIX = 4
MAX_CANDIDATES = 10

_ID = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},{LENGTH}}}")

LeaseRef = Annotated[
    str, typer.Argument(metavar="ID", help=f"The ID, or at least its first {MIN_PREFIX} characters if they are unique.")
]


async def find_lease_id(client: ServiceClient, given: str) -> str:
    """The id that begins with the given text. Exits 2 if several do, and 1 if none does."""
    prefix = _checked(given)
    if len(prefix) == LENGTH:
        return prefix
    found = await client.rows("/v1/admin/leases", {"id_prefix": prefix}, MAX_CANDIDATES + 1)
    if not found:
        end(f"No lease has an ID that begins with {prefix}.")
    if len(found) > 1:
        for row in found[:MAX_CANDIDATES]:
            note(f"{row['id']}  {row['state']}  {row['device_id']}")
        more = "more than " if len(found) > MAX_CANDIDATES else ""
        end(f"{more.capitalize()}{min(len(found), MAX_CANDIDATES)} IDs begin with {prefix}. Give more characters.", 2)
    return str(found[0]["id"])


def whole_lease_id(given: str, command: str) -> str:
    """The id, if it is whole. Exits 2 if it is not: a mistyped prefix could revoke the lease of another device."""
    if len(lease_id := _checked(given)) != LENGTH:
        end(
            f"`{command}` requires the whole ID of {LENGTH} characters, so that it affects no other device. "
            f"`dialtone leases show {lease_id}` prints it.",
            2,
        )
    return lease_id


def _checked(given: str) -> str:
    text = given.lower()
    if not _ID.fullmatch(text):
        end(f"An ID of a lease has {LENGTH} characters, which are digits and the letters a to f.", 2)
    return text
