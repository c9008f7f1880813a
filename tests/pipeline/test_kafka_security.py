"""Kafka that wants a login or a certificate: a real broker, every way in, and every way to be refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.settings import load_settings
from pipeline.errors import BusUnavailable, SettingsError
from pipeline.kafka import KafkaBus, KafkaSettings
from pipeline.kafka.clients import connection
from pipeline.secret import Secret
from tests import services
from tests.certificates import Certificate, self_signed
from tests.pipeline.buses import FIRST, ONE, Peer, fill, kafka_bus, numbers, take
from tests.secure_kafka import PASSWORD, USER, SecureKafka, secure_kafka

pytestmark = pytest.mark.timeout(150)  # the first of them waits for the broker's start

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WRONG = "wrong-horse-battery"


@pytest.fixture(scope="module")
def broker() -> Iterator[SecureKafka]:
    """Give a broker that lets in only who proves itself."""
    if not services.jars_will_do():
        pytest.skip("a broker with logins and certificates runs from the official jars alone: needs Java and Maven")
    with secure_kafka() as running:
        yield running


def login(bootstrap: str, mechanism: str, password: str = PASSWORD, **more: Any) -> KafkaSettings:
    """Return settings for a client that logs in."""
    given: dict[str, Any] = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_username": USER,
        "sasl_password": Secret(password),
        **more,
    }
    return KafkaSettings(bootstrap=bootstrap, topic_prefix=f"{mechanism}.", **given)


def showing(bootstrap: str, broker: SecureKafka, own: Certificate | None, **more: Any) -> KafkaSettings:
    """Return settings for a client that shows a certificate."""
    shown = {"tls_certificate": str(own.cert), "tls_private": str(own.key)} if own else {}
    options: Any = {"security_protocol": "SSL", "tls_ca": str(broker.broker.cert), **shown, **more}
    return KafkaSettings(bootstrap=bootstrap, topic_prefix="tls.", **options)


async def used(settings: KafkaSettings) -> list[int]:
    """Use every kind of client: create topics, publish, read alone, read in a group, commit."""
    async with kafka_bus(settings) as bus:
        await fill(bus, ONE, 5)
        await bus.check()
        async with bus.reader({FIRST: 0}) as reader, bus.member("g", ["one"], Peer()) as member:
            assert numbers(await take(reader, 5)) == list(range(5))
            records = await take(member, 5)
            await member.commit({FIRST: 5})
    return numbers(records)


async def refusal(settings: KafkaSettings) -> str:
    """Return why a client is refused."""
    with pytest.raises(BusUnavailable) as error:
        async with KafkaBus(settings):
            pass
    return str(error.value)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_all_clients_log_in(broker: SecureKafka, mechanism: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each mechanism lets every kind of client work, and the password is in no line of ours."""
    caplog.set_level(logging.INFO)
    assert await used(login(broker.sasl, mechanism)) == list(range(5))
    assert PASSWORD not in caplog.text


