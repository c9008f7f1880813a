"""Write what is never remembered: the README's tree, settings and numbers, and penstock.example.toml.

In the README, each stands between `<!-- name -->` and `<!-- /name -->`. `--check` changes nothing, and fails where one
is out of date.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.readme_voice import voice  # noqa: E402 - the path is set for it

README = ROOT / "README.md"
EXAMPLE = ROOT / "penstock.example.toml"
NUMBERS = ROOT / "docs" / "numbers"
LAYERS = ("pipeline", "stages", "apps")
AS_ONE = ("apps/demo", "apps/bench", "apps/cli")
"""Packages whose files are not listed one by one."""
LONGEST_NOTE = 96
PIECES = 5


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


def example() -> str:
    """A settings file with everything in it, at its default and commented out."""
    from apps.settings import Settings
    from pipeline.settings import described, leaves

    texts = described(Settings)
    lines = ["# Every setting, at its default. Written by scripts/readme.py."]
    section = ""
    for name, leaf in leaves(Settings).items():
        above, _, key = name.rpartition(".")
        if above != section:
            section = above
            lines += ["", f"[{section}]"]
        value = "..." if leaf.secret else toml(leaf.default)
        lines += [*textwrap.wrap(texts[name], 110, initial_indent="# ", subsequent_indent="# "), f"# {key} = {value}"]
    return "\n".join(lines) + "\n"


def toml(value: object) -> str:
    """A default as TOML; what is not set has no value to show."""
    if isinstance(value, bool | int | float | str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return json.dumps(list(value))
    return "{}" if isinstance(value, Mapping) else '""'


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


def _startup(result: dict[str, Any]) -> str:
    took = result["first_token_s"]
    return (
        f"**From `penstock up` to the first token of the first chat**: {took['p50']:.1f} s (median of {took['n']}, the "
        f"slowest {took['max']:.1f} s).\n\n{_source(result)}"
    )


def _sessions(result: dict[str, Any]) -> str:
    ratio, load, memory = result["ratio"], result["load"], result["resident_mb"]
    return (
        f"**{load['sessions']} sessions at once** over one gateway, instant engine: all {result['answers']:,} answers "
        f"came, whole and in order; {result['frames_per_s']:,.0f} frames/s, {ratio['median']:.2f} of what a bare "
        f"`websockets` server sent in the same run ({ratio['least']:.2f} to {ratio['most']:.2f}); resident memory "
        f"{memory[0]:.0f} MB after the first round, {memory[-1]:.0f} MB after the last.\n\n{_source(result)}"
    )


def _bus(result: dict[str, Any]) -> str:
    ours, *others = list(result["throughput"][0]["rounds"])
    head = ["handler", "keys", f"{ours}, messages/s", *(f"{ours} / {name}" for name in others)]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for one in result["throughput"]:
        handler = f"awaits {one['wait_ms']:g} ms" if one["wait_ms"] else "trivial"
        rate = f"{median(one['rounds'][ours]):,.0f}"
        ratios = [
            f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})" for ratio in one["ratio"].values()
        ]
        rows.append(f"| {' | '.join([handler, str(one['keys']), rate, *ratios])} |")
    title = (
        f"**One stage between two Kafka topics**, {result['plan']['rounds']} alternating rounds, medians (least–most):"
    )
    return "\n".join([title, "", *rows, "", _source(result)])


def _chaos(result: dict[str, Any]) -> str:
    (title, gaps), *_ = result["seconds_by"].items()
    rows = ["| fault | times | answers | p50 | p95 | max |", "|---|---|---|---|---|---|"]
    for kind, gap in gaps.items():
        figures = " | ".join(f"{gap[name]:.2f}" for name in ("p50", "p95", "max"))
        rows.append(f"| {kind} | {result['faults'].get(kind, '')} | {gap['n']} | {figures} |")
    once = result["terminal_events"].get("1", 0)
    lost = sum(result[name] for name in ("characters_lost", "tokens_lost"))
    text = (
        f"**What faults cost**, {result['seconds'] / 60:.0f} minutes of them on a real Kafka: of {result['turns']:,} "
        f"turns {once:,} ended exactly once; {lost} tokens or characters lost, {result['characters_repeated']} "
        f"repeated; {result['equal']:,} of {result['compared']:,} answers are those of the undisturbed run; clients "
        f"came back {result['reconnects']} times. {title}, in seconds:"
    )
    return "\n".join([text, "", *rows, "", _source(result)])


def _llm(result: dict[str, Any]) -> str:
    plan = result["plan"]
    title = (
        f"**The engine beside what one would use instead**, same weights in {plan['dtype']}, greedy, {plan['tokens']} "
        f"tokens an answer, {plan['rounds']} alternating rounds; tokens/s over all streams (how many times as fast "
        f"`penstock` without speculation is):"
    )
    parts = [title, *(_engines(pair) for pair in result["pairs"])]
    if (NUMBERS / "llm.svg").exists():
        parts.append("![tokens a second over streams](docs/numbers/llm.svg)")
    return "\n\n".join([*parts, _source(result)])


def _engines(pair: dict[str, Any]) -> str:
    """A table of all at every number of streams, then the aims."""
    widths = pair["widths"]
    head = [f"{pair['pair']}", *(f"{width['streams']} stream{'s' * (width['streams'] > 1)}" for width in widths)]
    rows = [f"| {' | '.join([*head, 'first token p50, 1 stream', 'right'])} |", f"|{'---|' * (len(head) + 2)}"]
    for name, alone in widths[0]["contestants"].items():
        cells = [_rate(width["contestants"][name]) for width in widths]
        right = "" if alone["acceptance"] is None else f"{alone['acceptance']:.0%}"
        first = f"{alone['first']['p50']:.1f} ms"
        rows.append(f"| {' | '.join([name, *cells, first, right])} |")
    aims = [
        f"{aim['ours']} over {aim['other']} at {aim['streams']}: {aim['ratio']['median']:.2f} "
        f"({aim['ratio']['least']:.2f}–{aim['ratio']['most']:.2f}; aim {aim['least']:g})"
        for aim in pair["aims"]
    ]
    threads = f"{pair['threads']} thread{'s' * (pair['threads'] > 1)}"
    return "\n".join([f"{pair['note']}; {threads}", "", *rows, "", f"Aims: {'; '.join(aims)}."])


def _rate(one: dict[str, Any]) -> str:
    rate = f"{one['tokens_per_s']['median']:,.0f}"
    over = one["ours_over_it"]
    return rate if over is None else f"{rate} ({over['median']:.2f})"


def _voice(result: dict[str, Any]) -> str:
    return f"{voice(result, plotted=(NUMBERS / 'voice.svg').exists())}\n\n{_source(result)}"


def _evaluation(result: dict[str, Any]) -> str:
    trained, free = result["target"], result["free"]
    right = ", ".join(f"{kind} {share} %" for kind, share in result["right_percent"].items())
    text = (
        f"**The bundled demo model**: {trained['parameters']:,} parameters, trained on {trained['tokens'] / 1e6:.1f} M "
        f"tokens in {trained['seconds'] / 60:.0f} minutes on {trained['device']}. Right letter for letter, of "
        f"{result['turns']} held-out turns: {right}. Of {free['of']} questions that were typed freely, a person "
        f"accepted the answers to {free['accepted']}."
    )
    if speculation := result.get("draft", {}).get("speculation"):
        figures = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in speculation.items())
        text += f" Its draft ({result['draft']['parameters']:,} parameters): {figures}."
    return f"{text}\n\n`python -m apps.demo.evaluate`"


RENDERED = {
    "startup": _startup,
    "overhead": _overhead,
    "llm": _llm,
    "voice": _voice,
    "sessions": _sessions,
    "bus": _bus,
    "chaos": _chaos,
}
PARTS = {"tree": tree, "settings": settings, "numbers": numbers}


def written(text: str) -> str:
    """`text` with every part made anew."""
    for name, part in PARTS.items():
        pieces = re.split(rf"(<!-- /?{name} -->\n)", text)
        if len(pieces) != PIECES:
            raise SystemExit(
                f"README.md must hold <!-- {name} --> and <!-- /{name} --> once, each on a line of its own"
            )
        pieces[2] = f"{part()}\n"
        text = "".join(pieces)
    return text


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a part is out of date")
    check = parser.parse_args().check
    stale = 0
    for path, wanted in ((README, written(README.read_text(encoding="utf-8"))), (EXAMPLE, example())):
        if path.exists() and path.read_text(encoding="utf-8") == wanted:
            continue
        if check:
            Console(stderr=True).print(f"{path.name} is out of date: run scripts/readme.py")
            stale = 1
        else:
            path.write_text(wanted, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
