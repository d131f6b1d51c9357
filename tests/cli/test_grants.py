"""`dialtone grants`: what an operator reads after a revocation."""

from pathlib import Path

from tests.support.command_line import operator_shell
from tests.support.grants import RULES, granting_service, minted, use
from tests.support.sandbox import Telnyx
from tests.support.tokens import ISSUER


async def test_revocation_of_one_grant_counts_the_grant_and_its_device(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        grant = await minted(service)
        await use(service, grant)

        done = await operator_shell(service, tmp_path).run("grants", "revoke", grant["id"])

    assert (done.exit_code, done.stdout) == (0, "1 grant revoked, 1 device logged out.\n")


async def test_operator_of_some_issuers_reads_that_the_command_is_not_for_them(
    telnyx: Telnyx, sqlite: str, tmp_path: Path
) -> None:
    bound = f'issuers = ["{ISSUER}"]\nadmin = {{ issuers = ["{ISSUER}"] }}'
    async with granting_service(telnyx, sqlite, tmp_path, RULES.replace("admin = true", bound)) as service:
        shell = operator_shell(service, tmp_path)

        listed = await shell.run("leases", "ls")
        done = await shell.run("grants", "revoke", "--everything", "--confirm", "dialtone")

    assert (listed.exit_code, done.exit_code) == (0, 1)
    assert done.stderr.endswith("Operators of some issuers cannot use every command.\n")
