"""Selects the settings of the user that `dialtone dev` passes on. The service never reaches a real Telnyx account."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

PORTS = {
    "DIALTONE_PORT": 8010,
    "DIALTONE_SANDBOX_PORT": 8011,
    "DIALTONE_IDENTITY_PORT": 8012,
    "DIALTONE_PAGE_PORT": 8013,
}
"""The environment variable of each port, and its default."""

PASSED_PREFIXES = ("DIALTONE_CORS_", "DIALTONE_LIMIT_", "DIALTONE_LOG_")
PASSED = frozenset(
    f"DIALTONE_{name}"
    for name in (
        "AT_DEVICE_LIMIT",
        "CREDENTIAL_TTL_SECONDS",
        "DOCS",
        "GRANT_KEY",
        "GRANT_KEY_FILE",
        "GRANT_TTL_SECONDS",
        "MAX_DEVICES",
        "MOBILE_CREDENTIAL_TTL_SECONDS",
        "OPS_PAGE",
        "OTHER_GRANT_KEY",
        "OTHER_GRANT_KEY_FILE",
        "REQUEST_TIMEOUT_SECONDS",
        "SIP_PASSWORD",
        "TRACING",
        "WARM_POOL_SIZE",
    )
)
ISSUER_SETTINGS = frozenset(
    f"DIALTONE_{name}"
    for name in (
        "ALGORITHMS",
        "ALLOWED_FOREIGN_CLAIMS",
        "AUDIENCE",
        "AUDIENCE_CLAIMS",
        "CONFIG",
        "DISCOVERY_URL",
        "ISSUER",
        "ISSUER_ALLOW_HTTP",
        "ISSUER_CA_FILE",
        "ISSUER_HEADER",
        "ISSUER_PEM",
        "ISSUER_PEM_FILE",
        "ISSUER_SECRET",
        "ISSUER_SECRET_FILE",
        "ISSUER_SIGNER",
        "ISSUER_USE_PROXY",
        "JWKS_URL",
        "LEEWAY_SECONDS",
        "LOGOUT_AUDIENCE",
        "MAX_TOKEN_AGE_SECONDS",
        "MAX_TOKEN_BYTES",
        "PREVIOUS_ISSUER_SECRET",
        "PREVIOUS_ISSUER_SECRET_FILE",
        "REQUIRED_CLAIMS",
        "OPS_CLIENT_ID",
        "OPS_SCOPES",
        "REQUIRED_SCOPES",
        "SCOPE_CLAIM",
        "SECRET_ENCODING",
        "SUBJECT_CLAIM",
        "SUBJECT_TYPE",
        "TAKES_TOKENS_WITHOUT_ISS",
        "TENANTS",
        "TOKEN_KIND",
        "TOKEN_TYPES",
    )
)
"""Settings of the user's own issuer, besides those that begin with DIALTONE_PROVIDER."""

ISSUER_NAMES = ("DIALTONE_CONFIG", "DIALTONE_ISSUER", "DIALTONE_PROVIDER")
"""One of these names the user's own issuer. Without any, the other settings of an issuer are ignored."""

_PREFIXES = ("DIALTONE_", "TELNYX_")
_ENV_FILE = "DIALTONE_ENV_FILE"


@dataclass(frozen=True)
class UserSettings:
    """The user's environment, divided by what `dialtone dev` does with each variable."""

    passed: dict[str, str]
    """Settings that the service gets."""
    ignored: tuple[str, ...]
    """Names of settings that the service does not get."""
    unrelated: dict[str, str]
    """Variables that are not Dialtone's, such as PATH, and secrets that the user's dialtone.toml names."""

    @property
    def own_issuer(self) -> str | None:
        """The user's own issuer in words; None if there is none."""
        if "DIALTONE_CONFIG" in self.passed:
            return f"the issuers in {self.passed['DIALTONE_CONFIG']}"
        return next((self.passed[name] for name in ISSUER_NAMES if name in self.passed), None)


def read_user_settings(environment: Mapping[str, str]) -> UserSettings:
    """Sort the environment, and the file that DIALTONE_ENV_FILE names. Without that variable, no file is read.

    Raises OSError if the file cannot be read.
    """
    variables: dict[str, str] = {}
    if path := environment.get(_ENV_FILE):
        with Path(path).open(encoding="utf-8-sig") as file:
            variables = {
                name: value
                for name, value in dotenv_values(stream=file, interpolate=False).items()
                if value is not None
            }
    variables |= {name: value for name, value in environment.items() if value.strip() or name not in variables}
    ours = {name: value for name, value in variables.items() if name.startswith(_PREFIXES) and value.strip()}
    has_issuer = not ours.keys().isdisjoint(ISSUER_NAMES)
    passed = {name: value for name, value in ours.items() if _is_passed(name, has_issuer=has_issuer)}
    ignored = ours.keys() - passed.keys() - PORTS.keys() - {_ENV_FILE}
    unrelated = {name: value for name, value in variables.items() if not name.startswith(_PREFIXES)}
    return UserSettings(dict(sorted(passed.items())), tuple(sorted(ignored)), unrelated)


def _is_passed(name: str, *, has_issuer: bool) -> bool:
    is_of_issuer = name in ISSUER_SETTINGS or name.startswith("DIALTONE_PROVIDER")
    return name in PASSED or name.startswith(PASSED_PREFIXES) or (has_issuer and is_of_issuer)
