"""Finds the token in pasted text. If there is none, names the kind of text.

The result contains no part of the text except the token, which only the verifier receives, and the names of the members
of a JSON object that contain a token.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from app.adapters.identity.compact_jws import canonical_base64url
from app.adapters.identity.diagnosis.shown import counted, shown
from app.vending.errors import TokenRejected

MAX_UNWRAPPED = 4
"""Wrappings that are removed one after the other, such as quotation marks around JSON."""

_JWT = re.compile(r"(?<![A-Za-z0-9_-])ey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
"""Begins after another character, so that a search takes a time in proportion to the text."""
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_PLACEHOLDERS = re.compile(
    r"null|undefined|none|nil|nan|true|false|token|\[object \w+\]|\$\{?\w+\}?|\{\{.*\}\}|<[\w -]+>|%\w+%|your[_ -]\w+",
    re.IGNORECASE,
)
_TELNYX_KEY = re.compile(r"KEY[0-9A-Za-z]{10,}_\w+")
_PASETO = re.compile(r"v[1-4]\.(local|public)\.")
_TOKEN_RESPONSE = ("access_token", "id_token", "refresh_token", "token")
_PARAMETER = re.compile(r"(?:^|[?#&\s])(access_token|id_token|token)=([^&\s]+)")
_OTHER_SCHEME = re.compile(r"(token|jwt|dpop|basic|negotiate|mac)\s+(?=\S)", re.IGNORECASE)
_COOKIE = re.compile(r"(?:Set-)?Cookie:\s*|[\w.-]+=[^;\s]+;\s", re.IGNORECASE)
_MEMBER = re.compile(r"[A-Za-z_]{1,32}(\.[A-Za-z_]{1,32})?")
"""Names of members that a hint may repeat: without digits, a name contains no secret."""
_ASSIGNMENT = re.compile(r"[\w.-]+\s*=\s*(?=\S)")


@dataclass(frozen=True, slots=True)
class PastedText:
    """A text, and the token that it contains."""

    token: str | None
    """The token, if the text has one. It may still be malformed."""
    faults: tuple[str, ...] = ()
    """Why the text is not only a token. Empty if the whole text has the form of a token."""


def examine(text: str) -> PastedText:
    """Find the token. `text` has no white space around it, and does not begin with the word Bearer."""
    faults: list[str] = []
    for _ in range(MAX_UNWRAPPED):
        if (not_a_token := _other_kind(text)) is not None:
            return PastedText(None, (*faults, not_a_token))
        unwrapped = _unwrap(text)
        if unwrapped is None:
            break
        fault, inner = unwrapped
        faults.append(fault)
        if inner is None:
            return PastedText(None, tuple(faults))
        text = inner
    return PastedText(text, tuple(faults))


def _other_kind(text: str) -> str | None:
    """The kind of a text that contains no token; None if it may contain one."""
    if not text:
        return "the text is empty"
    if text.startswith("-----BEGIN"):
        return "this is a key or certificate in PEM, not a token"
    if re.match(r"<(!doctype|html|\?xml)", text, re.IGNORECASE):
        return "this is a page in HTML or XML, not a token: the address that returned it is not a token endpoint"
    if _PLACEHOLDERS.fullmatch(text):
        return "this is a placeholder: the variable or the field with the token is empty"
    if _TELNYX_KEY.fullmatch(text):
        return (
            "this has the form of a Telnyx API key: Dialtone needs the identity provider's token. If the key was in a "
            "browser or an app, replace it in the Telnyx portal"
        )
    if _PASETO.match(text):
        return "this is a PASETO token: Dialtone verifies JSON Web Tokens only"
    return None


def _unwrap(text: str) -> tuple[str, str | None] | None:
    """The fault, and the text without its wrapping. None if the text is not wrapped."""
    if text[0] in "{[":
        return _of_json(text)
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        return "the token is in quotation marks: remove them", text.strip(_QUOTES).strip()
    if (found := re.match(r"authorization\s*:\s*", text, re.IGNORECASE)) is not None:
        value = re.sub(r"bearer\s+", "", text[found.end() :], count=1, flags=re.IGNORECASE)
        return "this is the whole header Authorization: pass its value", value
    if (found := re.match(r"bearer[\s:]+", text, re.IGNORECASE)) is not None:
        return "the word Bearer appears twice: the client adds it to a value that already has it", text[found.end() :]
    if _COOKIE.match(text):
        inner = _JWT.search(text)
        return "this is a cookie: Dialtone does not read session cookies. Send an access token", inner and inner[0]
    if (found := _PARAMETER.search(text)) is not None:
        name = found[1]
        hint = "" if name == "access_token" else f". The parameter is {name}"
        return f"this is an address or a form with the parameter {name}, not only the token{hint}", found[2]
    if "%" in text and (decoded := unquote(text)) != text:
        return "the token is URL-encoded: decode it before you send it", decoded
    if (found := _OTHER_SCHEME.match(text)) is not None:
        return f"the scheme {found[1]} precedes the token: clients must send the word Bearer", text[found.end() :]
    if re.search(r"\s", text):
        return _with_white_space(text)
    if not text.isascii() or "..." in text or "***" in text or "[redacted]" in text:
        return _shortened(text)
    if (found := _ASSIGNMENT.match(text)) is not None and _JWT.search(text, found.end()):
        return "a name and an equals sign precede the token: pass the value only", text[found.end() :]
    if (inner := _JWT.search(text)) is not None and inner[0] != text and _has_other_characters(text):
        before, after = inner.start(), len(text) - inner.end()
        return f"other characters surround the token: {before} precede it, and {after} follow it", inner[0]
    return None


def _has_other_characters(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_.=+/-]+", text) is None


def _with_white_space(text: str) -> tuple[str, str | None]:
    joined = "".join(text.split())
    if joined.count(".") == 2 and not _has_other_characters(joined):
        return "the token contains line breaks or spaces: join its lines", joined
    tokens = _JWT.findall(text)
    if len(tokens) > 1:
        return f"the text contains {len(tokens)} tokens: pass one of them", None
    if tokens:
        return "other text surrounds the token: pass the token only", tokens[0]
    return "this is a text of several words, not a token", None


def _shortened(text: str) -> tuple[str, str | None]:
    if any(mark in text for mark in ("...", "\u2026", "***", "[redacted]")):
        return (
            "the token is shortened or masked, probably by the program that displayed it: copy it from its source",
            None,
        )
    plain = text.encode("ascii", "ignore").decode()
    hint = "the token contains invisible or non-ASCII characters: copy it again"
    return hint, plain if plain.count(".") == 2 else None


def _of_json(text: str) -> tuple[str, str | None]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        inner = _JWT.search(text)
        return "this begins as JSON, but is not valid JSON, and it is not a token", inner and inner[0]
    if not isinstance(value, dict):
        return "this is a JSON list, not a token", None
    return _of_object(value)


def _of_object(value: dict[str, Any]) -> tuple[str, str | None]:
    found = [name for name in _TOKEN_RESPONSE if isinstance(value.get(name), str)]
    if found:
        what = f"this is the JSON response of a token endpoint, with {' and '.join(found)}"
        if found[0] != "access_token":
            return f"{what}, but without access_token: request an access token for your API", value[found[0]]
        return f"{what}: send the value of access_token only", value[found[0]]
    if tokens := _tokens_in(value):
        # `AccessToken` of Cognito, `accessToken` of the Azure CLI, and `access` of SimpleJWT before other tokens.
        name = min(tokens, key=lambda name: "access" not in name.lower())
        return f"this is a JSON object with {' and '.join(tokens)}: send the value of {name} only", tokens[name]
    if "device_code" in value:
        return "this is the first response of the device flow: sign in, and request the token with device_code", None
    if "error" in value:
        return "this is an error response of a token endpoint: the client got no token", None
    if "keys" in value or "kty" in value:
        return "this is a key set or a key, not a token", None
    if "payload" in value and ("signatures" in value or "signature" in value):
        return "this is a token in JSON serialization: Dialtone accepts the compact form with two dots only", None
    if "ciphertext" in value:
        return "this is an encrypted token in JSON serialization: Dialtone accepts signed tokens in compact form", None
    if {"iss", "sub", "aud", "exp"} & value.keys():
        return "these are the claims of a token, not the token. `dialtone policy test` explains claims", None
    return "this is a JSON object, not a token", None


def _tokens_in(value: dict[str, Any]) -> dict[str, str]:
    """The texts with the form of a JWT, by their member, in this object and the objects directly below it."""
    below = {
        f"{outer}.{name}": text
        for outer, inner in value.items()
        if isinstance(inner, dict)
        for name, text in inner.items()
    }
    return {
        name: text
        for name, text in (value | below).items()
        if isinstance(text, str) and _JWT.fullmatch(text) and _MEMBER.fullmatch(name)
    }


_WHY = {
    "member_twice": "a member of the header or the payload appears twice: programs differ in which one they read",
    "not_finite": "the payload has NaN, Infinity or a number that is too large: correct the tokens at the provider",
    "too_deep": "the payload has too many nested objects or lists: let the provider put fewer claims into the token",
    "not_canonical": "a part was changed or cut off: its last character is not possible in base64url",
}
"""The fault, by the reason codes whose cause does not depend on the token."""


def why_malformed(token: str, reason: str) -> str:
    """The fault of a token that is not three parts of canonical base64url with JSON objects."""
    if (why := _WHY.get(reason)) is not None:
        return why
    parts = token.split(".")
    decoded = [_json_of(part) for part in parts]
    header = decoded[0]
    match len(parts):
        case 5 if header is not None:
            return (
                f"the token is encrypted (JWE with enc {shown(header.get('enc'))}), and only its recipient can read "
                "it: let the provider issue signed tokens for the API of this service"
            )
        case 1 if header is not None:
            return "the token ends after its header: it was cut off"
        case 1:
            return (
                f"this is an opaque token of {counted(len(token), 'character')}, not a JWT, so Dialtone cannot verify "
                "it: request an access token for your API. Many providers issue JWTs only if the request names an "
                "audience or a resource"
            )
        case 2 if header is not None:
            has_payload = decoded[1] is not None
            return (
                "the signature is missing: the token was cut off, or its last part was removed"
                if has_payload
                else "the token ends within its payload: it was cut off"
            )
        case 3:
            return _why_three_parts_are_malformed(parts, decoded)
    if header is None:
        return "this is an opaque token with dots, not a JWT: its first part is not a JSON object"
    return f"the text has {len(parts)} parts instead of three: check for two joined tokens"


def _why_three_parts_are_malformed(parts: list[str], decoded: list[dict[str, Any] | None]) -> str:
    header, payload, _ = decoded
    if "=" in "".join(parts):
        return "the token has padding (=): base64url of a JWT has none. Check the program that created the token"
    if "+" in "".join(parts) or "/" in "".join(parts):
        return "the token is in base64, not base64url: it has + or /. Check the program that created the token"
    if header is not None and "alg" not in header:
        return "the first part has no alg, so this is not a JWT: it may be a signed session cookie"
    if header is not None and not parts[2]:
        return f"the token has no signature (alg {shown(header.get('alg'))}): Dialtone accepts signed tokens only"
    if payload is not None and header is None:
        return "the header is not a JSON object in base64url: the token was changed"
    if header is not None:
        return "the payload is not a JSON object in base64url: the token was changed or cut off"
    return (
        "this is not a JWT: its first part is not a JSON object. It may be an opaque token or a signed session cookie"
    )


def decoded_part(part: str) -> dict[str, Any] | None:
    """The JSON object in a part, which may have padding or be in base64. None if the part contains no JSON object."""
    return _json_of(part.rstrip("=").replace("+", "-").replace("/", "_"))


def _json_of(part: str) -> dict[str, Any] | None:
    try:
        value = json.loads(canonical_base64url(part).decode("utf-8"))
    except (ValueError, RecursionError, TokenRejected):
        return None
    return value if isinstance(value, dict) else None
