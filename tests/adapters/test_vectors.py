"""Wycheproof's vectors, which nobody here wrote, with the verdicts our policy owes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.adapters.identity.claims import Issuer
from app.adapters.identity.compact_jws import Compact
from app.adapters.identity.key_sets import FixedKeys
from app.adapters.identity.keys import UnknownKey, check_signature, from_jwks
from app.adapters.identity.verifier import TokenVerifier, checked_header
from app.vending.errors import TokenRefused
from tests.adapters.test_tokens import ALL, now
from tests.stage import AUDIENCE, ISSUER, rsa_key, token


def verdict(jws: Any, keys: list[Any]) -> str:
    """Accept means: shape, header, key and signature pass."""
    try:
        key_set = from_jwks({"keys": keys}, ALL)
        unverified = Compact.parse(jws)
        issuer = Issuer(ISSUER, frozenset(), ALL, FixedKeys(key_set))
        check_signature(unverified, key_set.choose(*checked_header(unverified.header, issuer, issuer.token_types)))
    except (TokenRefused, UnknownKey):
        return "reject"
    return "accept"


def load(shared: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    groups = json.loads((shared / "vectors" / f"{name}.json").read_text())["testGroups"]
    expected = json.loads((shared / "vectors" / "expected.json").read_text())["files"][name]
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
def test_every_vector_gets_its_verdict(shared: Path, name: str, counts: dict[str, int]) -> None:
    groups, expected = load(shared, name)
    seen: Counter[str] = Counter()
    wrong = []
    for group in groups:
        for test in group["tests"]:
            wanted = expected[str(test["tcId"])]["expected"]
            seen[wanted] += 1
            if wanted != "skip" and verdict(test["jws"], keys_of(group)) != wanted:
                wrong.append((test["tcId"], test["comment"], wanted))

    assert wrong == []
    assert seen == counts


async def test_a_good_key_beside_a_vectors_key_goes_on_working(shared: Path) -> None:
    groups, _ = load(shared, "json_web_key_test")
    good = rsa_key("a good key").as_dict(private=False)
    for group in groups:
        keys = FixedKeys(from_jwks({"keys": [*keys_of(group), good]}, ALL))
        checked = TokenVerifier((Issuer(ISSUER, frozenset({AUDIENCE}), ALL, keys),), now)

        assert (await checked.verify(token(key=rsa_key("a good key")))).subject == "alice"
