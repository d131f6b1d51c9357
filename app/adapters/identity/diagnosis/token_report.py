"""The result of explaining a token: one entry for each check."""

from dataclasses import dataclass
from enum import StrEnum

from app.vending.models import Principal


class CheckState(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ASSUMED = "assumed"
    """The claim is absent. A token is assumed to have a valid one."""
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """One check. The texts are safe for a terminal, and contain no more of the token than the checked values."""

    name: str
    state: CheckState
    found: str | None = None
    expected: str | None = None
    settings: tuple[str, ...] = ()
    """The settings that decide, named as in an issuer of dialtone.toml."""
    reason: str | None = None
    """The reason code of a failed check, as in the log."""
    hint: str | None = None
    """The probable cause, and the fix."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """The checks of a token or of claims, and the verdict of the service."""

    checks: tuple[TokenCheck, ...]
    refusal: str | None
    """The reason code if the service rejects the token. None if it accepts the token."""
    issuer: str | None = None
    """The configured issuer whose settings were applied. None if no settings could be applied."""
    is_verified: bool = False
    """Whether the signature is valid. Otherwise the claims prove nothing."""
    principal: Principal | None = None
    """The user whose policy decision is explained. None if the claims name no user."""

    @property
    def failed(self) -> list[TokenCheck]:
        return [check for check in self.checks if check.state is CheckState.FAILED]
