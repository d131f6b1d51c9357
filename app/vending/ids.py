"""Unguessable ids of requests, leases and events: 128 random bits as 32 hex digits.

Random bytes are read 4 KiB at a time. A system call for every id would cost as much as three middleware layers and
would release the GIL to a waiting thread.
"""

import os
import time

PAGE_BYTES, ID_BYTES = 4096, 16

_page: list[str] = []
if hasattr(os, "register_at_fork"):  # a forked child must not return the same ids as its parent
    os.register_at_fork(after_in_child=_page.clear)


def new_id() -> str:
    while True:
        try:
            return _page.pop()
        except IndexError:
            digits = os.urandom(PAGE_BYTES).hex()
            _page.extend(digits[at : at + 2 * ID_BYTES] for at in range(0, len(digits), 2 * ID_BYTES))


def new_ordered_id() -> str:
    """Like `new_id`, with the time in milliseconds as its first 12 digits (as in UUID version 7, RFC 9562).

    For rows that are added often: adding entries at the end of an index takes half the work of adding them at random.
    """
    return f"{time.time_ns() // 1_000_000:012x}{new_id()[12:]}"
