"""`dialtone doctor`: checks the configuration and its dependencies, and suggests fixes."""

import signal
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.in_process import run_in_process, settings
from app.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from app.cli.check_result import CheckResult
    from app.composition.components import Components

SIGNS = {"ok": ("ok  ", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "bold red")}


def doctor(
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings too.")] = False,
    probes: Annotated[
        bool,
        typer.Option("--probe", help="Also create a credential at Telnyx, log in with it, measure, and delete it."),
    ] = False,
) -> None:
    """Check the configuration and suggest fixes. Exits 1 if a check fails."""
    from app.cli.check_result import CheckVerdict
    from app.cli.doctor_checks import check_all
    from app.cli.probe import Probe

    where = settings("doctor")

    async def examine(components: "Components") -> "list[CheckResult]":
        findings = [finding async for finding in check_all(where, components)]
        return findings + (await Probe(where, components).run() if probes else [])

    if probes:
        _end_as_interrupted()
    findings = run_in_process(where, examine)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    bad = {CheckVerdict.FAILED, CheckVerdict.WARNING} if strict else {CheckVerdict.FAILED}
    if any(finding.verdict in bad for finding in findings):
        raise typer.Exit(1)


def _end_as_interrupted() -> None:
    """Let the end of the session and a time limit act as Ctrl-C, after which the probe deletes its credential."""
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread has signals
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is signal.SIG_DFL:  # `nohup` ignores SIGHUP
            signal.signal(ending, lambda *_: signal.raise_signal(signal.SIGINT))


def _print(findings: "list[CheckResult]") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        sign, colour = SIGNS[finding.verdict]
        console.print(Text(sign, colour), Text(f"{finding.about}: {finding.seen}"))
        if finding.fix is not None:
            console.print(Text(f"     -> {finding.fix}"))