@pytest.mark.kafka
@pytest.mark.slow
async def test_all_clients_show_their_certificate(broker: SecureKafka) -> None:
    """TLS with a certificate on both sides, and TLS with a login, let every kind of client work."""
    assert await used(showing(broker.tls, broker, broker.client)) == list(range(5))
    over_tls = login(broker.both, "SCRAM-SHA-512", security_protocol="SASL_SSL", tls_ca=str(broker.broker.cert))
    assert await used(over_tls) == list(range(5))


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_wrong_password_is_told_by_its_setting(
    broker: SecureKafka, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error names the settings to look at, and neither it nor the log repeats a password."""
    told = await refusal(login(broker.sasl, mechanism, WRONG, start_timeout_ms=1500))
    settings = f"kafka.sasl_username, kafka.sasl_password and kafka.sasl_mechanism ({mechanism})"
    assert f"refuses the login; check {settings}" in told
    assert WRONG not in told + caplog.text


@pytest.mark.kafka
@pytest.mark.slow
async def test_other_misunderstandings_are_told_by_their_setting(broker: SecureKafka, tmp_path: Path) -> None:
    """An untrusted broker, an untrusted client, and each wrong protocol name the setting that is to be looked at."""
    quick: Any = {"start_timeout_ms": 1500}
    stranger = self_signed(tmp_path, "stranger")
    untrusted = KafkaSettings(bootstrap=broker.tls, security_protocol="SSL", tls_ca=str(stranger.cert), **quick)
    told = {
        "broker": await refusal(untrusted),
        "client": await refusal(showing(broker.tls, broker, stranger, **quick)),
        "no TLS": await refusal(KafkaSettings(bootstrap=broker.tls, **quick)),
        "no login": await refusal(KafkaSettings(bootstrap=broker.sasl, **quick)),
        "TLS too much": await refusal(
            KafkaSettings(bootstrap=broker.sasl, security_protocol="SSL", tls_ca=str(stranger.cert), **quick)
        ),
    }
    assert "not trusted" in told["broker"]
    assert "kafka.tls_ca" in told["broker"]
    assert "kafka.tls_certificate" in told["client"]
    for one in ("no TLS", "no login", "TLS too much"):
        assert "kafka.security_protocol" in told[one], told[one]


# ---- what needs no broker --------------------------------------------------------------------------------------------


def test_a_password_is_never_shown() -> None:
    """The settings can be printed: what stands in a log or an error is no password."""
    settings = login("broker:9092", "PLAIN")
    assert PASSWORD not in f"{settings} {settings!r} {settings.sasl_password} {settings.sasl_password!r}"
    assert connection(settings)["sasl_plain_password"] == PASSWORD


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tls_ca": "/nowhere/ca.pem"}, r"kafka\.tls_ca.*nowhere/ca\.pem.*No such file"),
        ({"tls_ca": "{empty}"}, r"kafka\.tls_ca"),
        ({"tls_certificate": "/nowhere/c.pem", "tls_private": "{key}"}, r"kafka\.tls_certificate.*cannot read"),
        ({"tls_certificate": "{cert}", "tls_private": "/nowhere/k.pem"}, r"kafka\.tls_private.*cannot read"),
        ({"tls_certificate": "{cert}", "tls_private": "{other}"}, r"kafka\.tls_private.*is not the key of"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(options: dict[str, str], said: str, tmp_path: Path) -> None:
    """A file of a certificate that is not there, or is something else, is told by the name of its setting."""
    made, other = self_signed(tmp_path), self_signed(tmp_path, "other")
    empty = tmp_path / "empty.pem"
    empty.touch()
    paths = {"empty": empty, "cert": made.cert, "key": made.key, "other": other.key}
    given: Any = {name: value.format(**paths) for name, value in options.items()}
    with pytest.raises(SettingsError, match=said):
        connection(KafkaSettings(security_protocol="SSL", **given))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "SASL_SSL needs sasl_username and sasl_password"),
        ({"SASL_USERNAME": "me", "SASL_PASSWORD": WRONG}, "PLAINTEXT, which takes no login"),
        ({"SECURITY_PROTOCOL": "SSL", "TLS_CERTIFICATE": "x"}, "tls_certificate and tls_private go together"),
        (
            {"SASL_PASSWORD": "file:/nowhere/pw"},
            r"'kafka\.sasl_password': cannot read /nowhere/pw: No such",
        ),
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(variables: dict[str, str], said: str) -> None:
    """Half a login, and a login that would not be used, are errors of settings, which tell no password."""
    with pytest.raises(SettingsError, match=said) as error:
        load_settings({f"PENSTOCK_KAFKA_{name}": value for name, value in variables.items()})
    assert WRONG not in str(error.value)


def test_a_password_can_come_from_a_file(tmp_path: Path) -> None:
    """`file:PATH` is the first thing in that file, without the end of its line."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    loaded = load_settings({"PENSTOCK_KAFKA_SASL_PASSWORD": f"file:{path}"})
    assert loaded.settings.kafka.sasl_password.reveal() == PASSWORD
