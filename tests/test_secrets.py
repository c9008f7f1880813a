"""What must stay where it is: nothing is unpickled, no secret is printed, and no log tells what users said."""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import websockets

from apps.gateway.keyfile import add
from apps.settings import Settings, load_settings
from pipeline.kafka import KafkaSettings, create_topics
from pipeline.secret import Secret
from pipeline.settings import leaves, shown
from pipeline.topics import ROUTE
from tests.apps.processes import Penstock, started
from tests.apps.test_cli import penstock
from tests.apps.test_takeover import Deployment
from tests.servers import unused_port
from tests.services import KafkaService

ROOT = Path(__file__).resolve().parent.parent
TREES = ("pipeline", "stages", "apps", "scripts", "tests")
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
OURS = "tests/test_secrets.py"
HARMLESS = {OURS: {"pickle"}}
"""This file tries that a secret cannot be pickled."""

VALUE = "hunter2-hunter2-hunter2-hunter2-hunter2"
MARKER = "xylophonquark"
DEADLINE_S = 60.0


def sources() -> Iterator[tuple[str, list[ast.AST]]]:
    """Give every Python file of the tree, parsed: all its nodes."""
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(nodes: list[ast.AST]) -> set[str]:
    """Return the top-level packages that a file imports, inside of functions too."""
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def called(nodes: list[ast.AST], module: str, name: str) -> Iterator[dict[str, Any]]:
    """Give the keyword arguments of each call of `module.name`, those that are constants."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=attribute)):
                if (owner, attribute) == (module, name):
                    yield {one.arg or "": getattr(one.value, "value", None) for one in node.keywords}


# ---- no pickle -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_unpickled() -> None:
    """No file imports what makes objects of bytes, and weights are loaded as nothing but weights."""
    for path, nodes in sources():
        assert imported(nodes) & UNSAFE <= HARMLESS.get(path, set()), path
        assert all(call.get("weights_only") is True for call in called(nodes, "torch", "load")), path
        assert not any(call.get("allow_pickle") for call in called(nodes, "np", "load")), path
        assert not list(called(nodes, "yaml", "load")), path
        loaded = called(nodes, "AutoModelForCausalLM", "from_pretrained")
        assert not any(call.get("trust_remote_code") for call in loaded), path


# ---- secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_shows_itself_nowhere() -> None:
    """Neither printed nor formatted nor in an error is a secret told, and it is not copied into what is kept."""
    secret = Secret(VALUE)
    assert VALUE not in f"{secret} {secret!r} {[secret]} {KafkaSettings(sasl_password=secret)}"
    assert (secret.reveal(), bool(secret), bool(Secret())) == (VALUE, True, False)
    assert secret == Secret(VALUE)
    assert secret != Secret("other")
    assert secret != VALUE
    with pytest.raises(TypeError) as error:
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(AttributeError):
        secret._value = ""
    assert VALUE not in str(error.value)


def test_whatever_sounds_secret_is_one() -> None:
    """A setting whose name speaks of a password, a key or a secret is hidden, or is the path of a file."""
    for name, leaf in leaves(Settings).items():
        sounds = name.rpartition(".")[2].endswith(("password", "passphrase", "secret", "key", "token"))
        assert leaf.secret or not sounds or "Path" in str(leaf.kind), name


def test_every_secret_stays_hidden_wherever_it_comes_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file, the environment or an option: neither the settings, nor their list, nor a log shows a secret."""
    monkeypatch.chdir(tmp_path)
    secrets = [name for name, leaf in leaves(Settings).items() if leaf.secret]
    path = tmp_path / "penstock.toml"
    lines = [f"{name} = '{VALUE}'" for name in secrets]  # dotted names, so that no table is opened twice
    path.write_text("\n".join(lines))
    from_environment = {f"PENSTOCK_{name.replace('.', '_').upper()}": VALUE for name in secrets}
    for loaded in (
        load_settings({}, file=path),
        load_settings(from_environment),
        load_settings({}, options=[(name, VALUE, "--set") for name in secrets]),
    ):
        logging.getLogger("test").error("%s %r", loaded.settings, loaded)
        for name, leaf in leaves(Settings).items():
            value: Any = loaded.settings
            for part in name.split("."):
                value = getattr(value, part)
            assert VALUE not in shown(leaf, value)
            assert not leaf.secret or value.reveal() == VALUE
    assert len(secrets) > 4
    assert VALUE not in caplog.text


