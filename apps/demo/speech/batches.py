"""Make the training's batches from a corpus: clips cut, joined and delayed, their tokens and their timings."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apps.demo.speech import augment, music, tokenizer
from apps.demo.speech.features import LogMel, frame_counts
from apps.demo.speech.synthesis import Span
from apps.demo.speech.texts import units

RATE = 16_000
FRAME = 320
BATCH = 32
BUCKET = 24
IGNORED = -100
SILENCE = tokenizer.special("endoftext")
NOISE_SHARE, TWO_SHARE, MIDDLE_SHARE, PREFIX_SHARE, TIMED_SHARE = 0.12, 0.12, 0.08, 0.2, 0.6
PROMPT_SHARE, LONGEST_PROMPT = 0.15, 3
"""How many clips come behind what was said before, and how many sentences that is at most."""
HEARD_SHARE = 0.8
LONGEST_S = 7.8
WINDOW, FULL = 400, 1500
MUSIC, MUSIC_EVERY = 40, 6
"""Clips of music beside the noises, and the steps after which one of them is made anew."""


class Timed(NamedTuple):
    """A token of the transcript, where it is heard, and the class of its frames."""

    token: int
    start: int
    end: int
    frames: int


@dataclass
class Plan:
    """A clip in the making: where its samples come from, and what is heard in them."""

    samples: NDArray[np.float32]
    utterances: list[list[Timed]] = field(default_factory=list)
    phonemes: list[Span] = field(default_factory=list)


class Row(NamedTuple):
    """What the decoder is given, what it should say next, and the samples in which its targets are heard."""

    given: list[int]
    wanted: list[int]
    spans: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Batch:
    """What one step learns from; -100 is not scored."""

    features: Tensor
    """(clips, MELS, frames)"""
    tokens: Tensor
    """(clips, tokens), what the decoder is given"""
    targets: Tensor
    """(clips, tokens), what it should say next"""
    words: Tensor
    """(clips, frames / 2), the token that is heard in each frame"""
    phonemes: Tensor
    """(clips, frames / 2)"""
    looks: Tensor
    """(clips, tokens, frames / 2), the frames in which each target is heard"""
    positions: int
    """To how many positions the encoder should believe it is padded"""


class Corpus:
    """The clips that `synthesis.write_all` wrote, read through memory maps."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[tuple[NDArray[np.int16], list[Timed], list[Span]]] = []
        raw = []
        for part in sorted(folder.glob("part*")):
            audio = np.memmap(part / "audio.i16", np.int16, "r")
            for line in (part / "clips.jsonl").read_text(encoding="utf-8").splitlines():
                one = json.loads(line)
                raw.append((audio[one["at"] : one["at"] + one["length"]], one))
        counts = Counter(name for _, one in raw for name, *_ in one["phonemes"])
        names = [name for name, _ in counts.most_common() if name and not name.startswith("_")]
        self.phonemes = {name: at for at, name in enumerate(names[:95], 1)}
        for samples, one in raw:
            heard = [Span(self.phonemes.get(name, 0), start, end) for name, start, end in one["phonemes"]]
            self.lines.append((samples, timed(one["text"], [Span(*span) for span in one["units"]]), heard))

    def clip(self, rng: random.Random) -> Plan:
        """Any clip, whole."""
        samples, tokens, phonemes = rng.choice(self.lines)
        wave: NDArray[np.float32] = samples.astype(np.float32) / np.float32(32768)
        return Plan(wave, [list(tokens)], list(phonemes))


def timed(text: str, spans: list[Span]) -> list[Timed]:
    """The tokens of `text` with the times of its units."""
    found, parts = [], units(text)
    for place, word in enumerate(text.split()):
        ids = tokenizer.word_ids(word)
        mine = [span for unit, span in zip(parts, spans, strict=True) if unit.word == place]
        sounds = [unit.text for unit in parts if unit.word == place]
        if len(mine) == len(ids):
            found += [
                Timed(token, span.start, span.end, tokenizer.word_ids(sound)[0])
                for token, span, sound in zip(ids, mine, sounds, strict=True)
            ]
        else:
            found += [Timed(token, mine[0].start, mine[-1].end, IGNORED) for token in ids]
    return found


def moved(plan: Plan, by: int) -> Plan:
    """All times later by so many samples."""
    utterances = [
        [one._replace(start=one.start + by, end=one.end + by) for one in tokens] for tokens in plan.utterances
    ]
    phonemes = [Span(one.what, one.start + by, one.end + by) for one in plan.phonemes]
    return Plan(plan.samples, utterances, phonemes)


