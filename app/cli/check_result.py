"""The result of one check of `dialtone doctor`."""

from dataclasses import dataclass
from enum import StrEnum


class CheckVerdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, but possibly not as expected."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The subject of a check, its result, and a fix."""

    about: str
    verdict: CheckVerdict
    seen: str
    fix: str | None = None
