"""The files that `dialtone dev` writes: the demo's dialtone.toml, the key of grants, and settings for commands."""

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.sandbox.account import DEMO_CONNECTION
from app.sandbox.provider import SimulatedProvider
from app.sandbox.providers import DEMO

FOLDER = Path(".dialtone")
"""The data of the demo, below the working directory."""
LEDGER = FOLDER / "dev.db"
"""Not the default file of the service, in which a real account's devices may be."""
IDENTITY = FOLDER / "identity.toml"
GRANT_KEY = FOLDER / "grant-key.pem"
SETTINGS = FOLDER / "dev.env"


def write_configuration(simulated: SimulatedProvider) -> Path:
    """The dialtone.toml that accepts the tokens of the simulated provider. Returns its path."""
    FOLDER.mkdir(exist_ok=True)
    text = demo_configuration(simulated) if simulated.name == DEMO else f"{simulated.block()}\n"
    IDENTITY.write_text(f"# Written by `dialtone dev`.\n{text}", encoding="utf-8")
    return IDENTITY


def demo_configuration(simulated: SimulatedProvider) -> str:
    """The dialtone.toml of the demo. Every demo user may be an operator and may vouch for guests, by scope."""
    return f"""{simulated.block()}
ops_client_id = "dialtone-operators"

[[policy.rules]]
name = "demo-users"
admin = true
vouches_for = ["user", "guest"]

[[policy.rules]]
name = "demo-grant-users"
issuers = ["dialtone:users"]

[[policy.rules]]
name = "demo-guests"
issuers = ["dialtone:guests"]
connection_id = "{DEMO_CONNECTION}"
ttl_seconds.browser = 3600
"""


def keep_grant_key() -> Path:
    """The file of the key that signs grants. It is kept, so that grants stay valid after a restart."""
    FOLDER.mkdir(exist_ok=True)
    if not GRANT_KEY.exists():
        with os.fdopen(os.open(GRANT_KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(grant_key())
    return GRANT_KEY


def grant_key() -> str:
    """A new private key that signs grants, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def write_settings(settings: Mapping[str, str]) -> None:
    """A file for DIALTONE_ENV_FILE, so that commands use the ledger and the simulated Telnyx of the demo."""
    FOLDER.mkdir(exist_ok=True)
    lines = [f"{name}={value}\n" for name, value in sorted(settings.items())]
    SETTINGS.write_text(f"# Written by `dialtone dev`.\n{''.join(lines)}", encoding="utf-8")
