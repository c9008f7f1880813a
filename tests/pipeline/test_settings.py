"""Settings come from four layers, and a wrong one stops the start and names itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from pipeline.errors import SettingsError
from pipeline.secret import NO_SECRET, Secret
from pipeline.settings import (
    Leaf,
    Loaded,
    described,
    from_environment,
    from_options,
    from_toml,
    leaves,
    load,
    shown,
)


@dataclass(frozen=True)
class Door:
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    """Where one knocks;
    two lines of it."""
    wait_s: Annotated[float, msgspec.Meta(gt=0)] = 1.5
    mode: Literal["open", "shut"] = "open"
    origins: tuple[str, ...] = ()
    tenants: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    most: int | None = None
    share: float = 0.5
    locked: bool = False
    password: Secret = NO_SECRET
    pin: Secret | None = None


@dataclass(frozen=True)
class House:
    door: Door = field(default_factory=Door)
    name: str = "home"

    def __post_init__(self) -> None:
        if self.door.locked and self.door.mode == "open":
            raise ValueError("a locked door cannot be open")


def environment(**variables: str) -> Loaded[House]:
    """Load a house from variables that are named without their prefix."""
    prefixed = {f"PENSTOCK_{key}": value for key, value in variables.items()}
    return load(House, from_environment(House, prefixed, prefix="PENSTOCK_", aliases={}))


def toml(tmp_path: Path, text: str) -> Loaded[House]:
    """Load a house from a TOML text."""
    path = tmp_path / "house.toml"
    path.write_text(text)
    return load(House, from_toml(House, path))


def leaf(name: str) -> Leaf:
    """Return the leaf with this name."""
    return leaves(House)[name]


def test_nothing_given_means_the_defaults() -> None:
    """Without any layer every setting has its default, and none has an origin."""
    assert load(House) == (House(), {})


def test_a_later_layer_wins(tmp_path: Path) -> None:
    """An option overrides the environment, which overrides the file; each setting tells where it is from."""
    path = tmp_path / "house.toml"
    path.write_text('name = "file"\n[door]\nport = 1\nwait_s = 1\n')
    loaded = load(
        House,
        from_toml(House, path),
        from_environment(House, {"P_DOOR_PORT": "2", "P_DOOR_WAIT_S": "2"}, prefix="P_", aliases={}),
        from_options(House, [("door.port", 3, "--port"), ("name", None, "--name")]),
    )
    assert (loaded.settings.name, loaded.settings.door.wait_s, loaded.settings.door.port) == ("file", 2.0, 3)
    assert loaded.origins == {
        "name": f"{path}:1",
        "door.wait_s": "the environment's P_DOOR_WAIT_S",
        "door.port": "--port",
    }


def test_a_text_becomes_a_value_of_the_settings_type() -> None:
    """Lists, tables, paths, booleans and nothing at all can be written in a variable."""
    door = environment(
        DOOR_ORIGINS="a.example, b.example",
        DOOR_TENANTS="k1=shop,k2=bank",
        DOOR_FOLDER="/tmp/x",
        DOOR_MOST="",
        DOOR_LOCKED="true",
        DOOR_MODE="shut",
    ).settings.door
    assert door == Door(
        origins=("a.example", "b.example"),
        tenants={"k1": "shop", "k2": "bank"},
        folder=Path("/tmp/x"),
        locked=True,
        mode="shut",
    )


def test_a_text_may_be_json() -> None:
    """A list or table whose items hold commas is written as JSON."""
    door = environment(DOOR_ORIGINS='["a,b"]', DOOR_TENANTS='{"k": "a,b"}').settings.door
    assert (door.origins, door.tenants) == (("a,b",), {"k": "a,b"})


def test_a_table_can_be_a_value(tmp_path: Path) -> None:
    """A TOML table below a mapping's name is that mapping."""
    assert toml(tmp_path, '[door.tenants]\nk = "shop"\n').settings.door.tenants == {"k": "shop"}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DOOR_PORT", "0", "setting 'door.port': expected int >= 1 and <= 65535, got '0'"),
        ("DOOR_PORT", "http", "setting 'door.port': expected int >= 1 and <= 65535, got 'http'"),
        ("DOOR_WAIT_S", "-1", "setting 'door.wait_s': expected float > 0, got '-1'"),
        ("DOOR_MODE", "ajar", "setting 'door.mode': expected one of open, shut, got 'ajar'"),
        ("DOOR_MOST", "-1", "setting 'door.most': expected a number >= 0, got '-1'"),
        ("DOOR_SHARE", "nan", "setting 'door.share': expected a number >= 0, got 'nan'"),
        ("DOOR_LOCKED", "maybe", "setting 'door.locked': expected bool, got 'maybe'"),
        ("DOOR_TENANTS", "shop", "setting 'door.tenants': expected name=value pairs"),
    ],
)
def test_a_wrong_value_names_itself(variable: str, value: str, said: str) -> None:
    """A value of the wrong type or out of bounds is told with its setting, its origin and what is expected."""
    with pytest.raises(SettingsError) as caught:
        environment(**{variable: value})
    assert str(caught.value).startswith(said)
    assert f"PENSTOCK_{variable}" in str(caught.value)


