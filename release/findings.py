"""The result of a release check: the file, the problem and the remedy, in one line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason not to release. A rehearsal reports `release_only` findings and continues."""

    path: str
    problem: str
    remedy: str
    release_only: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}"


class CheckFailed(Exception):
    """A check cannot continue, for example because a build failed. Carries the finding to report."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.finding = Finding(path, problem, remedy)
