"""Who guesses ahead for a sequence, and how far: whoever was right of late, as far as it pays.

A draft model may guess, and the text itself (what followed when it last came to this point). The model's own choice
counts at every position, so that guesses change the speed and never the answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Literal

from pipeline.errors import ModelLoadError
from stages.llm.costs import LEAST_S, Costs
from stages.llm.guessing.drafter import NEAR, DraftModel, Wish
from stages.llm.guessing.guesses import Beliefs, Guesses, Made, Offer, SpeculationCounts, cut, judge
from stages.llm.guessing.lengths import MARGIN, Bid, plan
from stages.llm.guessing.prices import Account, Prices
from stages.llm.guessing.trials import Purse
from stages.llm.models.forward import Work
from stages.llm.models.model import LoadedModel
from stages.llm.sequence import Sequence
from stages.llm.timing import measure

log = logging.getLogger(__name__)

Mode = Literal["auto", "draft", "ngram", "both", "off"]

MOST = 8
"""Guesses for a sequence in one step."""

INDEXED = 4096
"""Tokens of a text that are indexed in one step, which takes about a millisecond."""

REST, LONGEST_REST, ASKING = 3, 256, 0.005
"""Steps after one without guesses in which nobody asks whether they would pay: so many at least and at most, and
between those as many that asking takes this share of their time."""

PLAIN = 64
"""After so many steps with guesses there is one without: what that costs must be known, too."""

TRIAL = 2
"""Tokens that one who is not asked otherwise guesses to show what they are worth."""

SPARE = 64
"""Sequences that are remembered after their end at most, beside as many as run."""

READING, READING_LEAST, READING_MOST = 1.0, 16, 512
"""How much the draft may read in a step: as a share of the step's time, as tokens at least, and as tokens at most."""

NOTHING = Bid(0.0, 0)


