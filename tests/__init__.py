"""Tests. The folders mirror app/; `support` holds what several modules use."""

import pytest

pytest.register_assert_rewrite("tests.support")
