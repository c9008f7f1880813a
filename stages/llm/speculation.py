"""Who guesses ahead for a sequence, and how far: whoever was right of late, as far as it pays.

A draft model may guess, and the text itself (what followed when it last came to this point). The model's own choice
counts at every position, so that guesses change the speed and never the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Literal

from pipeline.errors import ModelLoadError
from stages.llm.costs import Costs
from stages.llm.drafter import NEAR, DraftModel, Wish
from stages.llm.forward import Work
from stages.llm.guesses import Beliefs, Guesses, Made, Offer, SpeculationCounts, judge
from stages.llm.lengths import Bid, plan
from stages.llm.model import LoadedModel
from stages.llm.sequence import Sequence
from stages.llm.timing import measure
from stages.llm.trials import Purse

log = logging.getLogger(__name__)

Mode = Literal["auto", "draft", "ngram", "both", "off"]

MOST = 8
"""Guesses for a sequence in one step."""

INDEXED = 4096
"""Tokens of a text that are indexed in one step, which takes about a millisecond."""

REST = 3
"""Steps after one without guesses in which nobody asks whether they would pay."""

PLAIN = 64
"""After so many steps with guesses there is one without: what that costs must be known, too."""

TRIAL = 2
"""Tokens that one who is not asked otherwise guesses to show what they are worth."""

SPARE = 64
"""Sequences that are remembered after their end at most, beside as many as run."""

READING, READING_LEAST, READING_ALWAYS = 0.5, 16, 512
"""How much the draft model may read in a step, to catch up: as a share of the time that the step takes, as tokens that
it may read in any case, and as tokens where costs do not count."""

HORIZON = 32
"""Steps over which the cost of catching up is spread, where the answer has room for more."""

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
        self._costs: Costs | None = None
        self._draft_costs: Costs | None = None
        self._beliefs = Beliefs()
        self._guesses: dict[int, Guesses] = {}
        self._purse = Purse()
        self._speed = 0.0
        self._rest = 0
        self._since_plain = 0
        self._others = 0
        self.counts = SpeculationCounts()

    def prepare(self, model: Costs) -> None:
        """Measure what guessing costs, for a `model` of such costs. Without, nothing is guessed (but with `always`)."""
        if not self._always:
            self._costs = model
            self._draft_costs = measure(self._drafter.draft) if self._drafter else None

    def follow(self, sequences: Seq[Sequence]) -> None:
        """Take note of what is certain of `sequences`, all that run. No prompt waits for the draft model to read it."""
        asking = [sequence for sequence in sequences if self._limit(sequence) > 0]
        for sequence in asking:
            guesses = self._guesses.get(sequence.number)
            if guesses is None:
                guesses = self._guesses[sequence.number] = Guesses(self._beliefs)
            if self._ngram:
                guesses.index.extend(sequence.ids, INDEXED)
        prompts = [sequence.pending for sequence in sequences if sequence.pending > sequence.logits]
        self._others = min(sum(prompts), READING_ALWAYS)
        if not prompts:
            self._read([sequence for sequence in asking if self._guesses[sequence.number].catching_up])
        if len(self._guesses) > 2 * len(sequences) + SPARE:
            self._guesses = {each.number: self._guesses[each.number] for each in asking}

    def propose(self, streams: Seq[Sequence]) -> None:
        """Guess the next tokens of `streams`, the sequences whose next token is chosen in this step."""
        if self._rest:
            self._rest -= 1
            return
        if self._since_plain >= PLAIN and not self._always:
            self._since_plain = 0
            return
        if not streams or (self._costs is None and not self._always):
            return
        offers = [self._offers(sequence) for sequence in streams]
        chosen = [self._best(each, len(streams)) for each in offers]
        if self._costs is None:
            lengths = [offer.bid.most if offer else 0 for offer in chosen]
        else:
            bids = [offer.bid if offer else NOTHING for offer in chosen]
            best = plan(bids, self._costs, self._draft_costs, others=self._others)
            lengths, self._speed = best.lengths, best.speed
            self._try_draft(self._costs, offers, chosen, lengths)
        if any(lengths):
            self._make(streams, chosen, lengths)
            self._since_plain += 1
        else:
            self._rest = 0 if self._always else REST
            self._since_plain = 0

    def saw(self, works: Seq[Work[Sequence]], seconds: float) -> None:
        """A step has computed `works`; their sequences have accepted what was right."""
        prompts = 0
        for work in works:
            guesses = self._guesses.get(work.sequence.number)
            if guesses and guesses.said:
                guesses.said.luck.saw(*self._judged(work.sequence, guesses.said))
                guesses.said = None
            if guesses and guesses.made:
                self._judge(work.sequence, guesses.made, work.count - 1)
                guesses.made = None
            elif work.count > 1:
                prompts += 1
            else:
                self.counts.saw(0, 1)
        if self._costs and not prompts:
            self._costs.saw(len(works), sum(work.count for work in works), seconds)
        self._purse.earn(seconds)

    def _judge(self, sequence: Sequence, made: Made, judged: int) -> None:
        """Learn from the guesses of which the model has judged the first `judged`."""
        made = made._replace(tokens=made.tokens[:judged])
        right, wrong = self._judged(sequence, made)
        if made.by == "draft":
            made.luck.saw(right, wrong)
        if made.trial and self._speed:
            self._purse.gain(right / self._speed)
        self.counts.saw(judged, len(sequence.ids) - made.start)
        self.counts.guessed(made, right)

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
        if self._draft_costs and not offer.owed:
            cost_s += TRIAL * self._draft_costs.step(1, 1) + offer.bid.once_s * HORIZON
        instead = chosen[who]
        if instead and lengths[who] and self._speed:
            cost_s += instead.bid.expected(lengths[who]) / self._speed
        if self._purse.pay(cost_s):
            chosen[who], lengths[who] = offer._replace(trial=True), min(TRIAL, offer.bid.most)

    def _make(self, streams: Seq[Sequence], chosen: Seq[Offer | None], lengths: Seq[int]) -> None:
        """Guess as far as decided, and remember who did."""
        wishes = []
        for sequence, offer, length in zip(streams, chosen, lengths, strict=True):
            if offer is None or not length:
                continue
            if offer.by == "ngram":
                sequence.drafts += offer.tokens[:length]
            elif offer.behind:
                self._guesses[sequence.number].catching_up = True
                self._guesses[sequence.number].owed = offer.trial
            else:
                wishes.append(Wish(sequence, length))
        if wishes:
            self._ask(lambda drafter: drafter.guess(wishes, self._draft_costs))
        for sequence, offer in zip(streams, chosen, strict=True):
            if sequence.drafts and offer:
                guesses = self._guesses[sequence.number]
                guesses.owed &= offer.by == "ngram"
                guesses.made = Made(offer.by, offer.luck, sequence.drafts, len(sequence.ids), offer.trial)

    def _read(self, behind: Seq[Sequence]) -> None:
        """Have the draft model catch up with these, for a part of the time of a step."""
        if self._drafter:
            behind = [sequence for sequence in behind if self._drafter.most(sequence)]
        if not behind:
            return
        tokens = READING_ALWAYS
        if self._costs and self._draft_costs:
            allowed = READING * self._costs.step(len(behind), len(behind))
            tokens = max(READING_LEAST, int(allowed / max(1e-9, self._draft_costs.token)))
        self._ask(lambda drafter: drafter.read(behind, min(tokens, READING_ALWAYS)))
        for sequence in behind:
            if self._drafter and self._drafter.lag(sequence) <= NEAR:
                self._guesses[sequence.number].catching_up = False

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
            tokens = _cut(guesses.index.guess(sequence.ids, match, limit), self._model.eos)
            luck = guesses.ngram(match.length)
            offers.append(Offer("ngram", luck, Bid(luck.value, len(tokens)), tokens))
            guesses.said = Made("ngram", luck, tokens, len(sequence.ids))
        if self._drafter and (most := min(limit, self._drafter.most(sequence))):
            lag = self._drafter.lag(sequence)
            behind = lag > NEAR
            if not guesses.catching_up:
                once = self._reading(lag) / min(HORIZON, sequence.room) if lag > 1 else 0.0
                bid = Bid(guesses.draft.value, most, drafted=True, once_s=once)
                offers.append(Offer("draft", guesses.draft, bid, [], behind, owed=guesses.owed))
        return offers

    def _reading(self, tokens: int) -> float:
        """Seconds in which the draft model catches up with so many tokens."""
        return self._draft_costs.step(1, tokens) if self._draft_costs else 0.0

    def _best(self, offers: Seq[Offer], count: int) -> Offer | None:
        """Whose guesses give most beyond what they cost."""
        if len(offers) < 2:
            return offers[0] if offers else None
        return max(offers, key=lambda offer: self._gain(offer.bid, count))

    def _gain(self, bid: Bid, count: int) -> float:
        """Tokens that the guesses of one of `count` sequences give beyond those that their time is worth."""
        price = 0.0
        if self._costs and self._draft_costs and bid.drafted:
            price = self._speed * self._draft_costs.step(count, count) / count
        gain, right = -self._speed * bid.once_s, 1.0
        for _ in range(bid.most):
            right *= bid.luck
            if right <= price:
                break
            gain += right - price
        return gain


def _cut(tokens: list[int], eos: frozenset[int]) -> list[int]:
    """`tokens` up to the first that ends an answer."""
    ends = [at for at, token in enumerate(tokens) if token in eos]
    return tokens[: ends[0] + 1] if ends else tokens


def _least_known(offer: tuple[int, Offer]) -> tuple[float, float]:
    return 0.0 if offer[1].owed else 1 + offer[1].bid.once_s, offer[1].luck.judged
