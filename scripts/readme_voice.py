"""What the README says of the voice bench's figures."""

from __future__ import annotations

from typing import Any


def voice(result: dict[str, Any], *, plotted: bool) -> str:
    """The figures of docs/numbers/voice.json, without the command that made them."""
    whole, silence = result["whole_file"], result["silence_ms"]
    title = (
        f"**Speech in real time**, {result['model']}, {result['spoken']}; on whole files faster-whisper has a word "
        f"error rate of {whole['wer']:.1%} over {whole['words']:,} words. In milliseconds: from the beginning of the "
        f"speech to the first word, from a word's end to its standing there for good, and from the end of the speech "
        f"to the final text (`penstock` waits for {silence} ms of silence; for the button and the plain loop the "
        f"client says where the speech ends). *Unaware*: computing takes no time; *back*: words that did not stay. "
        f"whisperlivekit places words by their times, which a model as small as the demo's tells coarsely."
    )
    rows = ["| | WER | first word p50 | lag p50 | p95 | final p50 | p95 | back |", f"|{'---|' * 8}"]
    rows += [_row(name, one) for name, one in result["listening"].items()]
    parts = [title, "\n".join(rows), *_exchanges(result), _curve(result, plotted=plotted), _aims(result)]
    return "\n\n".join([*parts, *result["missing"]])


def _row(name: str, one: dict[str, Any]) -> str:
    lag = ["", ""] if one["lag"] is None else [f"{one['lag'][at]:.0f}" for at in ("p50", "p95")]
    final = [f"{one['final'][at]:.0f}" for at in ("p50", "p95")]
    cells = [name, f"{one['rate']['wer']:.1%}", f"{one['first']['p50']:.0f}", *lag, *final, f"{one['back']:.1%}"]
    return f"| {' | '.join(cells)} |"


def _exchanges(result: dict[str, Any]) -> list[str]:
    found = result["exchanges"]
    if found is None:
        return []
    steps = ", ".join(
        f"{title} {found[name]['p50']:.0f} ms (p95 {found[name]['p95']:.0f})"
        for name, title in (("final", "transcript"), ("token", "first token"), ("audio", "first sound"))
    )
    text = f"**A spoken exchange**, {found['audio']['n']} of them, from the end of the speech: {steps}."
    if silenced := found["silenced"]:
        text += (
            f" Interrupted, the reply is silent {silenced['p50']:.0f} ms (p95 {silenced['p95']:.0f}) after the speaker "
            f"begins."
        )
    return [text]


def _curve(result: dict[str, Any], *, plotted: bool) -> str:
    held = result["held"]
    text = (
        f"**Sessions at once** on this machine, clients included: the final transcript stays within 300 ms of the "
        f"silence (p95) up to {held['final']} sessions, the first sound within 600 ms of the speech up to "
        f"{held['audio']}."
    )
    return f"{text}\n\n![p95 over sessions](docs/numbers/voice.svg)" if plotted else text


def _aims(result: dict[str, Any]) -> str:
    told = [f"{aim['what']}: {aim['found']:.1f} (aim {aim['most']:g})" for aim in result["aims"]]
    return f"Aims: {'; '.join(told)}."
