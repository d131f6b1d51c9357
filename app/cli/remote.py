"""Remote mode: the service that DIALTONE_URL names, with an access token from a file or from standard input."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from app import __version__
from app.adapters.addresses import is_proxy_url, is_safe_url
from app.cli.inputs import read_token
from app.cli.output import end
from app.cli.service_client import JsonObject, RequestFailure

if TYPE_CHECKING:
    from app.adapters.http_client import FailureReason, HttpClient, HttpResponse

REQUEST_SECONDS = 60.0
"""Deadline of a request. Fetching the keys of all issuers, or ending 5,000 leases, takes seconds."""

MAX_RESPONSE_BYTES = 16 * 1024 * 1024

POLL_SECONDS = 0.5

_TOKEN = re.compile(r"[\x21-\x7e]+")


class RemoteOptions(NamedTuple):
    """The options `--url` and `--token-file`, or their environment variables."""

    url: str | None = None
    token_file: str | None = None


IN_PROCESS = RemoteOptions()
OPTIONS: ContextVar[RemoteOptions] = ContextVar("remote_options", default=IN_PROCESS)


def is_selected() -> bool:
    """Whether commands act on a service elsewhere."""
    return bool(OPTIONS.get().url)


def refuse_remote(what: str) -> None:
    """Exit 2 in remote mode: the command needs the settings or the database of this machine."""
    if is_selected():
        end(
            f"`dialtone {what}` uses the settings and the database of this machine, not the service at DIALTONE_URL. "
            "Unset DIALTONE_URL, and run the command on a machine of the service.",
            2,
        )


@asynccontextmanager
async def open_remote() -> AsyncIterator["RemoteTransport"]:
    """Requests to the service in the options. Exits 2 if the options are missing or invalid."""
    from app.adapters.http_client import HttpClient

    url, token_source = _address(), _token_source()
    async with HttpClient(f"dialtone/{__version__}", proxy_url=_proxy_of(url)) as client:
        yield RemoteTransport(url, token_source, client)


class RemoteTransport:
    """Sends requests to a service elsewhere. Does not follow redirects, which would send the token to another host."""

    def __init__(
        self,
        url: str,
        token_source: Callable[[], str],
        client: "HttpClient",
        deadline_seconds: float = REQUEST_SECONDS,
    ) -> None:
        """`token_source` is called for each request, so that a renewed token in the file is used."""
        self._url = url
        self._token_source = token_source
        self._client = client
        self._deadline_seconds = deadline_seconds

    async def send(self, method: str, path: str, *, params: Mapping[str, str], body: Any) -> "HttpResponse":
        from app.adapters.http_client import ConnectFailed, RequestFailed

        own = {"Authorization": f"Bearer {self._token_source()}", "Accept": "application/json"}
        try:
            response = await self._client.send(
                method,
                self._url + path,
                deadline_seconds=self._deadline_seconds,
                max_bytes=MAX_RESPONSE_BYTES,
                headers=self._client.headers(own),
                params=dict(params),
                json=body,
            )
        except RequestFailed as error:
            what = "connection to" if isinstance(error, ConnectFailed) else "valid response from"
            raise RequestFailure(f"No {what} {self._url}: {error}.{_fix_of(error.reason)}", is_retryable=True) from None
        if 300 <= response.status < 400:
            target = _origin(response.headers.get("location", ""))
            raise RequestFailure(
                f"{self._url} redirects to {target}. The redirect was not followed, so the token was not sent there. "
                "Set DIALTONE_URL to the address of Dialtone."
            )
        return response

    async def advance_deletions(self) -> bool:
        await asyncio.sleep(POLL_SECONDS)
        return True

    def explain(self, status: int, problem: JsonObject) -> str | None:
        match status, problem.get("code"):
            case 401, _:
                return "Get a new access token, and write it to the token file."
            case 403, "insufficient_scope" | "access_denied":
                return (
                    "Commands require a token with the scope dialtone:admin and, if the service has policy rules, "
                    "a rule with admin = true for its user. Operators of some issuers cannot use every command."
                )
            case (404, "not_found") | (405, _):
                return (
                    "The service has no such operation: it is an older version, or DIALTONE_URL is not the address "
                    "of its admin listener (DIALTONE_ADMIN_HOST)."
                )
            case _:
                return None


def _address() -> str:
    """The base URL without a slash at its end. Exits 2 without repeating a value, which may contain a password."""
    url = OPTIONS.get().url
    if not url:
        end("This command needs a running service: set DIALTONE_URL, or use --url.", 2)
    if not is_safe_url(url) or "?" in url:
        end(
            "DIALTONE_URL must be an https URL without user, query and fragment, such as https://dialtone.example.com. "
            "Plain http is accepted only for this machine (127.0.0.1, ::1, localhost): it would expose the token.",
            2,
        )
    return url.rstrip("/")


def _token_source() -> Callable[[], str]:
    """A function that reads the token. It reads standard input only once."""
    source = OPTIONS.get().token_file
    if not source:
        end(
            "DIALTONE_URL requires an access token: set DIALTONE_TOKEN_FILE to the path of a file with the token, or "
            "use --token-file. The path - is standard input.",
            2,
        )
    read = cache(_read_token) if source == "-" else _read_token
    return lambda: read(source)


def _read_token(source: str) -> str:
    token = read_token(source)
    if not _TOKEN.fullmatch(token):
        end("The token file has more than one token, or characters that no token has.", 2)
    return token


def _proxy_of(url: str) -> str | None:
    """The proxy of HTTPS_PROXY, unless NO_PROXY lists the host. It sees only the host name, because TLS is inside."""
    proxy = getproxies().get("https")
    if proxy is None or proxy_bypass(urlsplit(url).hostname or ""):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not is_proxy_url(proxy):
        end("HTTPS_PROXY is not the URL of an HTTP proxy, such as http://proxy.example.com:3128.", 2)
    return proxy


def _fix_of(reason: "FailureReason") -> str:
    from app.adapters.http_client import FailureReason

    if reason in (FailureReason.UNTRUSTED_CERTIFICATE, FailureReason.SELF_SIGNED_CERTIFICATE):
        return " Set SSL_CERT_FILE to a file with the CA certificate, if it is private."
    return ""


def _origin(location: str) -> str:
    """The scheme and host of a redirect. Its path and query may contain secrets."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "an invalid URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme and parts.netloc else "another path"
