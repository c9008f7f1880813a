"""Redis with a login and over TLS: a real one, and every way to be refused."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.exceptions import RedisError

from apps.settings import load_settings
from pipeline.errors import SettingsError
from pipeline.redis.client import client, why_not
from pipeline.redis.settings import RedisSettings
from pipeline.secret import Secret
from tests import services
from tests.certificates import Certificate, self_signed
from tests.servers import HOST, Program, unused_port

USER, PASSWORD, WRONG = "penstock", "correct-horse", "wrong-horse"


class Guarded(NamedTuple):
    """A Redis that wants a login, its plain address, the one over TLS, and its certificate."""

    plain: str
    tls: str
    certificate: Certificate


@pytest.fixture(scope="module")
def store() -> Iterator[Guarded]:
    """Give a Redis that lets in one user, plainly and over TLS."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("a Redis with a login and TLS runs from the program alone: needs redis-server")
    folder, port, tls = Path(tempfile.mkdtemp(prefix="penstock-redis-")), unused_port(), unused_port()
    made = self_signed(folder)
    (folder / "users.acl").write_text(f"user default on nopass ~* &* +ping\nuser {USER} on >{PASSWORD} ~* &* +@all\n")
    options = {
        "bind": HOST,
        "port": port,
        "tls-port": tls,
        "tls-cert-file": made.cert,
        "tls-key-file": made.key,
        "tls-auth-clients": "no",
        "dir": folder,
        "save": "",
        "aclfile": folder / "users.acl",
    }
    argv = [found, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    service = services.RedisService(Program(argv, folder), f"redis://{HOST}:{port}/0")
    with services.running(service):
        yield Guarded(f"redis://{HOST}:{port}/0", f"rediss://{HOST}:{tls}/0", made)


async def asked(settings: RedisSettings) -> str:
    """Write and read one value, or say what keeps us from it."""
    async with client(settings) as redis:
        try:
            await redis.set("penstock:test", "there")
            found = await redis.get("penstock:test")
            return found.decode() if isinstance(found, bytes) else str(found)
        except RedisError as error:
            return why_not(error, settings)


def logging_in(url: str, password: str = PASSWORD, **more: Any) -> RedisSettings:
    """Return settings with the one user's login."""
    return RedisSettings(url=url, username=USER, password=Secret(password), **more)


@pytest.mark.redis
async def test_a_login_and_tls_lead_in(store: Guarded) -> None:
    """The user is let in plainly and over TLS, and nobody is without a login."""
    assert await asked(logging_in(store.plain)) == "there"
    assert await asked(logging_in(store.tls, tls_ca=store.certificate.cert)) == "there"
    for settings in (RedisSettings(url=store.plain), logging_in(store.plain, WRONG)):
        told = await asked(settings)
        assert "check redis.username and redis.password" in told
        assert WRONG not in told


@pytest.mark.redis
async def test_a_redis_that_is_not_trusted_is_told(store: Guarded, unused_port: int) -> None:
    """A certificate that nobody vouches for names the setting; one that is not there, its address."""
    assert "check redis.tls_ca" in await asked(logging_in(store.tls))
    nowhere = f"redis://{HOST}:{unused_port}/0"
    assert f"Redis at {nowhere} cannot be reached" in await asked(logging_in(nowhere))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"URL": "http://x"}, "url is redis://host:port/number"),
        ({"URL": f"redis://me:{WRONG}@host"}, "url holds a login"),
        ({"URL": "redis://host", "TLS_CA": "/x"}, "certificates need a url that begins with rediss://"),
        ({"TLS_CERTIFICATE": "/x"}, "tls_certificate and tls_private go together"),
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(variables: dict[str, str], said: str) -> None:
    """What is wrong is told by its setting, and no password is."""
    with pytest.raises(SettingsError, match=said) as error:
        load_settings({f"PENSTOCK_REDIS_{name}": value for name, value in variables.items()})
    assert WRONG not in str(error.value)


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A certificate that is not there, or not its key's, is told by the name of its setting."""
    made, other = self_signed(tmp_path), self_signed(tmp_path, "other")
    with pytest.raises(SettingsError, match=r"redis\.tls_ca.*nowhere"):
        _ = client(logging_in("rediss://host", tls_ca=Path("/nowhere")))
    with pytest.raises(SettingsError, match=r"redis\.tls_private.*other\.key"):
        _ = client(logging_in("rediss://host", tls_certificate=made.cert, tls_private=other.key))
