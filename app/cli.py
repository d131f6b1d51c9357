"""The `dialtone` command: serve, dev, sandbox, migrate, token, openapi."""

import asyncio
import json
import sys
from typing import Annotated, NoReturn

import typer

from app.settings import Settings, SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hands a phone to a signed-in user: short-lived Telnyx credentials for WebRTC clients.",
)
sandbox = typer.Typer(no_args_is_help=True, help="A Telnyx and an identity provider on this machine, for development.")
app.add_typer(sandbox, name="sandbox")

LOOPBACK = "127.0.0.1"


@app.command()
def serve() -> None:
    """Run the service. Configured by environment variables; .env.example explains each."""
    from app.main import serve as run

    run(_settings())


@app.command()
def migrate() -> None:
    """Bring the ledger's database to this version. Safe to run again, and by several replicas at once."""
    from app.adapters.ledger import migrating
    from app.adapters.ledger.sql import database_url

    url = database_url(_settings().database_url.get_secret_value())
    try:
        revision = asyncio.run(migrating.migrate(url))
    except Exception as error:
        _end(f"The database could not be migrated ({type(error).__name__}). Is DIALTONE_DATABASE_URL right?")
    typer.echo(f"The ledger is at revision {revision}.")


@app.command()
def dev() -> None:
    """Run sandbox, demo identity provider and service on this machine, until Ctrl-C."""
    from app.sandbox import stack

    sys.exit(stack.run())


@app.command()
def token(
    user: Annotated[str, typer.Argument(help="alice, bob or carol")] = "alice",
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces.")] = "phone",
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.")] = 3600,
) -> None:
    """Print a demo user's access token from the identity provider that `dialtone dev` runs."""
    from app.sandbox import stack

    try:
        typer.echo(stack.demo_token(user, scope=scope, ttl_seconds=ttl))
    except stack.StackError as error:
        _end(str(error))


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import openapi_document

    typer.echo(json.dumps(openapi_document(), indent=2, ensure_ascii=False))


@sandbox.command("telnyx")
def sandbox_telnyx(
    port: Annotated[int, typer.Option(envvar="DIALTONE_SANDBOX_PORT")] = 8011,
    empty: Annotated[bool, typer.Option("--empty", help="Start without the demo connection.")] = False,
    token_ttl: Annotated[int, typer.Option(help="Seconds that a login token lives at most.")] = 86_400,
    rate_limit: Annotated[int, typer.Option(help="Requests a second.")] = 10_000,
    propagation: Annotated[float, typer.Option(help="Seconds until a new credential can log in.")] = 1.0,
    keep_deleted: Annotated[
        bool, typer.Option("--keep-deleted", help="Leave a page registered when its credential is deleted.")
    ] = False,
) -> None:
    """Telnyx's REST API and signalling in memory. Listens on loopback only; its key and connection are printed."""
    from datetime import timedelta

    from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY, Account, Clock
    from app.sandbox.rest import TelnyxSandbox

    clock = Clock()
    account = Account(clock, token_life=timedelta(seconds=token_ttl))
    if not empty:
        account.add_demo_connection()
    typer.echo(f"TELNYX_BASE_URL=http://{LOOPBACK}:{port}/v2")
    typer.echo(f"TELNYX_API_KEY={DEMO_KEY}")
    if not empty:
        typer.echo(f"TELNYX_CONNECTION_ID={DEMO_CONNECTION}")
    app = TelnyxSandbox(
        account,
        clock,
        requests_a_second=rate_limit,
        propagation=timedelta(seconds=propagation),
        drops_deleted=not keep_deleted,
    )
    _listen(app, port)


@sandbox.command("identity")
def sandbox_identity(port: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT")] = 8012) -> None:
    """An identity provider that gives demo users tokens without a password. Listens on loopback only."""
    from app.sandbox.identity_provider import create_identity_provider

    issuer = f"http://{LOOPBACK}:{port}"
    typer.echo(f"DIALTONE_ISSUER={issuer}")
    _listen(create_identity_provider(issuer), port)


@sandbox.command("page")
def sandbox_page(
    port: Annotated[int, typer.Option(envvar="DIALTONE_PAGE_PORT")] = 8013,
    service: Annotated[int, typer.Option(envvar="DIALTONE_PORT", help="Port of the service.")] = 8010,
    identity: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT", help="Port of the demo provider.")] = 8012,
    telnyx: Annotated[int, typer.Option(envvar="DIALTONE_SANDBOX_PORT", help="Port of the Telnyx sandbox.")] = 8011,
) -> None:
    """The softphone page. Listens on loopback only."""
    from app.web.server import create_page

    page = create_page(
        service=f"http://{LOOPBACK}:{service}",
        identity=f"http://{LOOPBACK}:{identity}",
        signalling=f"ws://{LOOPBACK}:{telnyx}",
    )
    _listen(page, port)


def main() -> None:
    """The entry point of the installed command."""
    app()


def _settings() -> Settings:
    try:
        return Settings.load()
    except SettingsError as error:
        _end(f"Configuration: {error}")


def _end(line: str) -> NoReturn:
    """One clear line, and a status that scripts see."""
    typer.echo(line, err=True)
    raise typer.Exit(1)


def _listen(asgi: object, port: int) -> None:
    import uvicorn

    uvicorn.run(asgi, host=LOOPBACK, port=port, log_level="critical", server_header=False)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