def joined(first: Plan, second: Plan, gap: int) -> Plan:
    """One after the other."""
    second = moved(second, len(first.samples) + gap)
    samples = np.concatenate([first.samples, np.zeros(gap, np.float32), second.samples])
    return Plan(samples, first.utterances + second.utterances, first.phonemes + second.phonemes)


def cut(plan: Plan, start: int, end: int) -> Plan:
    """From `start` to `end`; words that are heard for less than HEARD_SHARE are not in its transcript."""

    def heard(one: Timed) -> bool:
        inside = min(one.end, end) - max(one.start, start)
        return inside >= HEARD_SHARE * (one.end - one.start)

    kept = [[one for one in tokens if heard(one)] for tokens in plan.utterances]
    whole = Plan(plan.samples[start:end], [tokens for tokens in kept if tokens], plan.phonemes)
    return moved(whole, -start)


class Maker:
    """Batches without end; `songs` of the noises that they are mixed with are music."""

    def __init__(self, corpus: Corpus, seed: int, songs: int = MUSIC) -> None:
        self.corpus, self.rng, self.np = corpus, random.Random(seed), np.random.default_rng(seed)
        self.noises, self.mel = torch.cat([augment.bank(seed=1), self.music(songs)]), LogMel()
        self.songs = songs

    def __iter__(self) -> Iterator[Batch]:
        while True:
            plans = sorted((self.plan() for _ in range(BATCH * BUCKET)), key=lambda one: len(one.samples))
            groups = [plans[at : at + BATCH] for at in range(0, len(plans), BATCH)]
            self.rng.shuffle(groups)
            for number, group in enumerate(groups):
                if number % MUSIC_EVERY == 0:
                    self.noises[-int(self.np.integers(1, self.songs + 1))] = self.music(1)[0]
                yield self.batch(group)

    def music(self, count: int) -> Tensor:
        """New music: (count, samples), of power one."""
        length = augment.BANK_S * RATE
        return torch.from_numpy(np.stack([music.piece(self.np, length) for _ in range(count)]))

    def plan(self) -> Plan:
        """One clip as it may come from a microphone."""
        kind, rng = self.rng.random(), self.rng
        if kind < NOISE_SHARE:
            return Plan(np.zeros(int(rng.uniform(0.4, rng.choice((2.0, 4.0, LONGEST_S))) * RATE), np.float32))
        plan = self.corpus.clip(rng)
        kind -= NOISE_SHARE
        if kind < TWO_SHARE:
            plan = joined(plan, self.corpus.clip(rng), int(rng.uniform(0.15, 0.9) * RATE))
        elif kind < TWO_SHARE + MIDDLE_SHARE and len(plan.utterances[0]) > 2:
            first = rng.choice(plan.utterances[0][1:])
            plan = cut(plan, max(0, first.start - int(rng.uniform(0, 0.06) * RATE)), len(plan.samples))
        if self.rng.random() < PREFIX_SHARE:
            return self.delayed(cut(plan, 0, int(rng.uniform(0.25, 1.0) * len(plan.samples))), tail=0.1)
        if len(plan.samples) > (LONGEST_S - 0.8) * RATE:
            plan = cut(plan, 0, int((LONGEST_S - 0.8) * RATE))
        return self.delayed(plan, tail=0.7)

    def delayed(self, plan: Plan, tail: float) -> Plan:
        """Silence before and after."""
        before, after = int(self.rng.uniform(0, 0.6) ** 1.5 * RATE), int(self.rng.uniform(0, tail) * RATE)
        return Plan(np.pad(plan.samples, (before, after)), *_later(plan, before))

    def batch(self, plans: list[Plan]) -> Batch:
        """Sound, features and targets of `plans`."""
        lengths = torch.tensor([len(one.samples) for one in plans])
        waves = torch.zeros(len(plans), int(lengths.max()))
        for row, one in zip(waves, plans, strict=True):
            row[: len(one.samples)] = torch.from_numpy(one.samples)
        waves = augment.augmented(waves, self.noises, self.np, np.array([not one.phonemes for one in plans]))
        waves *= torch.arange(waves.shape[1])[None] < lengths[:, None]
        features = self.mel(waves, lengths)
        frames = features.shape[-1] + features.shape[-1] % 2 + 2 * self.rng.randint(2, 20)
        features = torch.nn.functional.pad(features, (0, frames - features.shape[-1]))
        return self.labelled(masked(features, frame_counts(lengths), self.np), plans, lengths)

    def labelled(self, features: Tensor, plans: list[Plan], lengths: Tensor) -> Batch:
        """With the targets of all three heads."""
        rows = [self.row(one) for one in plans]
        longest, frames = max(len(given) for given, _, _ in rows), features.shape[-1] // 2
        tokens = torch.full((len(plans), longest), SILENCE)
        targets = torch.full((len(plans), longest), IGNORED)
        looks = torch.zeros(len(plans), longest, frames, dtype=torch.bool)
        words, phonemes = torch.full((len(plans), frames), SILENCE), torch.zeros(len(plans), frames, dtype=torch.long)
        for at, (plan, (given, wanted, spans)) in enumerate(zip(plans, rows, strict=True)):
            tokens[at, : len(given)] = torch.tensor(given)
            targets[at, : len(wanted)] = torch.tensor(wanted)
            for place, (start, end) in spans.items():
                looks[at, place, start // FRAME : -(-end // FRAME)] = True
            for one in (one for utterance in plan.utterances for one in utterance):
                words[at, -(-max(0, one.start) // FRAME) : -(-one.end // FRAME)] = one.frames
            for sound in plan.phonemes:
                if sound.end > 0:
                    phonemes[at, -(-max(0, sound.start) // FRAME) : -(-sound.end // FRAME)] = int(sound.what)
            beyond = min(frames, int(lengths[at]) // FRAME + 10)
            words[at, beyond:] = phonemes[at, beyond:] = IGNORED
        words[(words == SILENCE) & (phonemes > 0)] = IGNORED  # part of a word that is not in the transcript
        positions = self.rng.choices((0, WINDOW, FULL), (0.3, 0.3, 0.4))[0]
        return Batch(features, tokens, targets, words, phonemes, looks, positions)

    def row(self, plan: Plan) -> Row:
        """The tokens of `plan`, now and then behind others."""
        timed = self.rng.random() < TIMED_SHARE
        row = transcript(plan, timed=timed, rng=self.rng)
        if self.rng.random() >= PROMPT_SHARE:
            return row
        said = [self.rng.choice(self.corpus.lines)[1] for _ in range(self.rng.randint(1, LONGEST_PROMPT))]
        return prompted(row, transcript(Plan(plan.samples, said), timed=timed, rng=self.rng).given[1 if timed else 2 :])


def prompted(row: Row, before: list[int]) -> Row:
    """The same row behind what was said `before`, which is not scored."""
    given = [tokenizer.special("startofprev"), *before]
    spans = {len(given) + at: span for at, span in row.spans.items()}
    return Row([*given, *row.given], [*[IGNORED] * len(given), *row.wanted], spans)


def _later(plan: Plan, by: int) -> tuple[list[list[Timed]], list[Span]]:
    after = moved(plan, by)
    return after.utterances, after.phonemes


def transcript(plan: Plan, *, timed: bool, rng: random.Random) -> Row:
    """The tokens of `plan`, with timestamps or without."""
    sot, eot, untimed = (tokenizer.special(name) for name in ("startoftranscript", "endoftext", "notimestamps"))
    if not plan.utterances:
        first = tokenizer.timestamp(rng.choice((0.0, rng.uniform(0, 1)))) if timed else untimed
        return Row([sot, first], [tokenizer.special("nospeech"), eot], {})
    given, spans = [sot], dict[int, tuple[int, int]]()
    if not timed:
        given.append(untimed)
    for utterance in plan.utterances:
        if timed:
            given.append(tokenizer.timestamp(max(0, utterance[0].start) / RATE))
        for one in utterance:
            spans[len(given) - 1] = (max(0, one.start), one.end)
            given.append(one.token)
        if timed:
            given.append(tokenizer.timestamp(utterance[-1].end / RATE))
    wanted = [*given[1:], eot]
    if not timed:
        wanted[0] = IGNORED
    return Row(given, wanted, spans)


def masked(features: Tensor, frames: Tensor, rng: np.random.Generator) -> Tensor:
    """A light SpecAugment: now and then some mels, or up to a tenth of a second, at the clip's mean."""
    for row, count in zip(features, frames.tolist(), strict=True):
        if rng.random() < 0.3:
            low = int(rng.integers(0, 72))
            row[low : low + int(rng.integers(1, 9)), :count] = row[:, :count].mean()
        if rng.random() < 0.3 and count > 20:
            start = int(rng.integers(0, count - 10))
            row[:, start : start + int(rng.integers(1, 10))] = row[:, :count].mean()
    return features
