"""`dialtone sandbox`: simulated Telnyx, identity provider and softphone page, on loopback only."""

from typing import Annotated

import typer

from app.cli.output import end

commands = typer.Typer(
    no_args_is_help=True, help="Run a simulated Telnyx and identity provider on this machine, for development."
)


@commands.command("telnyx")
def sandbox_telnyx(
    port: Annotated[int, typer.Option(envvar="DIALTONE_SANDBOX_PORT")] = 8011,
    empty: Annotated[bool, typer.Option("--empty", help="Start without the demo connection.")] = False,
    token_ttl: Annotated[int, typer.Option(help="Maximum lifetime of a login token in seconds.")] = 86_400,
    rate_limit: Annotated[int, typer.Option(help="Requests per second.")] = 10_000,
    propagation: Annotated[float, typer.Option(help="Seconds until a new credential can log in.")] = 1.0,
    keep_deleted: Annotated[
        bool, typer.Option("--keep-deleted", help="Keep clients registered after their credential is deleted.")
    ] = False,
) -> None:
    """Run Telnyx's REST API and signalling in memory, on loopback only. Prints its API key and connection."""
    from datetime import timedelta

    from app.sandbox.account import DEMO_CONNECTION, DEMO_KEY, Account, Clock
    from app.sandbox.rest import TelnyxSandbox
    from app.sandbox.server import LOOPBACK, listen

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
    listen(app, port)


@commands.command("identity")
def sandbox_identity(
    port: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT")] = 8012,
    service: Annotated[int, typer.Option(envvar="DIALTONE_PORT", help="Port of the service, for logouts.")] = 8010,
) -> None:
    """Run an identity provider that issues tokens to demo users without a password, on loopback only."""
    from app.sandbox.identity_provider import create_identity_provider
    from app.sandbox.server import LOOPBACK, listen

    issuer = f"http://{LOOPBACK}:{port}"
    typer.echo(f"DIALTONE_ISSUER={issuer}")
    logout_uri = f"http://{LOOPBACK}:{service}/v1/backchannel-logout"
    listen(create_identity_provider(issuer, logout_uri), port)


@commands.command("page")
def sandbox_page(
    port: Annotated[int, typer.Option(envvar="DIALTONE_PAGE_PORT")] = 8013,
    service: Annotated[int, typer.Option(envvar="DIALTONE_PORT", help="Port of the service.")] = 8010,
    identity: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT", help="Port of the demo provider.")] = 8012,
    telnyx: Annotated[int, typer.Option(envvar="DIALTONE_SANDBOX_PORT", help="Port of the Telnyx sandbox.")] = 8011,
) -> None:
    """Serve the softphone page, on loopback only."""
    from app.sandbox.server import LOOPBACK, listen
    from app.sandbox.softphone.server import create_page

    page = create_page(
        service=f"http://{LOOPBACK}:{service}",
        identity=f"http://{LOOPBACK}:{identity}",
        signalling=f"ws://{LOOPBACK}:{telnyx}",
    )
    listen(page, port)


@commands.command("token")
def sandbox_token(
    user: Annotated[str, typer.Argument(help="alice, bob or carol")] = "alice",
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces.")] = "phone",
    ttl: Annotated[int, typer.Option(help="Lifetime in seconds.")] = 3600,
) -> None:
    """Print a demo user's access token from the identity provider that `dialtone dev` runs."""
    from app.sandbox import stack

    try:
        typer.echo(stack.demo_token(user, scope=scope, ttl_seconds=ttl))
    except stack.StackError as error:
        end(str(error))
