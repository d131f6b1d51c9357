"""Wycheproof's test vectors, with the verdicts of Dialtone's policy (tests/vectors/README.md)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.adapters.identity.claims import Issuer
from app.adapters.identity.compact_jws import CompactJws
from app.adapters.identity.key_sets import StaticKeySource
from app.adapters.identity.keys import UnknownKey, check_signature, from_jwks
from app.adapters.identity.unverified_tokens import checked_header
from app.adapters.identity.verifier import TokenVerifier
from app.vending.errors import TokenRejected
from tests.support.tokens import AUDIENCE, ISSUER, rsa_key, token
from tests.support.verification import ALGORITHMS, SETTINGS, Setting, now

VECTORS = Path(__file__).parents[2] / "vectors"


def verdict(jws: Any, keys: list[Any], setting: Setting) -> str:
    """ "accept" if the format, header, key and signature checks pass."""
    try:
        key_set = from_jwks({"keys": keys}, ALGORITHMS)
        fields: dict[str, Any] = {"issuer": ISSUER, "audiences": frozenset({AUDIENCE}), "algorithms": ALGORITHMS}
        issuer = Issuer(**(fields | {"keys": StaticKeySource(key_set)} | setting.issuer))
        unverified = CompactJws.parse(jws, issuer.max_token_length)
        check_signature(unverified, key_set.choose(*checked_header(unverified.header(), issuer, issuer.token_types)))
    except (TokenRejected, UnknownKey):
        return "reject"
    return "accept"


def load(name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    groups = json.loads((VECTORS / f"{name}.json").read_text())["testGroups"]
    expected = json.loads((VECTORS / "expected.json").read_text())["files"][name]
    return groups, expected


def keys_of(group: dict[str, Any]) -> list[Any]:
    material = group.get("public") or group["private"]
    return list(material["keys"]) if "keys" in material else [material]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("json_web_signature_test", {"accept": 15, "reject": 379, "skip": 7}),
        ("json_web_key_test", {"accept": 1, "reject": 25}),
    ],
)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_vector_gets_its_expected_verdict(name: str, counts: dict[str, int], setting: str) -> None:
    groups, expected = load(name)
    seen: Counter[str] = Counter()
    wrong = []
    for group in groups:
        for test in group["tests"]:
            wanted = expected[str(test["tcId"])]["expected"]
            seen[wanted] += 1
            if wanted != "skip" and verdict(test["jws"], keys_of(group), SETTINGS[setting]) != wanted:
                wrong.append((test["tcId"], test["comment"], wanted))

    assert wrong == []
    assert seen == counts


async def test_vector_key_does_not_affect_the_valid_key_beside_it() -> None:
    groups, _ = load("json_web_key_test")
    good = rsa_key("a good key").as_dict(private=False)
    for group in groups:
        keys = StaticKeySource(from_jwks({"keys": [*keys_of(group), good]}, ALGORITHMS))
        checked = TokenVerifier((Issuer(ISSUER, frozenset({AUDIENCE}), ALGORITHMS, keys),), now)

        assert (await checked.verify(token(key=rsa_key("a good key")))).subject == "alice"
