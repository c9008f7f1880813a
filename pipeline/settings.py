"""One frozen tree of dataclasses, filled from layers: the defaults, a TOML file, the environment, options.

A setting is a leaf of the tree, named by its path (`gateway.port`). Whatever is unknown or cannot be converted stops
the loading and names itself and where it came from. Knows no setting by name, and reads nothing at import.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from pipeline.errors import SettingsError
from pipeline.secret import Secret

T = TypeVar("T")

_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/@\s]*):([^/@\s]*)@")


class Leaf(NamedTuple):
    """A setting: its path, its type with bounds, and its default (`MISSING` where it must be given)."""

    name: str
    kind: Any
    default: Any
    secret: bool


class Given(NamedTuple):
    """A value and where it came from. `text`: it is a string that stands for a value of the setting's type."""

    value: Any
    origin: str
    text: bool = False


Layer = Mapping[str, Given]


class Loaded(NamedTuple, Generic[T]):
    """The settings, and for each that is not at its default where it came from."""

    settings: T
    origins: Mapping[str, str]


def load(kind: type[T], *layers: Layer) -> Loaded[T]:
    """Build `kind`; a later layer overrides an earlier one.

    Raises:
        SettingsError: a value cannot be converted, is out of bounds, or does not fit the others.
    """
    given: dict[str, Given] = {}
    for layer in layers:
        given.update(layer)
    known = leaves(kind)
    values = {name: _converted(known[name], one) for name, one in given.items()}
    return Loaded(_built(kind, "", values), {name: one.origin for name, one in given.items()})


def from_toml(kind: type[Any], path: Path) -> Layer:
    """What the file at `path` sets.

    Raises:
        SettingsError: it cannot be read, is no TOML, or sets what does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except OSError as error:
        raise SettingsError("config", f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("config", f"{path} is not valid TOML: {error}") from error
    layer: dict[str, Given] = {}
    known = leaves(kind)
    for name, value in _flat(tree, known, ""):
        origin = f"{path}:{_line(text, name)}"
        layer[_checked(name, known, origin)] = Given(value, origin)
    return layer


def from_environment(
    kind: type[Any], environ: Mapping[str, str], *, prefix: str, aliases: Mapping[str, str], others: Iterable[str] = ()
) -> Layer:
    """What the environment sets: `gateway.port` is `<prefix>GATEWAY_PORT`.

    `aliases` are well-known names of settings without the prefix, `others` names with it that are no settings.

    Raises:
        SettingsError: a variable with the prefix is none of ours.
    """
    names = {variable(name, prefix): name for name in leaves(kind)}
    layer = {
        name: Given(environ[alias], f"the environment's {alias}", True)
        for alias, name in aliases.items()
        if environ.get(alias)
    }
    for key, value in environ.items():
        if not key.startswith(prefix) or key in others:
            continue
        if key not in names:
            raise SettingsError(key, f"no such setting in the environment{_meant(key, names)}")
        layer[names[key]] = Given(value, f"the environment's {key}", True)
    return layer


def from_options(kind: type[Any], options: Iterable[tuple[str, Any, str]]) -> Layer:
    """What (name, value, flag) triples set; a value that is None sets nothing.

    Raises:
        SettingsError: there is no such setting.
    """
    known = leaves(kind)
    return {
        _checked(name, known, flag): Given(value, flag, isinstance(value, str))
        for name, value, flag in options
        if value is not None
    }


def variable(name: str, prefix: str) -> str:
    """The environment's name for a setting."""
    return prefix + name.replace(".", "_").upper()