class Speculation:
    """Have the next tokens of sequences of `model` guessed, by `draft` and by their text, as `mode` says.

    `auto` takes the draft model if there is one, and the text. At most `most` tokens are guessed for a sequence in one
    step; with `always` so many whenever they can be, whether or not it pays: for tests and measurements.

    Raises:
        ModelLoadError: the two models have different tokens, or `mode` needs a draft model and there is none.
    """

    def __init__(
        self,
        model: LoadedModel,
        draft: LoadedModel | None = None,
        *,
        mode: Mode = "auto",
        most: int = MOST,
        always: bool = False,
    ) -> None:
        if draft is None and mode in ("draft", "both"):
            raise ModelLoadError(model.name, f"speculation {mode!r} needs a draft model, and none is given")
        self._model = model
        self._drafter = DraftModel(model, draft) if draft and mode in ("auto", "draft", "both") else None
        self._ngram = mode in ("auto", "ngram", "both")
        self._most = 0 if mode == "off" else most
        self._always = always
        self._prices = Prices()
        self._beliefs = Beliefs()
        self._guesses: dict[int, Guesses] = {}
        self._purse = Purse()
        self._rest, self._resting = 0, False
        self._step_s = LEAST_S
        self._since_plain = 0
        self._prompts, self._others = 0, 0
        self._account: Account | None = None
        self._guessing_s = 0.0
        self.counts = SpeculationCounts()

    def prepare(self, model: Costs) -> None:
        """Measure what guessing costs, for a `model` of such costs. Without, nothing is guessed (but with `always`)."""
        if not self._always:
            self._prices = Prices(model, measure(self._drafter.draft) if self._drafter else None)

    def follow(self, sequences: Seq[Sequence]) -> None:
        """Take note of what is certain of `sequences`, all that run. While nobody asks it can wait."""
        if self._rest:
            return
        asking = [sequence for sequence in sequences if self._limit(sequence) > 0]
        for sequence in asking:
            guesses = self._guesses.get(sequence.number)
            if guesses is None:
                guesses = self._guesses[sequence.number] = Guesses(self._beliefs)
            if self._ngram:
                guesses.index.extend(sequence.ids, INDEXED)
        prompts = [sequence.pending for sequence in sequences if sequence.pending > sequence.logits]
        self._prompts, self._others = len(prompts), min(sum(prompts), READING_MOST)
        if len(self._guesses) > 2 * len(sequences) + SPARE:
            self._guesses = {each.number: self._guesses[each.number] for each in asking}

    def propose(self, streams: Seq[Sequence]) -> None:
        """Guess the next tokens of `streams`, the sequences whose next token is chosen in this step."""
        self._resting = self._rest > 0
        if self._resting:
            self._rest -= 1
            return
        if not streams or self._is_plain() or (self._prices.model is None and not self._always):
            return
        began = time.perf_counter()
        offers = [self._offers(sequence) for sequence in streams]
        chosen = [self._best([offer for offer in each if offer.lag <= NEAR], len(streams)) for each in offers]
        lengths = self._lengths(offers, chosen)
        if any(lengths):
            self._make(streams, chosen, lengths)
            self._since_plain += 1
        else:
            self._since_plain = 0
        self._guessing_s = time.perf_counter() - began
        if not self._read(streams, offers) and not any(lengths) and not self._always:
            self._rest = self._pause()
        if not any(lengths):
            self._prices.hope(len(streams), 1 + self._rest)

    def _pause(self) -> int:
        """For how many steps nobody need ask again: asking must not cost what was to be saved."""
        return min(LONGEST_REST, max(REST, int(self._guessing_s / (ASKING * self._step_s))))

    def _is_plain(self) -> bool:
        """Whether it is time for a step without guesses."""
        if self._since_plain < PLAIN or self._always:
            return False
        self._since_plain = 0
        return True

    def _lengths(self, offers: Seq[Seq[Offer]], chosen: list[Offer | None]) -> list[int]:
        """How far to guess for each sequence; a trial takes the place of what was `chosen`."""
        prices = self._prices
        if prices.model is None:
            return [offer.bid.most if offer else 0 for offer in chosen]
        bids = [offer.bid if offer else NOTHING for offer in chosen]
        drafted = any(bid.drafted for bid in bids)
        margin = MARGIN / prices.trust(len(bids), drafted=drafted)
        best = plan(bids, prices.model, prices.draft, prompts=self._prompts, others=self._others, margin=margin)
        if not self._others:
            prices.speed = best.speed
        self._account = Account(best.speed, drafted) if any(best.lengths) else None
        self._try_draft(prices.model, offers, chosen, best.lengths)
        return best.lengths

    def saw(self, works: Seq[Work[Sequence]], seconds: float) -> None:
        """A step has computed `works`; their sequences have accepted what was right."""
        self._step_s = max(LEAST_S, seconds)
        if self._resting:
            self._saw_plain(works, seconds)
            return
        prompts = tokens = 0
        for work in works:
            guesses = self._guesses.get(work.sequence.number)
            if work.sequence.finish and work.sequence.output:
                self._prices.ended(work.sequence.output)
            if guesses and guesses.said:
                guesses.said.luck.saw(*self._judged(work.sequence, guesses.said))
                guesses.said = None
            if guesses and guesses.made:
                tokens += self._judge(work.sequence, guesses.made, work.count - 1)
                guesses.made = None
            elif work.count > 1:
                prompts += 1
            else:
                self.counts.saw(0, 1)
                tokens += 1
        if self._prices.model and not prompts:
            self._prices.model.saw(len(works), sum(work.count for work in works), seconds)
            if account := self._account:
                speed = tokens / (seconds + self._guessing_s)
                self._prices.saw(len(works), drafted=account.drafted, share=speed / account.speed)
        self._account = None
        self._purse.earn(seconds)

    def _saw_plain(self, works: Seq[Work[Sequence]], seconds: float) -> None:
        """The same, of a step for which nobody was asked."""
        for work in works:
            if work.sequence.finish and work.sequence.output:
                self._prices.ended(work.sequence.output)
        rows = sum(work.count for work in works)
        if rows == len(works):
            self.counts.saw(0, 1, len(works))
            if self._prices.model:
                self._prices.model.saw(len(works), rows, seconds)
        else:
            self.counts.saw(0, 1, sum(work.count == 1 for work in works))
        self._purse.earn(seconds)

    def _judge(self, sequence: Sequence, made: Made, judged: int) -> int:
        """Learn from the guesses of which the model has judged the first `judged`; the tokens that came out."""
        made = made._replace(tokens=made.tokens[:judged])
        right, wrong = self._judged(sequence, made)
        if made.by == "draft":
            made.luck.saw(right, wrong)
        if made.trial and self._prices.speed:
            self._purse.gain(right / self._prices.speed)
        self.counts.saw(judged, len(sequence.ids) - made.start)
        self.counts.guessed(made, right)
        return len(sequence.ids) - made.start

    def _judged(self, sequence: Sequence, made: Made) -> tuple[int, bool]:
        return judge(made, sequence.ids, ended=sequence.finish is not None, eos=self._model.eos)

    def _try_draft(self, costs: Costs, offers: Seq[Seq[Offer]], chosen: list[Offer | None], lengths: list[int]) -> None:
        """Where the draft model is asked nowhere, have it guess for one sequence, if there is time for that."""
        able = [(who, offer) for who, each in enumerate(offers) for offer in each if offer.by == "draft"]
        if not able or any(offer and offer.by == "draft" and n for offer, n in zip(chosen, lengths, strict=True)):
            return
        who, offer = min(able, key=_least_known)
        count, rows = len(lengths), len(lengths) + sum(lengths) + self._others
        cost_s = costs.step(count, rows + TRIAL) - costs.step(count, rows)
        draft, speed, instead = self._prices.draft, self._prices.speed, chosen[who]
        if draft and not offer.guesses.owed:
            cost_s += TRIAL * draft.step(1, 1) + self._prices.reading(offer.lag)
        if instead and lengths[who] and speed:
            cost_s += instead.bid.expected(lengths[who]) / speed
        if not self._purse.pay(cost_s):
            return
        if offer.lag > NEAR:
            offer.guesses.owed = True
        else:
            chosen[who], lengths[who] = offer._replace(trial=True), min(TRIAL, offer.bid.most)

    def _make(self, streams: Seq[Sequence], chosen: Seq[Offer | None], lengths: Seq[int]) -> None:
        """Guess as far as decided, and remember who did."""
        wishes: list[Wish] = []
        for sequence, offer, length in zip(streams, chosen, lengths, strict=True):
            if offer and offer.by == "ngram":
                sequence.drafts += offer.tokens[:length]
            elif offer and length:
                wishes.append(Wish(sequence, length))
        if wishes:
            self._ask(lambda drafter: drafter.guess(wishes, self._prices.draft))
        for sequence, offer in zip(streams, chosen, strict=True):
            if sequence.drafts and offer:
                offer.guesses.owed &= offer.by == "ngram"
                offer.guesses.made = Made(offer.by, offer.luck, sequence.drafts, len(sequence.ids), offer.trial)

    def _read(self, streams: Seq[Sequence], offers: Seq[Seq[Offer]]) -> bool:
        """Have the draft model catch up where that pays, for a part of the time of a step. Whether there was anything.

        No first token waits for that: nothing is read while a prompt is computed.
        """
        prices, count = self._prices, len(streams)
        behind = [
            sequence
            for sequence, each in zip(streams, offers, strict=True)
            for offer in each
            if offer.lag > NEAR
            and (
                offer.guesses.owed
                or prices.reading_pays(offer.bid, offer.lag, count, output=sequence.output, room=sequence.room)
            )
        ]
        if not behind or self._others:
            return bool(behind)
        tokens = READING_MOST
        if prices.model and prices.draft:
            rest_s = READING * prices.model.step(count, count) - prices.draft.step(len(behind), 1)
            tokens = max(READING_LEAST, int(rest_s / max(LEAST_S, prices.draft.token)))
        self._ask(lambda drafter: drafter.read(behind, min(tokens, READING_MOST)))
        return True

    def _ask(self, do: Callable[[DraftModel], None]) -> None:
        """Have the draft model do something. Guesses save time and nothing else, so without it all goes on."""
        if self._drafter is None:
            return
        try:
            do(self._drafter)
        except Exception:  # whatever the draft model raises
            log.exception("the draft model has failed; going on without it")
            self._drafter = None

    def _limit(self, sequence: Sequence) -> int:
        """How far to guess for `sequence` at most: the last token of its answer need not be guessed."""
        asked = sequence.sampling.speculation
        return min(self._most if asked is None else min(asked, self._most), sequence.room - 1)

    def _offers(self, sequence: Sequence) -> list[Offer]:
        """What each drafter can do for `sequence`."""
        limit, guesses = self._limit(sequence), self._guesses.get(sequence.number)
        offers: list[Offer] = []
        if limit <= 0 or guesses is None:
            return offers
        guesses.age()
        if self._ngram and (match := guesses.index.find(sequence.ids)):
            tokens = cut(guesses.index.guess(sequence.ids, match, limit), self._model.eos)
            luck = guesses.ngram(match.length)
            offers.append(Offer("ngram", guesses, luck, Bid(luck.value, len(tokens)), tokens))
            guesses.said = Made("ngram", luck, tokens, len(sequence.ids))
        # The first token does not wait for the draft model.
        if self._drafter and sequence.output and (most := min(limit, self._drafter.most(sequence))):
            lag = self._drafter.lag(sequence)
            once_s = self._prices.reading(lag + 1) if 0 < lag <= NEAR else 0.0
            bid = Bid(guesses.draft.value, most, drafted=True, once_s=once_s)
            offers.append(Offer("draft", guesses, guesses.draft, bid, [], lag))
        return offers

    def _best(self, offers: Seq[Offer], count: int) -> Offer | None:
        """Whose guesses give most beyond what they cost."""
        if len(offers) < 2:
            return offers[0] if offers else None
        return max(offers, key=lambda offer: self._prices.gain(offer.bid, count))


def _least_known(able: tuple[int, Offer]) -> tuple[bool, int, float]:
    """The trial that is paid for, then the cheapest, then the one that tells most."""
    _, offer = able
    return not offer.guesses.owed, offer.lag // NEAR, offer.luck.judged
