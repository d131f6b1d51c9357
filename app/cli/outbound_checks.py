"""Checks of `dialtone doctor`: what a stolen login could cost, and the policy rules that limit it."""

from app.cli.check_result import CheckResult, CheckVerdict
from app.composition.components import Components
from app.vending.errors import TelnyxError, TelnyxForbidden, TelnyxNotFound
from app.vending.outbound import exposure
from app.vending.upkeep.outbound_guard import FailedRead, find_unmet

FIX = "set a daily spend limit in its outbound voice profile at Telnyx"


async def check_outbound(components: Components, connection_id: str) -> list[CheckResult]:
    """The cost of a stolen login of the connection, and each rule whose requirement it does not meet."""
    about = f"connection {connection_id}"
    policy = components.identity.policy.policy
    try:
        profile = await components.telnyx.outbound.read(connection_id)
    except TelnyxError as error:
        return [_unread(about, FailedRead.of(policy, connection_id, error), error)]
    unmet = list(find_unmet(policy, connection_id, profile))
    is_limited = profile is None or profile.daily_limit_usd is not None
    if is_limited:
        cost = CheckResult(about, CheckVerdict.OK, exposure(profile))
    else:
        fix = f"{FIX}; if users call only each other, remove the profile"
        cost = CheckResult(about, CheckVerdict.WARNING, exposure(profile), fix)
    return [cost] + [
        CheckResult(
            about,
            CheckVerdict.FAILED,
            f'users of the rule {rule.rule} (outbound = "{rule.requirement}") cannot log in: {rule.why}',
            FIX if rule.requirement == "limited" else "remove its outbound voice profile, or disable the profile",
        )
        for rule in unmet
    ]


def _unread(about: str, failed: FailedRead, error: TelnyxError) -> CheckResult:
    """A connection whose limits cannot be read. A failure if rules require limits."""
    match error:
        case TelnyxNotFound():
            fix = "give the connection an existing outbound voice profile at Telnyx, or none"
        case TelnyxForbidden():
            fix = "let the API key read connections and outbound voice profiles"
        case _:
            fix = "run this command again; if it fails again, see `telnyx_error` in the log of the service"
    seen = f"its outbound limits are not known: {failed.why}"
    if not failed.rules:
        return CheckResult(about, CheckVerdict.WARNING, seen, fix)
    denied = f"users of the rule {', '.join(failed.rules)} cannot log in unless the replica has an earlier result"
    return CheckResult(about, CheckVerdict.FAILED, f"{seen}; {denied}", fix)


async def check_spend_limits(components: Components) -> CheckResult:
    """The spend limits of the account, which are not known to limit calls."""
    try:
        limits = [limit async for limit in components.telnyx.outbound.spend_limits()]
    except TelnyxError as error:
        return CheckResult(
            "account spend limits", CheckVerdict.OK, f"not read ({error}); Telnyx documents no spend limit for calls"
        )
    if not limits:
        return CheckResult("account spend limits", CheckVerdict.OK, "none; Telnyx documents no spend limit for calls")
    named = [
        f"{limit.product} {limit.period} {'unlimited' if limit.limit_usd is None else f'{limit.limit_usd:.2f} USD'}"
        for limit in limits
    ]
    return CheckResult(
        "account spend limits", CheckVerdict.OK, f"{', '.join(named)}; Telnyx documents no spend limit for calls"
    )