def leaves(kind: type[Any], path: str = "") -> dict[str, Leaf]:
    """All settings below `kind`, by name, in the order of their fields."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found: dict[str, Leaf] = {}
    for field in dataclasses.fields(kind):
        name, hint = path + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= leaves(typing.cast("type[Any]", hint), name + ".")
        else:
            found[name] = Leaf(name, hint, _default(field), hint is Secret or Secret in typing.get_args(hint))
    return found


def described(kind: type[Any], path: str = "") -> dict[str, str]:
    """What is said of each setting below `kind`: the string that stands under its field in the source."""
    hints = typing.get_type_hints(kind)
    body = typing.cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    texts: dict[str, str] = {}
    for here, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(here, ast.AnnAssign) or not isinstance(here.target, ast.Name):
            continue
        name = here.target.id
        if dataclasses.is_dataclass(hints[name]):
            texts |= described(hints[name], f"{path}{name}.")
        elif isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            texts[path + name] = " ".join(str(below.value.value).split())
    return texts


def shown(leaf: Leaf, value: object) -> str:
    """`value` for people to read: a secret is hidden, and so is a password inside an address."""
    if leaf.secret:
        return Secret.shown if value else "(none)"
    if isinstance(value, tuple | list | frozenset | set):
        return ",".join(str(item) for item in value) or "(none)"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={one}" for key, one in value.items()) or "(none)"
    return "(none)" if value is None or value == "" else _PASSWORD_IN_URL.sub(r"\1:(hidden)@", str(value))


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _built(kind: type[T], path: str, values: Mapping[str, Any]) -> T:
    """`kind` with its sections built first; what a `__post_init__` refuses names the section."""
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast("Any", kind)):
        name = path + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _built(hints[field.name], name + ".", values)
        elif name in values:
            arguments[field.name] = values[name]
        elif _default(field) is dataclasses.MISSING:
            raise SettingsError(name, "must be given")
    try:
        return kind(**arguments)
    except ValueError as error:
        raise SettingsError(path.rstrip("."), str(error)) from error


def _converted(leaf: Leaf, given: Given) -> Any:
    try:
        value = _parsed(given.value, leaf.kind) if given.text else given.value
        return _bounded(msgspec.convert(value, leaf.kind, strict=not given.text, dec_hook=_made), leaf.kind)
    except (ValueError, msgspec.DecodeError) as error:
        why = _expected(leaf.kind) or re.sub(r"(?<=`), got `\w+`| - at `\$.*?`$", "", str(error)).replace("`", "")
        got = "" if leaf.secret else f", got {shown(leaf, given.value)!r}"
        raise SettingsError(leaf.name, f"{why[:1].lower()}{why[1:]}{got} (from {given.origin})") from None


def _bounded(value: Any, kind: Any) -> Any:
    """`value`, unless it is a number below zero (or none at all) of a setting that names no bounds of its own."""
    if isinstance(value, int | float) and typing.get_origin(kind) is not Annotated and not 0 <= value < math.inf:
        raise ValueError("expected a number >= 0")
    return value


def _expected(kind: Any) -> str:
    """What can be said of `kind` better than the converter says it: all choices, both bounds."""
    if typing.get_origin(kind) is Literal:
        return f"expected one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is not Annotated:
        return ""
    base, *marks = typing.get_args(kind)
    bounds = [
        f"{sign} {bound:g}"
        for mark in marks
        for sign, bound in ((">=", mark.ge), (">", mark.gt), ("<=", mark.le), ("<", mark.lt))
        if bound is not None
    ]
    return f"expected {getattr(base, '__name__', base)} {' and '.join(bounds)}" if bounds else ""


def _made(kind: type[Any], value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if kind is Secret and isinstance(value, str):
        return Secret.given(value)
    raise ValueError("expected str" if kind is Secret else f"expected {kind.__name__}")


def _parsed(text: str, kind: Any) -> Any:
    """The value that `text` stands for, as far as msgspec does not see it by itself: lists, tables and nothing."""
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        some = [one for one in typing.get_args(kind) if one is not types.NoneType]
        return None if not text else _parsed(text, some[0])
    if text[:1] in ("[", "{") and kind is not str:
        return msgspec.json.decode(text)
    shape = typing.get_origin(kind) or kind
    if shape in (tuple, list, set, frozenset):
        return [item.strip() for item in text.split(",") if item.strip()]
    if isinstance(shape, type) and issubclass(shape, Mapping):
        return dict(_pair(item) for item in text.split(",") if item.strip())
    return text


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise ValueError("expected name=value pairs with commas between them")
    return key.strip(), value.strip()


def _flat(tree: Mapping[str, Any], known: Mapping[str, Leaf], path: str) -> Iterable[tuple[str, Any]]:
    """(name, value) of all in `tree`; a table is gone into unless it is the value of a setting."""
    for key, value in tree.items():
        name = path + key
        if isinstance(value, dict) and any(one.startswith(name + ".") for one in known):
            yield from _flat(value, known, name + ".")
        else:
            yield name, value


def _line(text: str, name: str) -> int:
    """The line of a TOML text on which `name` is set; the first where that cannot be told."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = header[1].strip() + "."
        key = line.partition("=")[0].strip().strip('"')
        if name in (table + key, table.rstrip(".")) or table.startswith(name + "."):
            return number
    return 1


def _checked(name: str, known: Mapping[str, Leaf], origin: str) -> str:
    if name not in known:
        raise SettingsError(name, f"no such setting (in {origin}){_meant(name, known)}")
    return name


def _meant(name: str, known: Iterable[str]) -> str:
    """A guess at what was meant, or where the names stand."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else "; `penstock settings` lists them all"
