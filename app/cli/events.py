"""`dialtone events`: list events that webhooks have not delivered, and replay dead letters."""

import re
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.output import AsJson, Column, counted, end, in_seconds, note, print_json, print_rows
from app.cli.service_client import JsonObject, ServiceClient, run

commands = typer.Typer(no_args_is_help=True, help="List events for webhooks, and replay dead letters.")

EVENTS = "/v1/admin/events"

COLUMNS = (
    Column("ID", lambda event: event["event_id"], is_whole=True),
    Column("ENDPOINT", lambda event: event["endpoint"], is_whole=True),
    Column("TYPE", lambda event: event["type"], is_whole=True),
    Column("AT", lambda event: in_seconds(event["at"]), is_whole=True),
    Column("USER", lambda event: event["subject"]),
    Column("DEVICE", lambda event: event["device_id"]),
    Column("ATTEMPTS", lambda event: str(event["attempts"]), is_whole=True),
    Column("FAILURE", lambda event: event["failure"], is_whole=True),
)

Endpoint = Annotated[str | None, typer.Option(help="The name of the endpoint in dialtone.toml.")]


class EventState(StrEnum):
    PENDING = "pending"
    DEAD = "dead"


@commands.command("ls")
def ls(
    state: Annotated[
        EventState, typer.Option(help="`dead`: dead letters. `pending`: events that Dialtone still retries.")
    ] = EventState.DEAD,
    endpoint: Endpoint = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List undelivered events, newest first."""
    filters = {"state": state.value, "endpoint": endpoint}
    found = run(lambda client: client.rows(EVENTS, filters, limit))
    if as_json:
        print_json(found)
    else:
        print_rows(COLUMNS, found, "No events match.")
    if len(found) == limit:
        note(f"Showing the first {limit}. Use --limit for more.")


@commands.command("replay")
def replay(
    event: Annotated[str | None, typer.Argument(metavar="[ID]", help="The whole ID of one event.")] = None,
    endpoint: Endpoint = None,
    everything: Annotated[bool, typer.Option("--all", help="Replay all dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Deliver dead letters again, with the same IDs. Exits 1 if some were skipped, or the ID does not exist."""
    if everything == (event is not None or endpoint is not None):
        end("Specify an ID, --endpoint, or both; or --all.", 2)
    if event is not None and not re.fullmatch(r"[0-9a-f]{32}", event):
        form = "32 characters, which are digits and the letters a to f"
        end(f"The ID of an event has {form}. `dialtone events ls` shows it.", 2)
    body = {"event_id": event, "endpoint": endpoint}
    replayed, rest = run(lambda client: _replay_all(client, body))
    if not replayed and event is not None and not any(rest.values()):
        hint = "The event may be pending (`dialtone events ls --state pending`), delivered, or deleted after a week."
        end(f"No dead letter has this ID. {hint}")
    if as_json:
        print_json({"replayed": replayed} | rest)
    else:
        typer.echo(f"Replayed {counted(replayed, 'dead letter')}.")
    if rest["remaining"]:
        skipped = counted(rest["remaining"], "dead letter")
        note(f"Skipped {skipped} that another request or replica is changing. Run the command again.")
    if rest["endpoint_removed"]:
        note(f"Skipped {counted(rest['endpoint_removed'], 'dead letter')} whose endpoint is not in the configuration.")
    if any(rest.values()):
        raise typer.Exit(1)


async def _replay_all(client: ServiceClient, body: JsonObject) -> tuple[int, dict[str, int]]:
    """Repeat the request while it replays dead letters. Returns their number, and what it skipped by reason."""
    count = 0
    while True:
        answer = await client.request("POST", f"{EVENTS}/replays", body=body)
        count += int(answer["replayed"])
        if answer["complete"] or not answer["replayed"]:
            return count, {reason: int(answer[reason]) for reason in ("remaining", "endpoint_removed")}
        note(f"{count} ...")
