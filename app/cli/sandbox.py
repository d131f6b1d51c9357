"""`dialtone sandbox`: simulated Telnyx, identity provider and softphone page, on loopback only."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.output import end

if TYPE_CHECKING:
    from app.sandbox.provider import SimulatedProvider

commands = typer.Typer(no_args_is_help=True)


@commands.callback()
def require_sandbox() -> None:
    """Run a simulated Telnyx and identity provider on this machine, for development."""
    if find_spec("app.sandbox") is None:
        end("This installation has no sandbox. Use a checkout, or an image that is built with `--target development`.")


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
    lines = [f"TELNYX_BASE_URL=http://{LOOPBACK}:{port}/v2", f"TELNYX_API_KEY={DEMO_KEY}"]
    if not empty:
        lines.append(f"TELNYX_CONNECTION_ID={DEMO_CONNECTION}")
    app = TelnyxSandbox(
        account,
        clock,
        requests_a_second=rate_limit,
        propagation=timedelta(seconds=propagation),
        drops_deleted=not keep_deleted,
    )
    listen(app, port, "\n".join(lines))


@commands.command("identity")
def sandbox_identity(
    provider: Annotated[str, typer.Option(help="The identity provider to simulate; --list prints all.")] = "demo",
    port: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT")] = 8012,
    service: Annotated[int, typer.Option(envvar="DIALTONE_PORT", help="Port of the service, for logouts.")] = 8010,
    lists: Annotated[bool, typer.Option("--list", help="Print the providers and exit.")] = False,
) -> None:
    """Run an identity provider that issues tokens to demo users without a password, on loopback only.

    Prints the part of dialtone.toml that makes Dialtone accept its tokens.
    """
    from app.sandbox.identity_provider import create_identity_provider
    from app.sandbox.providers import NOT_VERIFIABLE, PROVIDERS, UnknownProvider, simulate
    from app.sandbox.server import LOOPBACK, listen

    if lists:
        for name, known in PROVIDERS.items():
            typer.echo(f"{name:20} {known.title}")
        for name, reason in NOT_VERIFIABLE.items():
            typer.echo(f"{name:20} not possible: {reason}")
        return
    base = f"http://{LOOPBACK}:{port}"
    try:
        chosen = simulate(provider, base)
    except UnknownProvider as error:
        end(str(error), 2)
    logout_uri = f"http://{LOOPBACK}:{service}/v1/backchannel-logout"
    listen(create_identity_provider(base, logout_uri, provider), port, _instructions(chosen, port))


def _instructions(simulated: "SimulatedProvider", port: int) -> str:
    """The settings that make Dialtone accept the tokens, and commands that print tokens. A valid dialtone.toml."""
    variables = {**simulated.variables, "DIALTONE_CONFIG": "dialtone.toml"}
    print_token = ".venv/bin/dialtone sandbox token alice" + ("" if port == 8012 else f" --port {port}")
    return "\n".join(
        [
            f"# {simulated.provider.title}, simulated on this machine. Add these lines to dialtone.toml:",
            simulated.block(),
            "",
            "# Run Dialtone with them and a simulated Telnyx:",
            f"#   {' '.join(f'{name}={value}' for name, value in variables.items())} make dev",
            f"# Print a token that Dialtone accepts{_header_note(simulated)}:",
            f"#   {print_token}",
            f"# Print a token that it rejects (kinds: {', '.join(simulated.kinds[1:])}):",
            f"#   {print_token} --kind {simulated.kinds[1]}",
        ]
    )


def _header_note(simulated: "SimulatedProvider") -> str:
    return "" if simulated.provider.header is None else f" in the header {simulated.provider.header}"


@commands.command("page")
def sandbox_page(
    port: Annotated[int, typer.Option(envvar="DIALTONE_PAGE_PORT")] = 8013,
    service: Annotated[int, typer.Option(envvar="DIALTONE_PORT", help="Port of the service.")] = 8010,
    identity: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT", help="Port of the demo provider.")] = 8012,
    telnyx: Annotated[int, typer.Option(envvar="DIALTONE_SANDBOX_PORT", help="Port of the Telnyx sandbox.")] = 8011,
    notice: Annotated[str, typer.Option(help="Show this sentence instead of the sign-in.")] = "",
    guests: Annotated[bool, typer.Option("--guests", help="Let guests call: the service accepts grants.")] = False,
) -> None:
    """Serve the softphone page, on loopback only."""
    from app.sandbox.server import LOOPBACK, listen
    from app.sandbox.softphone.server import create_page

    page = create_page(
        service=f"http://{LOOPBACK}:{service}",
        identity=f"http://{LOOPBACK}:{identity}",
        signalling=f"ws://{LOOPBACK}:{telnyx}",
        notice=notice or None,
        has_guests=guests,
    )
    listen(page, port)


@commands.command("token")
def sandbox_token(
    user: Annotated[str, typer.Argument(help="alice, bob or carol")] = "alice",
    kind: Annotated[
        str | None,
        typer.Option(help="Another kind than the accepted one, such as id, refresh, machine, expired or other-client."),
    ] = None,
    scope: Annotated[str | None, typer.Option(help="Scopes, separated by spaces.")] = None,
    ttl: Annotated[int, typer.Option(help="Lifetime in seconds.")] = 3600,
    port: Annotated[int, typer.Option(envvar="DIALTONE_IDENTITY_PORT", help="Port of the provider.")] = 8012,
) -> None:
    """Print a demo user's token from the identity provider that `dialtone dev` or `sandbox identity` runs."""
    from app.sandbox import stack

    try:
        typer.echo(stack.demo_token(user, kind=kind, scope=scope, ttl_seconds=ttl, port=port))
    except stack.StackError as error:
        end(str(error))
