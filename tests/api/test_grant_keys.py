"""Keys of grants: what the published keys verify, and rotation."""

from pathlib import Path

from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.grants import ed25519_key, from_file, grant_key, granting_service, minted, use, write_config
from tests.support.sandbox import Telnyx
from tests.support.service import Service, settings_for

APP = "https://app.example.com"


async def test_grant_is_a_jwt_that_the_published_keys_verify(granting: Service) -> None:
    grant = await minted(granting, origin=APP)

    keys = (await granting.client.get("/.well-known/jwks.json")).json()

    assert [sorted(key) for key in keys["keys"]] == [["alg", "crv", "kid", "kty", "use", "x", "y"]]
    verified = jwt.decode(grant["token"], KeySet.import_key_set(keys), algorithms=["ES256"])
    assert verified.header["typ"] == "grant+jwt"
    assert verified.claims | {"iat": 0, "exp": 0} == {
        "iss": "dialtone:users",
        "sub": "erin",
        "aud": "dialtone:dialtone",
        "sid": grant["id"],
        "origin": APP,
        "iat": 0,
        "exp": 0,
    }
    assert verified.claims["exp"] - verified.claims["iat"] == 300


async def test_ed25519_key_signs_grants(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path, grant_key=ed25519_key()) as service:
        grant = await minted(service)
        assert jwt.decode(
            grant["token"],
            KeySet.import_key_set((await service.client.get("/.well-known/jwks.json")).json()),
            algorithms=["EdDSA"],
        )

        assert (await use(service, grant)).status_code == 201


async def test_rotation_accepts_grants_of_both_keys(telnyx: Telnyx, sqlite: str, tmp_path: Path) -> None:
    async with granting_service(telnyx, sqlite, tmp_path) as service:
        before = await minted(service)
        own = from_file(write_config(tmp_path))
        new = settings_for(telnyx.url, sqlite, **own, grant_key=grant_key("second"), other_grant_key=grant_key())

        await service.components.reload(new)

        assert len((await service.client.get("/.well-known/jwks.json")).json()["keys"]) == 2
        assert (await use(service, before)).status_code == 201
        assert (await use(service, await minted(service, subject="frank"))).status_code == 201

        await service.components.reload(settings_for(telnyx.url, sqlite, **own, grant_key=grant_key("second")))

        assert (await use(service, before)).status_code == 401
