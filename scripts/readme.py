"""Write the parts of README.md that are never remembered: the tree, the settings, the numbers.

Each stands between `<!-- name -->` and `<!-- /name -->`. `--check` changes nothing and fails where a part is out of date.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

README = ROOT / "README.md"
NUMBERS = ROOT / "docs" / "numbers"
LAYERS = ("pipeline", "stages", "apps")
AS_ONE = ("apps/demo", "apps/bench", "apps/cli")
"""Packages whose files are not listed one by one."""
LONGEST_NOTE = 96


def tree() -> str:
    """Every file of the three layers with the first sentence of its docstring."""
    lines = [line for layer in LAYERS for line in _folder(ROOT / layer, 0)]
    width = min(32, max(len(name) for name, _ in lines))
    return "\n".join(["```", *(f"{name:<{width}}  {note}".rstrip() for name, note in lines), "```"])


def _folder(folder: Path, depth: int) -> Iterator[tuple[str, str]]:
    yield f"{'  ' * depth}{folder.name}/", _note(folder / "__init__.py")
    if folder.relative_to(ROOT).as_posix() in AS_ONE:
        return
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{'  ' * (depth + 1)}{path.name}", _note(path)
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            yield from _folder(path, depth + 1)


def _note(path: Path) -> str:
    """The first sentence of a module's docstring, up to its first colon if it is long."""
    if not path.exists():
        return ""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    sentence = re.split(r"(?<=[.!?])\s", text)[0].rstrip(".")
    for cut in (": ", "; ", ", "):
        if len(sentence) > LONGEST_NOTE:
            sentence = sentence.partition(cut)[0]
    return sentence


def settings() -> str:
    """A table of every setting."""
    from apps.settings import PREFIX, Settings
    from pipeline.settings import described, leaves, shown, variable

    texts = described(Settings)
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name, leaf in leaves(Settings).items():
        default = shown(leaf, leaf.default)
        rows.append(f"| `{name}` | {'' if default == '(none)' else f'`{default}`'} | {texts[name]} |")
    example = variable("gateway.port", PREFIX)
    return "\n".join(
        [f"In the environment `gateway.port` is `{example}`, in TOML `port` below `[gateway]`.", "", *rows]
    )


def numbers() -> str:
    """All figures that were measured, each with the command that measures it again."""
    parts = [render(_read(path)) for name, render in RENDERED.items() if (path := NUMBERS / f"{name}.json").exists()]
    evaluation = ROOT / "apps" / "demo" / "evaluation" / "results.json"
    if evaluation.exists():
        parts.append(_evaluation(_read(evaluation)))
    return "\n\n".join(parts)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _source(result: dict[str, Any]) -> str:
    where = result["machine"]
    return f"`{result['command']}` · {where['cores']} cores of {where['cpu']}, load {where['load']} · {where['date']}"


def _overhead(result: dict[str, Any]) -> str:
    rows = [
        "| engine | bus | | n | engine alone p50 | whole pipe p50 | p95 | p99 | **added p50** |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for outcome in result["outcomes"]:
        for key, title in (("first_ms", "first token"), ("per_token_ms", "token to token")):
            alone, pipe = outcome[key]["engine_alone"], outcome[key]["whole_pipe"]
            cells = (alone["p50"], pipe["p50"], pipe["p95"], pipe["p99"])
            figures = " | ".join(f"{cell:.2f}" for cell in cells)
            added = outcome[key]["added_p50"]
            rows.append(
                f"| {outcome['engine']} | {outcome['bus']} | {title} | {pipe['n']} | {figures} | **{added:.2f}** |"
            )
    return "\n".join(["**What the pipeline adds to the engine**, in milliseconds:", "", *rows, "", _source(result)])


def _sessions(result: dict[str, Any]) -> str:
    ratio, load = result["ratio"], result["load"]
    return (
        f"**{load['sessions']} sessions at once** over one gateway, instant engine: all {result['answers']:,} answers came,"
        f" whole and in order; {result['frames_per_s']:,.0f} frames/s, {ratio['median']:.2f} of what a bare `websockets`"
        f" server sent in the same run ({ratio['least']:.2f} to {ratio['most']:.2f}); peak memory"
        f" {result['peak_mb']['after_first_round']:.0f} MB after the first round,"
        f" {result['peak_mb']['after_last_round']:.0f} MB after the last.\n\n{_source(result)}"
    )


def _evaluation(result: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in result.items() if isinstance(value, str | int | float))
    return f"**The bundled demo model**:\n\n| | |\n|---|---|\n{rows}"


RENDERED = {"overhead": _overhead, "sessions": _sessions}
PARTS = {"tree": tree, "settings": settings, "numbers": numbers}


def written(text: str) -> str:
    """`text` with every part made anew."""
    for name, part in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, found = pattern.subn(lambda match, part=part: f"{match[1]}{part()}\n{match[2]}", text)
        if found != 1:
            raise SystemExit(f"README.md must hold <!-- {name} --> once, and it does {found} times")
    return text


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a part is out of date")
    check = parser.parse_args().check
    before = README.read_text(encoding="utf-8")
    after = written(before)
    if check and before != after:
        Console(stderr=True).print("README.md is out of date: run scripts/readme.py")
        return 1
    if not check:
        README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
