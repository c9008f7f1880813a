"""JSON Web Tokens: which are let in, as whom, and for how long."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from jwt.utils import base64url_encode

from apps.gateway.keyfile import add
from apps.gateway.settings import TokenSettings
from apps.gateway.tenants import BadCredential
from apps.gateway.tokens import Tokens
from apps.settings import load_settings
from pipeline.errors import SettingsError
from pipeline.headers import TENANT
from pipeline.secret import Secret
from tests.apps.gateway.harness import connected, gateway
from tests.apps.gateway.test_admission import refused
from tests.apps.gateway.test_door import bearing, offering

KEY = "a secret of more than sixty-four bytes, as the longest of the hashes wants it"
OTHER = KEY[::-1]
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())


def token(key: Any = KEY, algorithm: str | None = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token of ours that holds for a minute; None takes a claim away."""
    said = {"tenant": "acme", "exp": time.time() + 60, "iss": "ours", "aud": "us", **claims}
    there = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(there, key, algorithm=algorithm, headers=headers)


def forged(secret: bytes) -> str:
    """Return a token that is signed with `secret`, which PyJWT would not do with a public key."""
    body = token().rsplit(".", 1)[0]
    return f"{body}.{base64url_encode(hmac.digest(secret, body.encode(), 'sha256')).decode()}"


def public(path: Path, key: Any = RSA) -> Path:
    """Write the public key of `key` to a file."""
    path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def key_set(path: Path, **keys: Any) -> Path:
    """Write a JWKS of the public keys by their ids."""
    made = []
    for name, key in keys.items():
        kind: Any = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        made.append({**json.loads(kind.to_jwk(key.public_key())), "kid": name, "use": "sig"})
    path.write_text(json.dumps({"keys": made}))
    return path


def tokens(**changed: Any) -> Tokens:
    """Return what checks tokens by a secret."""
    return Tokens(TokenSettings(**{"key": Secret(KEY), "leeway_s": 0.0, **changed}))


def test_a_token_says_whose_it_is_and_until_when() -> None:
    """The claim names the tenant, and the expiry is kept."""
    ends = time.time() + 60
    assert tokens(leeway_s=5.0).checked(token(exp=ends)) == ("acme", ends + 5)
    assert tokens(tenant_claim="sub").checked(token(sub="shop")).tenant == "shop"


@pytest.mark.parametrize(
    "wrong",
    [
        token(OTHER),
        token(exp=time.time() - 1),
        token(exp=None),
        token(exp="soon"),
        token(nbf=time.time() + 60),
        token(tenant=None),
        token(tenant="default"),
        token(tenant="a/b"),
        token(tenant=7),
        token(iss="others"),
        token(iss=None),
        token(aud="others"),
        token(aud=None),
        token("", "none"),
        token(KEY, "HS384"),
        "",
        "a.b.c",
        "🌍",
        "." * 1000,
    ],
)
def test_what_does_not_hold_is_refused(wrong: str) -> None:
    """A wrong signature, algorithm (`none` above all), time, issuer, audience or tenant, and what is no token."""
    strict = tokens(issuer="ours", audience="us")
    assert strict.checked(token()).tenant == "acme"
    with pytest.raises(BadCredential) as error:
        strict.checked(wrong)
    assert not wrong or wrong not in str(error.value)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
@effort(max_examples=200)
def test_anything_is_refused_by_one_error(anything: str) -> None:
    """Whatever is sent as a token is refused with the one error, parts of a real token too."""
    whole = token().split(".")
    for wrong in (anything, f"{whole[0]}.{whole[1]}.{anything}", f"{anything}.{whole[1]}.{whole[2]}"):
        with pytest.raises(BadCredential):
            tokens().checked(wrong)


def test_a_public_key_checks_what_its_private_one_signed(tmp_path: Path) -> None:
    """A PEM file of a public key is enough, and nobody can sign with it as if it were a secret."""
    path = public(tmp_path / "key.pem")
    checking = tokens(key=Secret(), key_file=path)
    assert checking.checked(token(RSA, "RS256")).tenant == "acme"
    for wrong in (token(), forged(path.read_bytes()), token(ELLIPTIC, "ES256")):
        with pytest.raises(BadCredential):
            checking.checked(wrong)


