"""The command line: there at once, and what is wrong is one line that names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from apps.cli.commands import app
from apps.cli.options import SETTINGS
from apps.settings import Settings, load_settings
from pipeline.errors import SettingsError
from pipeline.settings import leaves

DEADLINE_S = 30
HEAVY = {"torch", "transformers", "aiokafka"}
LIGHT = f"import sys, apps.cli.commands; print(*sorted({HEAVY} & set(sys.modules)))"


def penstock(
    *arguments: str, cwd: Path | None = None, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with nothing of ours in the environment but what is given."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PENSTOCK_", "KAFKA_"))}
    return subprocess.run(
        [sys.executable, "-m", "apps.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=stdin,
        env={**clean, "COLUMNS": "120", **environment},
        timeout=DEADLINE_S,
        check=False,
    )


def test_help_names_every_command() -> None:
    """`penstock --help` lists what there is."""
    said = penstock("--help")
    assert said.returncode == 0
    assert all(
        name in said.stdout for name in ("up", "gateway", "stage", "chat", "topics", "bench", "settings", "version")
    )


@pytest.mark.parametrize(
    "command",
    [["up"], ["gateway"], ["stage"], ["chat"], ["topics"], ["topics", "create"], ["bench"], ["bench", "overhead"]],
    ids=" ".join,
)
def test_every_command_explains_itself(command: list[str]) -> None:
    """Each command has a help of its own."""
    said = CliRunner().invoke(app, [*command, "--help"])
    assert said.exit_code == 0
    assert f"{' '.join(command)} [OPTIONS]" in said.output


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    """Help and version never wait for the libraries that only some commands need."""
    said = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert said.stdout.strip() == ""


def test_version_tells_what_runs_here() -> None:
    """`penstock version` names ourselves and the libraries that matter."""
    said = penstock("version")
    assert said.returncode == 0
    assert all(name in said.stdout for name in ("penstock", "python", "torch", "transformers", "aiokafka"))


def test_version_can_be_short() -> None:
    """`--short` is the number alone, for scripts."""
    assert penstock("version", "--short").stdout.count(".") == 2


def test_a_typo_in_the_environment_stops_the_start() -> None:
    """An unknown variable of ours is one line, with a guess, and status 2."""
    said = penstock("settings", PENSTOCK_GATEWAY_PROT="1")
    assert said.returncode == 2
    assert "'PENSTOCK_GATEWAY_PROT': no such setting" in said.stderr
    assert "did you mean 'PENSTOCK_GATEWAY_PORT'?" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_typo_in_the_file_here_stops_the_start(tmp_path: Path) -> None:
    """`penstock.toml` in the current folder is read, and a wrong line is named."""
    (tmp_path / "penstock.toml").write_text("[gateway]\nprot = 1\n")
    said = penstock("settings", cwd=tmp_path, PYTHONPATH=os.getcwd())
    assert said.returncode == 2
    assert "penstock.toml:2" in said.stderr


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gateway = 3", "3"),
        ('gateway = "127.0.0.1:80"', "'127.0.0.1:80'"),
        ("gateway = true", "true"),
        ("[[gateway]]\nport = 1", "a list of 1"),
        (f'gateway = "{"x" * 900}"', f"'{'x' * 58}…"),
    ],
)
def test_a_value_in_place_of_a_section_is_told(text: str, found: str, tmp_path: Path) -> None:
    """Where a table of settings belongs, anything else is named with what was expected, and the file."""
    path = tmp_path / "penstock.toml"
    path.write_text(text + "\n")
    with pytest.raises(SettingsError) as refusal:
        load_settings({}, file=path)
    expected = f"expected a table ([gateway], and its settings below it), got {found} (from {path})"
    assert (refusal.value.name, refusal.value.why) == ("gateway", expected)


def test_an_option_with_a_wrong_value_stops_the_start() -> None:
    """A value out of bounds on the command line is named with its option."""
    said = penstock("up", "--port", "99999999")
    assert said.returncode == 2
    assert "'gateway.port'" in said.stderr
    assert "--port" in said.stderr


def test_every_option_stands_for_a_setting() -> None:
    """What the commands' options are names for exists, each once."""
    assert set(SETTINGS.values()) <= set(leaves(Settings))
    assert len(set(SETTINGS.values())) == len(SETTINGS)


def test_any_setting_can_be_set_on_the_command_line() -> None:
    """`--set` takes the name of any setting; what is changed is shown with where that came from."""
    said = penstock("settings", "--changed", "--set", "gateway.max_sessions=7", KAFKA_BOOTSTRAP_SERVERS="broker:1")
    assert said.returncode == 0
    assert "gateway.max_sessions" in said.stdout
    assert "(--set gateway.max_sessions)" in said.stdout
    assert "broker:1" in said.stdout
    assert "gateway.host" not in said.stdout


def test_secrets_are_not_shown() -> None:
    """The list of settings hides passwords."""
    said = penstock("settings", "--set", "kafka.sasl_password=hunter2")
    assert said.returncode == 0
    assert "hunter2" not in said.stdout


def test_a_gateway_is_told_the_stages_model() -> None:
    """A gateway beside stages with a model of their own takes the same option."""
    said = penstock("gateway", "--model", "some/model", "--set", "gateway.port=none")
    assert said.returncode == 2
    assert "gateway.port" in said.stderr


def test_other_machines_are_let_in_on_demand_alone() -> None:
    """An address that others reach stops the start, and names what allows it."""
    said = penstock("up", "--host", "0.0.0.0", "--model", "instant")
    assert said.returncode == 2
    assert "gateway.public" in said.stderr


def test_an_unknown_stage_is_named() -> None:
    """A stage that does not exist stops the start and the others are told."""
    said = penstock("stage", "txt")
    assert said.returncode == 2
    assert "no stage 'txt'; there are text, llm, postprocess" in said.stderr


def test_stages_that_do_not_follow_each_other_cannot_be_chained() -> None:
    """Stages in one process stand in the order of the route."""
    said = penstock("stage", "llm", "text")
    assert said.returncode == 2
    assert "the order is text llm postprocess" in said.stderr


def test_where_an_error_arose_is_shown_on_demand() -> None:
    """`--debug` brings the traceback."""
    assert "Traceback" in penstock("--debug", "settings", "--set", "x").stderr


def test_a_chat_without_a_gateway_says_so(unused_port: int) -> None:
    """Where nobody listens the chat says where it looked and how to start one."""
    said = penstock("chat", "--url", f"ws://127.0.0.1:{unused_port}", "--once", "Hello")
    assert said.returncode == 1
    assert f"no gateway answers at ws://127.0.0.1:{unused_port}" in said.stderr
    assert "penstock up" in said.stderr
