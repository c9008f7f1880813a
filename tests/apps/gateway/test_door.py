"""Who is let in over a real socket where keys are wanted, as which tenant, and for how long."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import websockets
from openai import AsyncOpenAI, AuthenticationError

from apps.gateway import door
from apps.gateway.keyfile import Made, add, revoke
from apps.gateway.settings import OwnLimits, TenantLimits
from pipeline.errors import SettingsError
from pipeline.headers import TENANT
from tests.apps.gateway.harness import DEADLINE_S, Running, connected, gateway, text_of
from tests.apps.gateway.test_admission import refused
from tests.apps.gateway.test_serving import get
from tests.apps.gateway.test_sockets import silent

WITHIN_S = 5.0
"""Seconds in which a running gateway must know of a change."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file of keys."""
    return tmp_path / "keys.json"


@pytest.fixture
def acme(path: Path) -> Made:
    """Give a key of the tenant `acme`, which is in the file."""
    return add(path, "acme")


@pytest.fixture
def shop(path: Path) -> Made:
    """Give a key of another tenant."""
    return add(path, "shop")


def bearing(key: str) -> dict[str, Any]:
    """Return the options of a connection with a key in its header."""
    return {"additional_headers": {"Authorization": f"Bearer {key}"}}


def offering(key: str, first: str) -> dict[str, Any]:
    """Return the options of a connection as a browser makes it, with the key among the subprotocols."""
    return {"subprotocols": [first, f"openai-insecure-api-key.{key}"]}


async def ask(running: Running, path: str, key: str = "") -> httpx.Response:
    """Ask for a page."""
    return await get(running, path, **{"Authorization": f"Bearer {key}"} if key else {})


async def test_a_key_is_taken_as_a_header_and_as_a_subprotocol(path: Path, acme: Made, shop: Made) -> None:
    """Both ways lead in, and each turn says whose it is."""
    async with gateway(keys_file=path) as running:
        async with connected(running, **bearing(acme.key)) as client:
            assert text_of(await client.ask("hi")) == "You said: hi"
        async with connected(running, **offering(shop.key, "realtime")) as client:
            assert client.socket.subprotocol == "realtime"
            await client.ask("hi")

    assert [headers[TENANT] for headers in running.stages.headers] == ["acme", "shop"]


async def test_the_openai_sdk_brings_its_key(path: Path, acme: Made) -> None:
    """The SDK as it is gets in with a key, is told what is wrong without one, and lists the models with one."""
    async with gateway(keys_file=path) as running:
        good = AsyncOpenAI(base_url=f"{running.http}/v1", api_key=acme.key)
        bad = AsyncOpenAI(base_url=f"{running.http}/v1", api_key="sk-none", max_retries=0)
        async with good.realtime.connect(model="default") as connection:
            assert (await connection.recv()).type == "session.created"
        assert (await good.models.list()).data[0].id == "penstock-demo"
        with pytest.raises(AuthenticationError) as error:
            await bad.models.list()
        with pytest.raises(websockets.InvalidStatus) as handshake:
            async with bad.realtime.connect(model="default"):
                pass
        await good.close()
        await bad.close()

    assert error.value.code == "invalid_api_key"
    assert handshake.value.response.status_code == 401


