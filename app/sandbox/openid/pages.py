"""The pages of the identity provider: sign-in, sign-out and errors. They work without scripts."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from starlette.responses import HTMLResponse

from app.sandbox.provider import ADMIN_SCOPE, DEMO_USERS, OPERATORS

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d1f24, #e9e7e2); --accent: light-dark(#0b5d55, #5fd0c0); }
body { margin: 4rem auto; max-width: 26rem; padding: 0 1.25rem; color: var(--ink);
  background: light-dark(#fbfaf7, #16181c); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 0.75rem; }
fieldset { border: 0; margin: 1.5rem 0; padding: 0; display: grid; gap: 0.6rem; }
legend { font-weight: 600; padding: 0; margin-bottom: 0.6rem; }
button { font: inherit; color: var(--ink); background: light-dark(#ffffff, #1e2127); text-align: left;
  border: 1px solid var(--accent); border-radius: 8px; padding: 0.6rem 0.9rem; cursor: pointer; }
button:hover { background: light-dark(#e6f2f0, #24332f); }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
code { overflow-wrap: anywhere; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
# There is no `form-action`: Chromium applies it to the redirect to the application too.
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def sign_in_page(
    *, client_id: str, scopes: Iterable[str], parameters: Iterable[tuple[str, str]], cancel_url: str
) -> HTMLResponse:
    """One button for each demo user. A button sends the same request again, with the user as `login_hint`."""
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in parameters
    )
    buttons = "".join(f'<button name="login_hint" value="{user}">{user}</button>' for user in DEMO_USERS)
    note = ""
    if ADMIN_SCOPE in scopes:
        note = f"<p>Only {' and '.join(OPERATORS)} can get the scope <code>{ADMIN_SCOPE}</code>.</p>"
    return _page(
        "Sign in",
        f"<p><code>{escape(client_id)}</code> requests access. This is a sandbox: it has no passwords.</p>"
        f'{note}<form action="/authorize">{fields}<fieldset><legend>Demo user</legend>{buttons}</fieldset></form>'
        f'<p><a href="{escape(cancel_url)}">Cancel</a></p>',
    )


def signed_out_page() -> HTMLResponse:
    return _page("Signed out", "<p>Your session at the sandbox's identity provider has ended.</p>")


def error_page(message: str) -> HTMLResponse:
    """A request that cannot be answered with a redirect, because its redirect URI is not valid."""
    return _page("Invalid request", f'<p role="alert">{escape(message)}</p>', 400)


def _page(title: str, body: str, status: int = 200) -> HTMLResponse:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{_STYLE}</style>'
    )
    text = f'<!doctype html><html lang="en"><head>{head}</head><body><main><h1>{title}</h1>{body}</main></body></html>'
    return HTMLResponse(text, status, _HEADERS)
