"""The contest of engines: who plays when, what the figures mean, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from rich.console import Console

from apps.bench import llm_contest
from apps.bench.llm import PAIRS, PEERS, chosen
from apps.bench.llm_contest import (
    Answer,
    Chunk,
    Ids,
    Round,
    Serves,
    Speculated,
    contest,
    differences,
    figures,
    ratio,
    tokens_of,
)
from apps.bench.llm_plot import lines_of, plot
from apps.bench.llm_report import (
    ASSISTED,
    DRAFT,
    GENERATE,
    OFF,
    Width,
    aims_table,
    reached,
    speed_table,
    times_table,
    width_result,
)
from pipeline.errors import SettingsError


@pytest.fixture(autouse=True)
def _no_clearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clearing away takes long in a process with large libraries, and there is nothing to clear here."""
    monkeypatch.setattr("gc.collect", lambda: 0)


class Fake:
    """Says 1, 2, 3 … in chunks of two, one every 10 ms; keeps what it was asked."""

    serves: Serves = "continuous batch"

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name = name
        self.asked: list[tuple[Sequence[Ids], int]] = []
        self._diary = diary

    def answer(self, prompts: Sequence[Ids], tokens: int) -> list[Answer]:
        """All alike."""
        self.asked.append((list(prompts), tokens))
        self._diary.append(self.name)
        return [said(*range(1, tokens + 1)) for _ in prompts]

    def speculated(self) -> Speculated:
        """One of two guesses is right, for each answer that was asked for."""
        return Speculated(2 * len(self.asked), len(self.asked))

    def close(self) -> None:
        """Nothing is held."""


