"""Commands to run the service (serve, migrate, dev) and to print generated documents (openapi, errors)."""

import asyncio
import json
import signal
import sys
from typing import Annotated, Literal

import typer

from app.cli.in_process import load_settings, settings
from app.cli.output import AsJson, end, print_json
from app.cli.sandbox import require_sandbox

commands = typer.Typer()


@commands.command()
def serve(
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="The number of processes; DIALTONE_WORKERS by default.")
    ] = None,
) -> None:
    """Run the service. Environment variables configure it; .env.example describes them."""
    if hasattr(signal, "SIGHUP"):
        # Until the service can reload, the signal waits. It would end the process, and a reload would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from app.main import serve as run

    configured = load_settings()
    run(configured, workers or configured.workers)


@commands.command()
def migrate(as_json: AsJson = False) -> None:
    """Migrate the ledger's database to this version. Idempotent; several replicas may run it at once."""
    from app.adapters.ledger import migrate as migrating
    from app.adapters.ledger.engines import database_url
    from app.adapters.ledger.failure_reasons import reason_of

    url = database_url(settings("migrate").database_url.get_secret_value())
    try:
        revision = asyncio.run(migrating.migrate(url))
    except Exception as error:
        end(f"The migration failed: {reason_of(error) or type(error).__name__}. Check DIALTONE_DATABASE_URL.")
    if as_json:
        print_json({"revision": revision})
    else:
        typer.echo(f"The ledger is at revision {revision}.")


@commands.command()
def dev(
    provider: Annotated[
        str, typer.Option(help="The identity provider to simulate; `dialtone sandbox identity --list` prints all.")
    ] = "demo",
) -> None:
    """Run the sandbox, a demo identity provider and the service on this machine until Ctrl-C."""
    require_sandbox()
    from app.sandbox import stack

    sys.exit(stack.run(provider))


@commands.command()
def errors() -> None:
    """Print the catalogue of problem codes as Markdown."""
    from app.cli.problem_reference import catalogue
    from app.main import openapi_document

    typer.echo(catalogue(openapi_document()), nl=False)


@commands.command()
def openapi(
    api: Annotated[Literal["user", "operators"] | None, typer.Option(help="Print only this half of the API.")] = None,
) -> None:
    """Print the OpenAPI document."""
    from app.api.openapi import Api
    from app.main import openapi_document

    typer.echo(json.dumps(openapi_document(Api(api) if api else None), indent=2, ensure_ascii=False))