async def test_nobody_is_told_why_not(path: Path, acme: Made, shop: Made) -> None:
    """No key, an unknown, a revoked, a mixed one and one that is no key get the same 401, before the handshake."""
    revoke(path, shop.entry.id)
    mixed = f"penstock_{acme.entry.id}_{shop.key[-43:]}"
    options: list[dict[str, Any]] = [
        {},
        bearing("nothing"),
        bearing(shop.key),
        bearing(mixed),
        {"additional_headers": {"Authorization": f"Basic {acme.key}"}},
        {"additional_headers": {"Authorization": acme.key}},
        {"subprotocols": ["realtime"]},
        offering(shop.key, "realtime"),
    ]
    async with gateway(keys_file=path) as running:
        told = [await refused(running, where, **one) for where in ("/v1/realtime", "/chat/me") for one in options]
        assert running.count("refused_total", why="invalid_api_key") == len(told)
        assert len(running.hub.seats) == 0

    assert all(one == told[0] for one in told)
    status, error = told[0]
    assert (status, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")


async def test_a_chat_of_one_tenant_is_not_anothers(path: Path, acme: Made, shop: Made) -> None:
    """The same name of a chat is another session for another tenant; a page's key needs a subprotocol beside it."""
    async with gateway(keys_file=path) as running:
        async with websockets.connect(f"{running.ws}/chat/me", **bearing(acme.key)) as socket:
            await socket.send("our secret")
            while await socket.recv() != "<END>":
                pass
        async with websockets.connect(f"{running.ws}/chat/me", **offering(shop.key, "chat")) as socket:
            assert socket.subprotocol == "chat"
            await socket.send("what did I say?")
            while await socket.recv() != "<END>":
                pass

    assert [len(turn.conversation) for turn in running.stages.turns] == [1, 1]
    assert len({turn.session for turn in running.stages.turns}) == 2


async def test_a_revoked_key_closes_its_sockets_and_no_others(path: Path, acme: Made, shop: Made) -> None:
    """Within seconds the sockets of the key are closed with a reason for programs, a busy one too; others live on."""
    spare = add(path, "acme")
    async with (
        gateway(keys_file=path, answer=silent) as running,
        connected(running, **bearing(acme.key)) as gone,
        connected(running, **bearing(acme.key)) as busy,
        connected(running, **bearing(spare.key)) as same_tenant,
        connected(running, **bearing(shop.key)) as other,
    ):
        await busy.say("hi")
        await busy.send("response.create")
        await busy.until("response.created")
        revoke(path, acme.entry.id)
        began = time.monotonic()
        closes = [await gone.closed(), await busy.closed()]
        took = time.monotonic() - began
        assert (await refused(running, **bearing(acme.key)))[0] == 401
        await other.say("still here")
        await same_tenant.say("so are we")
        await other.until("conversation.item.done")
        await same_tenant.until("conversation.item.done")

    assert {code for code, _ in closes} == {1008}
    assert all(reason.startswith("invalid_api_key: ") for _, reason in closes)
    assert took < WITHIN_S


async def test_a_new_key_is_let_in_without_a_restart(path: Path, acme: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is added while the gateway runs lets its tenant in."""
    monkeypatch.setattr(door, "LOOK_S", 0.05)
    async with gateway(keys_file=path) as running, asyncio.timeout(DEADLINE_S):
        late = add(path, "late")
        while True:
            try:
                async with connected(running, **bearing(late.key)) as client:
                    await client.ask("hi")
                    break
            except websockets.InvalidStatus:
                await asyncio.sleep(0.02)

    assert running.stages.headers[0][TENANT] == "late"


async def test_what_stays_open_and_what_does_not(path: Path, acme: Made) -> None:
    """The health checks are everybody's; the models want a key, and so do the metrics unless they are set open."""
    closed = ("/v1/models", "/v1/models/penstock-demo", "/metrics")
    async with gateway(keys_file=path) as running:
        assert [(await ask(running, page)).status_code for page in ("/livez", "/readyz")] == [200, 200]
        answers = [await ask(running, page) for page in closed]
        assert [answer.status_code for answer in answers] == [401] * 3
        assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
        assert [(await ask(running, page, acme.key)).status_code for page in closed] == [200] * 3
    async with gateway(keys_file=path, metrics_open=True) as running:
        assert [(await ask(running, page)).status_code for page in closed] == [401, 401, 200]
    async with gateway() as running:
        assert [(await ask(running, page)).status_code for page in closed] == [200] * 3


async def test_with_keys_other_machines_may_reach_it(path: Path, acme: Made) -> None:
    """An address that others reach needs no `gateway.public` where nobody comes in without a key."""
    async with gateway(keys_file=path, host="0.0.0.0") as running:
        running.host = "127.0.0.1"
        assert (await refused(running))[0] == 401


async def test_a_file_that_is_not_there_stops_the_start(path: Path) -> None:
    """A gateway whose keys cannot be read does not start, and names the setting."""
    with pytest.raises(SettingsError, match=r"gateway\.keys_file"):
        async with gateway(keys_file=path):
            pass


async def test_origins_hold_with_a_key_too(path: Path, acme: Made) -> None:
    """A page from elsewhere is refused although it has a key."""
    async with gateway(keys_file=path) as running:
        status, error = await refused(running, origin="https://evil.example", **bearing(acme.key))

    assert (status, error["code"]) == (403, "origin_not_allowed")


async def test_wrong_keys_are_counted_like_all_else(path: Path, acme: Made) -> None:
    """Who tries keys is slowed down by the rate of an address."""
    async with gateway(keys_file=path, requests_per_s=0.1, requests_burst=3) as running:
        told = [(await refused(running, **bearing("guess")))[0] for _ in range(4)]

    assert told == [401, 401, 401, 429]


async def test_no_key_is_in_the_log(path: Path, acme: Made, caplog: pytest.LogCaptureFixture) -> None:
    """A key is told by its tenant at most; what was not let in is told without what was tried."""
    caplog.set_level("DEBUG")
    async with gateway(keys_file=path) as running:
        async with connected(running, **bearing(acme.key)) as client:
            await client.ask("hi")
        await refused(running, **bearing("penstock_000000000000_" + "B" * 43))

    ours = [record.getMessage() for record in caplog.records if record.name.split(".")[0] in ("apps", "pipeline")]
    assert any("opened by acme at 127.0.0.1" in line for line in ours)
    assert any("was not let in: no such key" in line for line in ours)
    assert not any(acme.key[-43:] in line or "BBBB" in line for line in ours)


# ---- what a tenant may do ----


async def test_a_tenants_sessions_are_bounded(path: Path, acme: Made, shop: Made) -> None:
    """One session too many of a tenant is refused, a table of its own says otherwise, and others are not touched."""
    limits: Any = {"tenant": TenantLimits(sessions=1), "tenants": {"shop": OwnLimits(sessions=2)}}
    async with (
        gateway(keys_file=path, **limits) as running,
        connected(running, **bearing(acme.key)),
        connected(running, **bearing(shop.key)),
        connected(running, **bearing(shop.key)),
    ):
        told = [await refused(running, **bearing(one.key)) for one in (acme, shop)]

    assert [(status, error["code"]) for status, error in told] == [(503, "too_many_sessions")] * 2


async def test_a_tenants_turns_are_bounded(path: Path, acme: Made, shop: Made) -> None:
    """Turns in flight and turns per minute are the tenant's, over all of its sessions; another one's go on."""
    limits: Any = {"tenant": TenantLimits(turns=1), "tenants": {"shop": OwnLimits(turns=9, turns_per_minute=1)}}
    async with (
        gateway(keys_file=path, answer=silent, **limits) as running,
        connected(running, **bearing(acme.key)) as first,
        connected(running, **bearing(acme.key)) as second,
        connected(running, **bearing(shop.key)) as other,
    ):
        for client in (first, second, other):
            await client.say("hi")
        await first.send("response.create")
        await first.until("response.created")
        await second.send("response.create")
        full = (await second.until("error"))["error"]
        await other.send("response.create", response={"conversation": "none"})
        shown = await other.until("rate_limits.updated")
        await other.send("response.create")
        spent = (await other.until("error"))["error"]

    assert (full["code"], full["type"], full["retry_after"]) == ("too_many_responses", "rate_limit_error", 1.0)
    assert spent["code"] == "rate_limit_exceeded"
    assert 50 < spent["retry_after"] <= 60
    assert shown["rate_limits"][0]["scope"] == "tenant_turns"
    assert (shown["rate_limits"][0]["limit"], shown["rate_limits"][0]["remaining"]) == (1, 0)


async def test_a_tenants_events_are_bounded(path: Path, acme: Made) -> None:
    """Events beyond a tenant's rate are refused over all of its sessions."""
    limits = TenantLimits(events_per_s=0.1, events_burst=1)
    async with (
        gateway(keys_file=path, tenant=limits) as running,
        connected(running, **bearing(acme.key)) as one,
        connected(running, **bearing(acme.key)) as two,
    ):
        await one.say("hi")
        await one.until("conversation.item.done")
        await two.say("hi")
        error = (await two.until("error"))["error"]

    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