def test_a_wrong_value_in_a_file_names_its_line(tmp_path: Path) -> None:
    """What is wrong in a file is told with file and line; a string is no number there."""
    with pytest.raises(SettingsError, match=r"'door.port': expected int .*, got '80' \(from .*house.toml:3\)"):
        toml(tmp_path, '# ours\n[door]\nport = "80"\n')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[door]\nprot = 80\n", r"'door.prot': no such setting \(in .*house.toml:2\); did you mean 'door.port'\?"),
        ("nmae = 1\n", r"'nmae': no such setting \(in .*house.toml:1\); did you mean 'name'\?"),
        ("\n[window]\nsize = 1\n", r"'window': no such setting \(in .*house.toml:2\)"),
        ("door = [", r"'config': .*house.toml is not valid TOML"),
    ],
)
def test_a_typo_in_a_file_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    """An unknown name in a file is an error that guesses what was meant."""
    with pytest.raises(SettingsError, match=said):
        toml(tmp_path, text)


def test_a_typo_in_the_environment_stops_the_start() -> None:
    """An unknown variable with our prefix is an error that guesses what was meant."""
    with pytest.raises(SettingsError, match=r"'PENSTOCK_DOOR_PROT': .*did you mean 'PENSTOCK_DOOR_PORT'\?"):
        environment(DOOR_PROT="80")


def test_an_unknown_option_stops_the_start() -> None:
    """A name given on the command line is looked up like any other."""
    with pytest.raises(SettingsError, match=r"'door.prt': no such setting \(in --set\); did you mean 'door.port'\?"):
        from_options(House, [("door.prt", "1", "--set")])


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """A configuration file that was asked for and cannot be read is an error."""
    with pytest.raises(SettingsError, match=r"cannot read .*nowhere.toml: No such file"):
        from_toml(House, tmp_path / "nowhere.toml")


def test_settings_that_contradict_each_other_stop_the_start() -> None:
    """What a section itself refuses is told as an error of settings."""
    with pytest.raises(SettingsError, match="a locked door cannot be open"):
        environment(DOOR_LOCKED="1")


def test_a_well_known_name_gives_way_to_ours() -> None:
    """A variable without the prefix sets its setting, unless ours is there too; an empty one sets nothing."""
    aliases = {"HOUSE_NAME": "name"}
    one = load(House, from_environment(House, {"HOUSE_NAME": "a"}, prefix="P_", aliases=aliases))
    both = load(House, from_environment(House, {"HOUSE_NAME": "a", "P_NAME": "b"}, prefix="P_", aliases=aliases))
    none = load(House, from_environment(House, {"HOUSE_NAME": ""}, prefix="P_", aliases=aliases))
    assert (one.settings.name, both.settings.name, none.settings.name) == ("a", "b", "home")


def test_a_name_of_ours_may_be_no_setting() -> None:
    """Variables that the caller knows by itself are left alone."""
    assert from_environment(House, {"P_CONFIG": "x"}, prefix="P_", aliases={}, others=["P_CONFIG"]) == {}


def test_secrets_are_never_shown() -> None:
    """A secret, by its mark or its name, is hidden, and so is a password inside an address."""
    assert shown(leaf("door.pin"), "1234") == "(hidden)"
    assert shown(leaf("door.password"), "1234") == "(hidden)"
    assert shown(leaf("door.password"), "") == "(none)"
    assert shown(leaf("name"), "redis://me:pass@host") == "redis://me:(hidden)@host"


def test_a_wrong_secret_is_not_told() -> None:
    """The error about a secret that cannot be converted does not repeat it."""
    with pytest.raises(SettingsError, match=r"^setting 'door.pin': expected str \(from --pin\)$"):
        load(House, from_options(House, [("door.pin", 1234, "--pin")]))


def test_values_are_shown_as_one_would_write_them() -> None:
    """A list is shown with commas, and nothing as a word."""
    assert shown(leaf("door.origins"), ("a", "b")) == "a,b"
    assert shown(leaf("door.origins"), ()) == "(none)"
    assert shown(leaf("door.most"), None) == "(none)"


def test_a_setting_is_described_where_it_is_declared() -> None:
    """The string under a field is what is said of that setting."""
    assert described(House) == {"door.port": "Where one knocks; two lines of it."}
