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
