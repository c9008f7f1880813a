"""One stream: frames in; turns, their words and their ends out. Knows no queue, no clock and no network.

What it tells depends on the sound alone, wherever the reading began: see `Ear`. Only which words are told before a
turn's end depends on when the recogniser answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pipeline.messages import Message, Problem
from pipeline.voice import RATE, Detection, Listening, Sound, SpeechStarted, SpeechStopped
from stages.preprocess.speech.ear import FRAME, MEMORY, RESET, Frame
from stages.preprocess.speech.endpoint import (
    BEGIN_FRAMES,
    LINGER_FRAMES,
    LONG_PAUSE,
    MANUAL,
    MOST_PADDING,
    PAUSE,
    SHORT_PAUSE,
    Limits,
    Voice,
    limits,
    ms,
)
from stages.preprocess.speech.piece import Answer, Piece
from stages.preprocess.speech.recogniser import Urgency
from stages.preprocess.speech.resample import Samples
from stages.preprocess.speech.turn import Turn, item_of

MOST_TURN = 300 * RATE
"""Positions after which a turn ends in any case, or what was not committed is forgotten."""

CONTEXT = 2 * RATE
"""By so much a piece that is closed at a pause may be shorter than a quarter of the window.

Whisper's own models do better with more than a word or two; those with a short window know one sentence at a time.
"""

MOST_CLOSED = 4
"""Pieces of a stream that may wait for their words; then the stream waits."""

SETTLE = 30 * RATE
"""Positions after which what was told is settled although there was no pause that is long enough."""

Ask = Callable[[Sequence[Samples], Urgency, Listening, str], Answer]
"""(frames, how much it is needed, how to listen, the language if it is known) → what will be said of them."""


class Listener:
    """Finds the turns of a stream.

    Args:
        first: The first sound that is read of it.
        window_s: Seconds that the recogniser takes at once.
        step_ms: Milliseconds of sound from one transcript of a growing piece to the next.
        ask: Asks the recogniser.
        explain: What a client is told of an error.
    """

    def __init__(
        self,
        first: Sound,
        *,
        window_s: float,
        step_ms: int,
        ask: Ask,
        explain: Callable[[BaseException], Problem],
    ) -> None:
        self._stream: Message = first
        self._window = int(window_s * RATE) - RATE // 2
        self._step = ms(step_ms)
        self._ask, self._explain = ask, explain
        self._how = Listening()
        self._voice = Voice()
        self._recent: deque[Frame] = deque(maxlen=MOST_PADDING // FRAME + BEGIN_FRAMES + LINGER_FRAMES + 1)
        self._turn: Turn | None = None
        self._piece: Piece | None = None
        self._cutting = False
        self._ended: deque[Turn] = deque()
        self._at = self._free = self._done = self._settled = first.at

    @property
    def blocked(self) -> bool:
        """Whether nothing more can be heard before there is an answer."""
        if self._cutting:
            return self._piece is not None and self._piece.waits
        closed = [piece for turn in self._turns for piece in turn.pieces if piece.closed]
        return sum(piece.waits for piece in closed) >= MOST_CLOSED or self._over() is None

    @property
    def unanswered(self) -> list[Answer]:
        """What was asked and is not answered."""
        return [answer for turn in self._turns for answer in turn.unanswered]

    @property
    def told(self) -> bool:
        """Whether all turns that have ended are told."""
        return not self._ended

    @property
    def settled(self) -> int:
        """The position before which nothing need be read again; it never falls.

        There must be enough before it for the VAD to hear the same. If there is a pause, it is in there, so that a new
        owner does not take the end of a turn for one; without any for long, it may: its beginning lies before the end
        of what was told.
        """
        first = min((turn.start for turn in self._turns), default=self._at)
        place = first // (RESET * FRAME) * RESET * FRAME - MEMORY - self._padding
        if place >= self._done or place >= self._settled + SETTLE:
            self._settled = max(self._settled, place)
        return self._settled

    def frame(self, frame: Frame, how: Listening) -> Iterator[Message]:
        """Hear the next 32 ms; must not be `blocked`, and what is to be collected must be."""
        self._switch(how)
        self._recent.append(frame)
        self._at = frame.end
        voiced = self._voice.hear(frame, self._detection.threshold)
        if self._cutting:
            self._cut()
        if self._piece is not None:
            self._piece.add(frame.samples, voiced=voiced)
        elif self._voice.begun:
            yield from self._begin(self._voice.begun)
        self._look(voiced=voiced)

    def skip(self, at: int) -> Iterator[Message]:
        """Go on at position `at`, or with another encoding: a turn that was found by its speech ends before."""
        if self._turn is not None and self._turn.item:
            yield self._stopped()
        self._close()
        self._recent.clear()
        self._voice = Voice()
        self._at = self._free = at

    def commit(self, item: str, how: Listening) -> None:
        """The turn ends here, by hand, as `item`."""
        self._how = how
        turn = self._turn or self._opened("")
        turn.name(item, partials=self._how.partials)
        self._end()
        self._free = self._at
        self._voice = Voice(cut=True)

    def clear(self) -> None:
        """Forget what came since the last turn."""
        if self._turn is not None:
            self._turn.give_up()
        self._turn = self._piece = None
        self._cutting = False
        self._voice = Voice(cut=True)
        self._free = self._done = self._at

    def stop(self) -> Iterator[Message]:
        """There will be no more: a turn that was found by its speech ends here."""
        if self._turn is not None and self._turn.item:
            yield self._stopped()
        else:
            self.clear()

    def collect(self) -> Iterator[Message]:
        """Take in what has been answered since, and tell what became certain by it, turn by turn."""
        if self._over():
            if self._named.item:
                yield self._stopped()
            else:
                self.clear()
        while self._ended:
            yield from self._ended[0].collect(self._explain)
            if not self._ended[0].over:
                return
            self._ended.popleft()
        if self._turn is not None:
            yield from self._turn.collect(self._explain)

    def give_up(self) -> None:
        """Nobody listens any more."""
        for answer in self.unanswered:
            answer.cancel()

    @property
    def _detection(self) -> Detection:
        return self._how.detection or MANUAL

    @property
    def _limits(self) -> Limits:
        return limits(self._detection)

    @property
    def _padding(self) -> int:
        return min(ms(self._detection.padding_ms), MOST_PADDING)

    @property
    def _named(self) -> Turn:
        assert self._turn is not None
        return self._turn

    @property
    def _turns(self) -> list[Turn]:
        """Those that are not wholly told."""
        return [*self._ended, *([self._turn] if self._turn else [])]

    def _switch(self, how: Listening) -> None:
        """Listen as is said from now on. Who begins to have turns found has none that waits for a commit."""
        if how.detection is not None and self._how.detection is None and self._turn is not None:
            self.clear()
        self._how = how

    def _begin(self, count: int) -> Iterator[Message]:
        """Speech has begun `count` frames ago: a piece of it, and a turn where there is none."""
        speech = self._at - count * FRAME
        padded = max(speech - self._padding, self._free)
        frames = [frame.samples for frame in self._recent if frame.end - FRAME >= padded]
        self._piece = Piece(self._at - len(frames) * FRAME, frames, count, speech)
        if self._turn is None:
            start = max(self._piece.start, self._done)
            self._opened(item_of(self._stream, start) if self._how.detection else "", start)
            if self._how.detection:
                yield SpeechStarted(self._stream.session, self._stream.turn, self._named.item, start)
        self._named.pieces.append(self._piece)

    def _opened(self, item: str, start: int | None = None) -> Turn:
        """A new turn; one that is ended by hand begins where the last one ended."""
        begins = start if start is not None and item else max(self._free, self._done)
        self._turn = Turn(self._stream, item, begins, partials=self._how.partials)
        return self._turn

    def _look(self, *, voiced: bool) -> None:
        """Ask for words where it is time, and close what is complete."""
        if (piece := self._piece) is None:
            return
        silence, quiet = self._at - self._voice.last, self._limits.quiet
        if voiced and piece.closing:
            piece.go_on(self._step)
        elif silence >= quiet and not piece.closing:
            piece.ask_to_close(self._asking, "eager")
        length = piece.end - piece.start
        if silence >= self._pause(length):
            self._close()
        elif length >= self._window:
            piece.go_on(self._step)
            piece.ask_to_close(self._asking, "final")
            self._cutting = True
        elif silence < quiet and self._wants_words(self._named, piece):
            piece.ask(self._asking)
        if self._over() is None:
            piece.need(self._asking)

    def _pause(self, length: int) -> int:
        """The silence at which a piece that is so long is closed."""
        if length >= self._window // 2:
            return SHORT_PAUSE
        return PAUSE if length >= self._window // 4 - CONTEXT else LONG_PAUSE

    def _wants_words(self, turn: Turn, piece: Piece) -> bool:
        """Whether it is time to tell what was said so far."""
        return bool(turn.item) and self._how.partials and piece.worded and piece.end - piece.asked >= self._step

    def _asking(self, frames: Sequence[Samples], urgency: Urgency) -> Answer:
        return self._ask(frames, urgency, self._how, self._named.language)

    def _close(self) -> None:
        """The piece ends; what comes is another one, which the silence at its end is before as well.

        For by the time that speech is found a little of it is over: the silence may have its first sound.
        """
        if self._piece is not None:
            self._piece.close(self._asking)
            self._free = self._voice.last
            self._piece = None
            self._cutting = False

    def _cut(self) -> None:
        """The piece was as long as can be: go on with its rest."""
        assert self._piece is not None
        self._piece = self._piece.cut()
        self._named.pieces.append(self._piece)
        self._cutting = False

    def _over(self) -> bool | None:
        """Whether the turn is over by its silence or its length; None if one must know for that what was said."""
        if self._turn is None:
            return False
        if self._at - self._turn.start >= MOST_TURN:
            return True
        if not self._turn.item or self._how.detection is None:
            return False
        silence = self._at - self._voice.last
        return self._limits.reached(silence, self._turn.text, self._turn.language or "en")

    def _stopped(self) -> SpeechStopped:
        """The turn ends here, by itself."""
        item = self._named.item
        self._end()
        return SpeechStopped(self._stream.session, self._stream.turn, item, self._at)

    def _end(self) -> None:
        """The turn ends here."""
        self._close()
        turn, self._turn = self._named, None
        turn.end = self._done = self._at
        self._ended.append(turn)