def test_the_list_of_settings_shows_no_secret(tmp_path: Path) -> None:
    """`penstock settings` says that a password is set, and not which, also not beside a wrong one."""
    there = {"PENSTOCK_KAFKA_SASL_PASSWORD": VALUE, "PENSTOCK_CHAT_KEY": VALUE, "PENSTOCK_GATEWAY_JWT_KEY": VALUE}
    listed = penstock("settings", "--changed", cwd=tmp_path, **there)
    wrong = penstock("settings", cwd=tmp_path, **there, PENSTOCK_KAFKA_SASL_MECHANISM="ROT13")
    assert listed.stdout.count("(hidden)") == 3
    assert wrong.returncode == 2
    assert VALUE not in listed.stdout + listed.stderr + wrong.stdout + wrong.stderr


# ---- logs ------------------------------------------------------------------------------------------------------------


async def talk(url: str, key: str) -> None:
    """Say the marker in every way: spoken, in instructions, in what is refused, in what is no event at all."""
    headers = {"Authorization": f"Bearer {key}"}
    async with asyncio.timeout(DEADLINE_S), websockets.connect(f"{url}/v1/realtime", additional_headers=headers) as one:
        said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"{MARKER}?"}]}
        events: list[dict[str, Any]] = [
            {"type": "session.update", "session": {"type": "realtime", "instructions": MARKER}},
            {"type": "session.update", "session": {"type": "realtime", "temperature": MARKER}},
            {"type": "conversation.item.create", "item": said},
            {"type": "conversation.item.create", "item": {**said, "role": MARKER}},
            {"type": MARKER},
            {"type": "response.create", "response": {"metadata": {"note": MARKER}}},
        ]
        await one.send(f"{MARKER} is no JSON")
        await one.send(MARKER.encode())
        for event in events:
            await one.send(json.dumps(event))
        while '"response.done"' not in str(await one.recv()):
            pass
        await one.close(1000, MARKER)
    async with asyncio.timeout(DEADLINE_S), websockets.connect(f"{url}/chat/me", additional_headers=headers) as chat:
        await chat.send(MARKER)
        while await chat.recv() != "<END>":
            pass
    for wrong in (f"{MARKER}-{MARKER}", f"penstock_{'0' * 12}_{MARKER:_<43}"):
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(
                f"{url}/v1/realtime?model={MARKER}", additional_headers={"Authorization": f"Bearer {wrong}"}
            ):
                pass


def harmless(processes: list[Penstock], key: str) -> None:
    """Assert that no log tells what was said, or a key."""
    for process in processes:
        assert process.log
        assert MARKER not in process.log, process.name
        assert key[-43:] not in process.log, process.name


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("level", ["info", "debug"])
async def test_one_process_logs_nothing_that_was_said(level: str, tmp_path: Path) -> None:
    """A chat in one process leaves nothing of it in the log, nor of a key; not even where everything is logged."""
    path, port = tmp_path / "keys.json", unused_port()
    key = add(path, "acme").key
    environment = {"PENSTOCK_GATEWAY_KEYS_FILE": str(path), "PENSTOCK_MODEL_NAME": "instant"}
    arguments = ["up", "--port", str(port), "--log-level", level]
    with started(*arguments, folder=tmp_path, port=port, environment=environment) as process:
        await process.ready()
        await talk(process.url, key)
        process.stop()
        harmless([process], key)


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_no_process_of_a_deployment_logs_what_was_said(kafka: KafkaService, tmp_path: Path) -> None:
    """The same over Kafka: the gateway and every stage, each a process."""
    path, prefix = tmp_path / "keys.json", f"quiet-{unused_port()}-"
    key = add(path, "acme").key
    await create_topics(KafkaSettings(bootstrap=kafka.bootstrap, topic_prefix=prefix), ROUTE, partitions=2)
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "PENSTOCK_KAFKA_TOPIC_PREFIX": prefix,
        "PENSTOCK_GATEWAY_KEYS_FILE": str(path),
        "PENSTOCK_MODEL_NAME": "instant",
    }
    with ExitStack() as stack:
        deployment = Deployment(stack, tmp_path, environment)
        await deployment.ready(workers=1)
        await talk(deployment.gateway.url, key)
        processes = [deployment.gateway, *deployment.others, *deployment.workers]
        for process in processes:
            process.stop()
        harmless(processes, key)
