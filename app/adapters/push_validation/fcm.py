"""Validation of Google's service account for FCM HTTP v1: the JSON file from Firebase.

Source of its format: cloud.google.com, IAM, "Create and delete service account keys"; firebase.google.com, Cloud
Messaging, "Migrate to FCM HTTP v1".
"""

import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from app.adapters.pem import blocks, canonical_pem
from app.adapters.push_validation.keys import WeakKey, load, spki
from app.vending.push.material_errors import MaterialFault, MaterialReport
from app.vending.push.models import PushMaterial, PushType

FIELD = "project_account_json_file"
TOKEN_URIS = frozenset({"https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token"})
"""The current URI, and the one in older key files."""

MAX_BYTES = 32 * 1024
LEGACY_KEY_PREFIX = "AAAA"


def validate(service_account: Any) -> MaterialReport:
    """The material of a valid service account with its key in canonical form, or all its faults."""
    foreign = _other_kind_of(service_account)
    if foreign is not None:
        return _refused(foreign)
    if len(json.dumps(service_account)) > MAX_BYTES:
        return _refused("material_too_large")
    faults: list[str] = []
    project_id = _name(service_account, "project_id")
    client_email = _name(service_account, "client_email")
    if project_id is None:
        faults.append("project_id_missing")
    if client_email is None or "@" not in client_email:
        faults.append("client_email_missing")
    if service_account.get("token_uri") not in TOKEN_URIS:
        faults.append("token_uri_not_google")
    key = _private_key(service_account.get("private_key"), faults)
    if faults or project_id is None or client_email is None or key is None:
        return _refused(*faults)
    public_key = spki(key)
    return MaterialReport(
        PushMaterial(
            type=PushType.ANDROID,
            app_id=project_id,
            identity=b"android" + json.dumps([project_id, client_email]).encode() + public_key,
            fingerprint_sha256=hashlib.sha256(public_key).hexdigest(),
            not_after=None,
            upload={"type": PushType.ANDROID.value, FIELD: {**service_account, "private_key": canonical_pem(key)}},
        )
    )


def _refused(*codes: str) -> MaterialReport:
    return MaterialReport(None, tuple(MaterialFault(code, FIELD) for code in codes))


def _other_kind_of(given: Any) -> str | None:
    """The fault code if the value is something else than a service account, such as a legacy server key."""
    if isinstance(given, str):
        return "is_server_key" if given.startswith(LEGACY_KEY_PREFIX) else "service_account_is_text"
    if not isinstance(given, dict):
        return "service_account_is_text"
    if "project_info" in given:
        return "is_google_services_json"
    if "installed" in given or "web" in given:
        return "is_oauth_client"
    if FIELD in given or "certificate" in given:
        return "is_registration_request"
    return None if given.get("type") == "service_account" else "service_account_wrong_type"


def _name(given: dict[str, Any], field: str) -> str | None:
    value = given.get(field)
    return value if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable() else None


def _private_key(text: Any, faults: list[str]) -> rsa.RSAPrivateKey | None:
    """The only key in the text."""
    found = {block.der for block in blocks(text) if block.is_private_key} if isinstance(text, str) else set()
    try:
        key = load(found.pop()) if len(found) == 1 else None
    except WeakKey:
        faults.append("private_key_weak")
        return None
    except Exception:
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        faults.append("service_account_key_unreadable")
        return None
    return key