def test_a_set_of_keys_is_read_anew(tmp_path: Path) -> None:
    """The key is found by its id, and a key that is taken out of the file does not count any more."""
    path = key_set(tmp_path / "keys.json", old=RSA, new=ELLIPTIC)
    checking = tokens(key=Secret(), jwks_file=path)
    old, new = token(RSA, "RS256", {"kid": "old"}), token(ELLIPTIC, "ES256", {"kid": "new"})
    assert [checking.checked(one).tenant for one in (old, new)] == ["acme", "acme"]
    for headers in ({"kid": "no"}, {"kid": "new"}, None):
        with pytest.raises(BadCredential):
            checking.checked(token(RSA, "RS256", headers))

    key_set(path, new=ELLIPTIC)
    checking.look()
    assert checking.checked(new)
    with pytest.raises(BadCredential):
        checking.checked(old)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key": "short"}, r"'gateway\.jwt': key has fewer than 32 bytes"),
        ({"key": KEY[:63], "algorithms": "HS256,HS512"}, r"'gateway\.jwt': key has fewer than 64 bytes"),
        ({"key": KEY, "algorithms": "HS256,RS256"}, r"'gateway\.jwt': algorithms HS256, RS256 do not go with key"),
        ({"key_file": "k", "algorithms": "HS256"}, r"'gateway\.jwt': algorithms HS256 do not go with key_file"),
        ({"key": KEY, "jwks_file": "k"}, r"'gateway\.jwt': key and jwks_file exclude each other"),
        ({"key": KEY, "algorithms": "none"}, r"'gateway\.jwt\.algorithms'"),
    ],
)
def test_settings_that_would_let_forgers_in_stop_the_start(settings: dict[str, str], said: str) -> None:
    """A short secret, `none`, and algorithms of both kinds at once are errors of settings, and tell no secret."""
    with pytest.raises(SettingsError, match=said) as error:
        load_settings({f"PENSTOCK_GATEWAY_JWT_{name.upper()}": value for name, value in settings.items()})
    assert KEY not in str(error.value)


@pytest.mark.parametrize("name", ["key_file", "jwks_file"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nx\n", b'{"keys": 3}', b"[]"])
def test_a_file_that_holds_no_key_is_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    """A missing file and one that holds something else stop the start by the name of the setting."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"gateway\.jwt\.{name}"):
        tokens(key=Secret(), **{name: path})


def test_a_secret_in_a_public_set_is_refused(tmp_path: Path) -> None:
    """A set of public keys that holds a symmetric one would let its readers sign."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"}]}))
    with pytest.raises(SettingsError, match="symmetric"):
        tokens(key=Secret(), jwks_file=path)


def test_without_the_library_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyJWT is an extra: who wants tokens and has it not is told how to get it."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(SettingsError, match=r"pip install 'penstock\[jwt\]'"):
        tokens()


async def test_a_token_leads_in_and_its_end_leads_out(tmp_path: Path) -> None:
    """A token in the header or among the subprotocols lets its tenant in beside keys; its expiry closes the socket."""
    path = tmp_path / "keys.json"
    key = add(path, "shop").key
    checks = TokenSettings(key=Secret(KEY), leeway_s=0.0)
    async with gateway(keys_file=path, jwt=checks) as running, asyncio.timeout(20):
        for options in (bearing(token()), offering(token(), "realtime"), bearing(key)):
            async with connected(running, **options) as client:
                await client.ask("hi")
        for wrong in (token(OTHER), token(exp=time.time() - 1), "penstock"):
            assert (await refused(running, **bearing(wrong)))[0] == 401
        async with connected(running, **bearing(token(exp=time.time() + 1.5))) as client:
            await client.ask("hi")
            code, reason = await client.closed()

    assert (code, reason.partition(":")[0]) == (1008, "token_expired")
    assert [headers[TENANT] for headers in running.stages.headers] == ["acme", "acme", "shop", "acme"]
