"""What the README says of the voice bench's figures."""

from __future__ import annotations

from typing import Any

COLUMNS = (
    *("", "WER", "n", "first partial p50", "p95", "words", "partial lag p50", "p95"),
    *("n", "finalisation p50", "p95", "retracted"),
)
WHAT = {"final": "the final transcript after the silence", "audio": "the first audio after the end of the speech"}


def voice(result: dict[str, Any], *, plotted: bool) -> str:
    """The figures of docs/numbers/voice.json, without the command that made them."""
    whole, silence = result["whole_file"], result["silence_ms"]
    title = (
        f"**Speech in real time**, {result['model']}, {result['spoken']}; on whole files faster-whisper has a word "
        f"error rate of {whole['wer']:.1%} over {whole['words']:,} words. In milliseconds: the first partial from the "
        f"beginning of the speech, partial lag from a word's end to its standing there for good, finalisation from the "
        f"end of the speech (`penstock` waits for {silence} ms of silence; for push-to-talk and the re-transcribing "
        f"loop the client says where the speech ends; of whisperlivekit the last change counts). "
        f"*Unaware*: computation-unaware, computing takes no time; all others are computation-aware. *Retracted*: "
        f"words that were shown and did not stay."
    )
    rows = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    rows += [_row(name, one) for name, one in result["listening"].items()]
    parts = [title, "\n".join(rows), *_exchanges(result), *_curve(result, plotted=plotted), _aims(result)]
    return "\n\n".join([*parts, *result["missing"]])


def _row(name: str, one: dict[str, Any]) -> str:
    times = [cell for part in ("first", "lag", "final") for cell in _cells(one[part])]
    cells = [name, f"{one['rate']['wer']:.1%}", *times, f"{one['back']:.1%}"]
    return f"| {' | '.join(cells)} |"


def _cells(spread: dict[str, Any] | None) -> list[str]:
    return ["", "", ""] if spread is None else [f"{spread['n']}", f"{spread['p50']:.0f}", f"{spread['p95']:.0f}"]


def _exchanges(result: dict[str, Any]) -> list[str]:
    found = result["exchanges"]
    if found is None:
        return []
    steps = ", ".join(
        f"{title} {found[name]['p50']:.0f} ms (p95 {found[name]['p95']:.0f})"
        for name, title in (("final", "transcript"), ("token", "first token"), ("audio", "first audio"))
    )
    text = f"**A spoken exchange**, {found['audio']['n']} of them, from the end of the speech: {steps}."
    if silenced := found["silenced"]:
        text += (
            f" Interrupted, the reply is silent {silenced['p50']:.0f} ms (p95 {silenced['p95']:.0f}) after the speaker "
            f"begins."
        )
    return [text]


def _curve(result: dict[str, Any], *, plotted: bool) -> list[str]:
    """Where each budget broke, the widths, and the plot; nothing, if no curve was measured."""
    if not (budgets := result.get("budgets")):
        return []
    told = "; ".join(_budget(WHAT[name], one) for name, one in budgets.items())
    title = (
        f"**Sessions at once** on this machine, their clients included, each speaking one clip after another: {told}."
    )
    rows = ["| sessions | n | final p50 | p95 | n | first audio p50 | p95 |", f"|{'---|' * 7}"]
    for width in result["curve"]:
        cells = [str(width["sessions"]), *_cells(width["final"]), *_cells(width["audio"])]
        rows.append(f"| {' | '.join(cells)} |")
    plot = ["![p95 over sessions](docs/numbers/voice.svg)"] if plotted else []
    return [title, "\n".join(rows), *plot]


def _budget(what: str, one: dict[str, Any]) -> str:
    kept = f"{what} within {one['ms']:g} ms at p95 up to {one['held']} session{'s' if one['held'] != 1 else ''}"
    if one["broke"] is None:
        return f"{kept}, the most that were tried"
    found = f"{one['p95']:.0f} ms" if one["p95"] is not None else "some were refused"
    return f"{kept}, broken at {one['broke']} ({found})"


def _aims(result: dict[str, Any]) -> str:
    told = [f"{aim['what']}: {aim['found']:.1f} (aim {aim['most']:g})" for aim in result["aims"]]
    return f"Aims: {'; '.join(told)}."