def said(*ids: int, every: float = 0.010) -> Answer:
    """`ids` two by two."""
    return [Chunk(every * (at // 2 + 1), ids[at : at + 2]) for at in range(0, len(ids), 2)]


def test_who_begins_changes_from_round_to_round() -> None:
    """What the machine does meanwhile must hit all alike; the warm-up comes first and is in nobody's rounds."""
    diary: list[str] = []
    both = [Fake("a", diary), Fake("b", diary)]
    rounds = contest(both, [[(5, 6, 7)], [(8, 9)]], warm=[(1, 2)], tokens=20, streams=1)
    assert diary == ["a", "b", "a", "b", "b", "a"]
    assert [len(rounds[name]) for name in "ab"] == [2, 2]
    assert both[0].asked[0] == ([(1, 2)], llm_contest.WARM_TOKENS)
    assert both[0].asked[1:] == [([(5, 6, 7)], 20), ([(8, 9)], 20)]


def test_as_many_prompts_at_once_as_there_are_streams() -> None:
    """The next are asked when all have been answered."""
    fake = Fake("a", [])
    contest([fake], [[(1,), (2,), (3,)]], warm=[(9,)], tokens=2, streams=2)
    assert [prompts for prompts, _ in fake.asked[1:]] == [[(1,), (2,)], [(3,)]]


def test_the_tokens_of_a_chunk_share_its_time() -> None:
    """Between tokens is not between chunks: two that come together after 10 ms are 5 ms from one to the next."""
    one = figures([Round([said(1, 2, 3, 4)], 0.5, Speculated(4, 1))], [Round([said(1, 2, 3, 4)], 1.0, None)])
    assert one.first == pytest.approx((1, 10, 10, 10, 10))
    assert one.gaps == pytest.approx((1, 10, 10, 10, 10))
    assert one.between == pytest.approx((2, 5, 5, 5, 5))
    assert (one.tokens_per_s.median, one.tokens_per_step, one.acceptance, one.equal) == (8, 2, 0.25, 1)


def test_answers_that_came_at_once_have_no_gaps() -> None:
    """There is nothing to tell of times between chunks, and the rest is told."""
    one = figures([Round([said(1, 2)], 0.5, None)], [Round([said(1, 2)], 0.5, None)])
    assert (one.gaps, one.between, one.tokens_per_step, one.tokens_per_s.median) == (None, None, None, 4)


def test_steps_are_chunks_where_nobody_counts_them() -> None:
    """Several steps may come as one chunk while the reader is busy: who counts steps is believed."""
    answer = [Chunk(0.1, (1,)), Chunk(0.2, (2, 3, 4, 5))]
    told = [figures([Round([answer], 1.0, Speculated(4, 2, steps))], [Round([answer], 1.0, None)]) for steps in (0, 2)]
    assert [one.tokens_per_step for one in told] == [4, 2]


def test_an_answer_that_differs_is_counted() -> None:
    """Equal is equal token for token, however they were chunked."""
    rounds = [Round([said(1, 2, 3), said(4, 5)], 1.0, None)]
    other = [Round([[Chunk(0.1, (1,)), Chunk(0.2, (2, 3))], said(4, 6)], 1.0, None)]
    assert figures(rounds, other).equal == 1
    assert differences(rounds, other) == [(1, 1, 6, 5)]
    assert tokens_of(said(1, 2, 3)) == (1, 2, 3)


def test_ratios_are_taken_round_by_round() -> None:
    """A slow minute of the machine is in both, so it is in neither's favour."""
    fast = [Round([said(1, 2)], seconds, None) for seconds in (1, 2, 4)]
    slow = [Round([said(1, 2)], seconds, None) for seconds in (2, 6, 4)]
    assert ratio(fast, slow) == (2, 1, 3)


def width() -> Width:
    """One stream: ours 2, with a draft 4, generate 1 and assisted 4 tokens a second."""
    speeds = {OFF: 1.0, DRAFT: 0.5, GENERATE: 2.0, ASSISTED: 0.5}
    rounds = {name: [Round([said(1, 2)], seconds, None)] for name, seconds in speeds.items()}
    serves: dict[str, Serves] = dict.fromkeys(rounds, "continuous batch")
    return Width(1, rounds, serves | {GENERATE: "padded batch"})


def test_aims_are_told_met_and_missed() -> None:
    """Against what was measured, and only where it was: there is no llama.cpp here, and no 16 streams."""
    told = {(one.aim.ours, one.aim.other): (one.ratio.median, one.met) for one in reached("demo", [width()])}
    assert told == {(OFF, GENERATE): (2, True), (DRAFT, GENERATE): (4, True), (DRAFT, ASSISTED): (1, False)}
    assert {one.aim.ours for one in reached("large", [width()])} == {OFF}


def test_tables_name_what_is_not_served_as_a_batch() -> None:
    """At several streams it is said who pads and who takes one after another."""
    console = Console(width=100)
    many = width()._replace(streams=4)
    with console.capture() as told:
        console.print(
            speed_table("demo", many), times_table("demo", many), aims_table("aims", list(reached("demo", [width()])))
        )
    assert f"{GENERATE} (padded batch)" in told.get()
    assert "demo, 4 streams" in told.get()
    assert "missed" in told.get()


def test_the_plot_has_a_line_for_each_and_is_xml() -> None:
    """One line and one name in the key for each contestant, from the figures that are written as JSON."""
    pair = {"widths": [width_result(width()), width_result(width()._replace(streams=4))]}
    root = ElementTree.fromstring(plot({"a < b": lines_of(pair)}))
    tag = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{tag}polyline")) == 4
    assert {OFF, GENERATE, "a < b"} <= {text.text for text in root.iter(f"{tag}text")}


def test_what_is_not_known_is_refused_by_name() -> None:
    """Before anything is loaded, with what there is instead; none is all, in our order."""
    with pytest.raises(SettingsError, match=r"--peer.*'vllm'.*transformers, llama\.cpp"):
        chosen(["vllm"], PEERS, "--peer")
    assert (chosen(None, PAIRS, "--pair"), chosen(["large"], PAIRS, "--pair")) == (PAIRS, ("large",))
