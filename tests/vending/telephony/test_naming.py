"""Names and tags of credentials at Telnyx."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.vending.models import UserKey
from app.vending.telephony.naming import Naming


@given(st.text())
def test_only_generated_names_lead_back_to_a_lease(name: str) -> None:
    naming = Naming("dialtone", b"k" * 32)

    assert naming.lease_id(name) is None
    assert naming.lease_id(naming.credential_name("ab" * 16)) == "ab" * 16


@pytest.mark.parametrize(
    "name",
    [
        "dialtone-staging-" + "ab" * 16,
        "dialtone-" + "ab" * 16 + "\n",
        "dialtone-" + "AB" * 16,
        "xdialtone-" + "ab" * 16,
        "dialtone-" + "ab" * 15,
    ],
)
def test_similar_names_do_not_lead_to_a_lease(name: str) -> None:
    assert Naming("dialtone", b"k" * 32).lease_id(name) is None


@given(st.text(), st.text(), st.text(), st.text())
def test_two_users_never_share_a_tag(a: str, b: str, c: str, d: str) -> None:
    naming = Naming("dialtone", b"k" * 32)

    assert (naming.tag(UserKey(a, b)) == naming.tag(UserKey(c, d))) == ((a, b) == (c, d))


def test_tag_depends_on_the_key() -> None:
    user_key = UserKey("https://id.example.com", "alice")

    assert Naming("dialtone", b"one").tag(user_key) != Naming("dialtone", b"two").tag(user_key)


def test_previous_tag_key_is_recognized_and_the_new_one_is_used() -> None:
    old, new = Naming("dialtone", b"old"), Naming("dialtone", b"new")
    both = Naming("dialtone", b"new", b"old")
    user_key = UserKey("https://id.example.com", "alice")

    assert both.push_fingerprints(b"material") == (
        *new.push_fingerprints(b"material"),
        *old.push_fingerprints(b"material"),
    )
    assert both.user_hashes(user_key) == (*new.user_hashes(user_key), *old.user_hashes(user_key))
    assert both.tag(user_key) == new.tag(user_key)


def test_hash_of_an_erased_user_cannot_be_matched_with_the_tag() -> None:
    naming, user_key = Naming("dialtone", b"k"), UserKey("https://id.example.com", "alice")

    assert naming.tag(user_key) not in naming.user_hashes(user_key)[0]
