"""Ids that nobody can guess: 128 random bits as 32 hex digits, of requests, leases and events.

Randomness is had from the system a page at a time: a call for each id costs as much as three layers, and hands the
interpreter to whichever thread waits for it.
"""

import os

PAGE_BYTES, ID_BYTES = 4096, 16

_page: list[str] = []
if hasattr(os, "register_at_fork"):  # where processes fork: else parent and child would give out the same
    os.register_at_fork(after_in_child=_page.clear)


def new_id() -> str:
    while True:
        try:
            return _page.pop()
        except IndexError:
            digits = os.urandom(PAGE_BYTES).hex()
            _page.extend(digits[at : at + 2 * ID_BYTES] for at in range(0, len(digits), 2 * ID_BYTES))
