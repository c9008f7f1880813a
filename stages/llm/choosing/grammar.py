"""Answers that match a JSON schema or a regular expression: which tokens may come next, in an answer and in its drafts.

By llguidance: measured beside xgrammar and outlines-core it alone refuses what it cannot enforce, takes milliseconds
where those take seconds for some grammars, and needs no other package. Knows of a model only how its tokens are spelt.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from pipeline.errors import InvalidParameter
from pipeline.messages import Grammar, Prompt
from stages.llm.cache.kv import common

if TYPE_CHECKING:
    from stages.llm.models.model import LoadedModel

KEPT = 32
"""Compiled grammars that are kept for the next request."""

SPACE = r"[\x20\x0A]{1,20}"
"""Blanks that may stand between the parts of JSON; a model could go on with them for ever."""

SPELT = 64
"""Bytes of what must come next that are put into tokens: the next one is among them."""

LONGEST_WHY = 200
WHYS: Mapping[str, str] = MappingProxyType(
    {
        "NoExtension": "no text matches it",
        "NoExtensionBias": "no text matches it",
        "ParserTooComplex": "it is too complex",
        "LexerTooComplex": "it is too complex",
    }
)


class Grammars:
    """Compile grammars for the tokens of `model`, in a thread of its own: no stream waits for that."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-grammar")

    async def matcher(self, prompt: Prompt) -> Matcher | None:
        """What follows the answer to `prompt` from `prompt.emitted` on; None if it may be anything.

        What is compiled already is had at once; all else waits for what was asked for before.

        Raises:
            InvalidParameter: the grammar is none, or no text matches it.
        """
        grammar = prompt.sampling.grammar
        if grammar is None:
            return None
        machine = self._known(grammar)
        if machine is None:
            machine = await asyncio.get_running_loop().run_in_executor(self._thread, self._made, grammar)
        return Matcher(machine.deep_copy(), len(prompt.ids), self._model.eos)

    def close(self) -> None:
        """Take no more; what is being compiled is left to itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _known(self, grammar: Grammar) -> LLMatcher | None:
        with self._lock:
            if grammar not in self._compiled:
                return None
            self._compiled.move_to_end(grammar)
            return self._compiled[grammar]

    def _made(self, grammar: Grammar) -> LLMatcher:
        compiled = self._known(grammar)  # another may have asked for it meanwhile
        if compiled is None:
            compiled = self._compile(grammar)
            with self._lock:
                self._compiled[grammar] = compiled
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
        return compiled

    def _compile(self, grammar: Grammar) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = spelt(self._model)
        limits = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
        machine = LLMatcher(self._tokenizer, _source(grammar), log_level=0, limits=limits)
        if not machine.is_error():
            machine.compute_bitmask()  # only now it is found out whether there is a first token at all
        if machine.is_error():
            raise InvalidParameter("grammar", why(machine))
        return machine


class Matcher:
    """Where one answer stands in its grammar. Its tokens begin at `start` of the sequence's ids, which only grow.

    `error` says what has gone wrong, if anything; the answer cannot go on then.
    """

    def __init__(self, machine: LLMatcher, start: int, eos: frozenset[int]) -> None:
        self._machine, self._start, self._eos = machine, start, eos
        self._certain = 0
        self._tried: list[int] = []
        """What the machine has taken after the `_certain` first tokens of the answer."""
        self._masks: dict[int, Tensor] = {}
        """By the number of the token that they are for."""
        self.error: str | None = None

    def mask(self, ids: Sequence[int], drafts: Sequence[int]) -> Tensor | None:
        """Which tokens may follow `ids` and `drafts` (see `Choice.mask`); None if the drafts have left the grammar."""
        number = len(ids) - self._start + len(drafts)
        if not self._follow(ids, drafts):
            return None
        if number not in self._masks:
            words = bytearray(self._machine.compute_bitmask())
            self._masks[number] = torch.frombuffer(words, dtype=torch.int32)
            self._check()
        return self._masks[number]

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether nothing may follow `ids` but the end."""
        wanted = ids[self._start + self._certain :]
        if len(wanted) < len(self._tried) and common(self._tried, wanted) == len(wanted):
            return False  # something did follow
        return self._follow(ids, ()) and bool(self._machine.is_stopped())

    def _follow(self, ids: Sequence[int], drafts: Sequence[int]) -> bool:
        """Bring the machine to where `ids` and `drafts` end, or as far that a mask is known; whether that can be."""
        if self.error is not None or any(token in self._eos for token in drafts):
            return False
        new = ids[self._start + self._certain :]
        wanted = [*new, *drafts]
        same = common(self._tried, wanted)
        if same < len(wanted) or self._certain + same not in self._masks:
            self._go(wanted, same)
        if len(self._tried) < len(new):
            self._fail("the answer does not match it")
            return False
        self._certain += len(new)
        reached = len(self._tried) >= len(wanted)
        del self._tried[: len(new)]
        self._masks = {number: mask for number, mask in self._masks.items() if number >= self._certain}
        return reached

    def _go(self, wanted: list[int], same: int) -> None:
        """Take back all but the `same` first of what was tried, and try the rest of `wanted`."""
        if same < len(self._tried):
            self._machine.rollback(len(self._tried) - same)
            self._masks = {number: mask for number, mask in self._masks.items() if number <= self._certain + same}
        taken = 0 if self._machine.is_stopped() else self._machine.try_consume_tokens(wanted[same:])
        self._tried = wanted[: same + taken]
        self._check()

    def _check(self) -> None:
        if self._machine.is_error():
            self._fail(why(self._machine))

    def _fail(self, problem: str) -> None:
        self.error = self.error or problem


def _source(grammar: Grammar) -> str:
    if grammar.kind == "regex":
        return str(LLMatcher.grammar_from_regex(grammar.text))
    try:
        return str(LLMatcher.grammar_from_json_schema(grammar.text, overrides={"whitespace_pattern": SPACE}))
    except ValueError as error:
        raise InvalidParameter("grammar", f"is no JSON schema: {error}") from error


def why(machine: LLMatcher) -> str:
    """What is wrong with a grammar, in one line."""
    lines = machine.get_error().splitlines() or ["it cannot be used"]
    told = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    return WHYS.get(told, told)[:LONGEST_WHY]


def spelt(model: LoadedModel) -> LLTokenizer:
    """The tokens of `model` as the library wants them.

    Raises:
        InvalidParameter: they are not spelt in bytes, so that nobody can say which of them go on with a text.
    """
    if not model.vocabulary.spells_bytes:
        raise InvalidParameter("grammar", f"the tokens of {model.name!r} are not spelt in bytes, as grammars need it")
    end = sorted(model.eos) or [model.tokens]
    return LLTokenizer(TokenizerWrapper(_Spelling(model, end[0])), n_vocab=model.tokens + 1, eos_token=end)


class _Spelling:
    """What the library asks of a tokenizer. A text is put into tokens as the model's own would, at its beginning."""

    bos_token_id = None

    def __init__(self, model: LoadedModel, end: int) -> None:
        self.eos_token_id = end
        self.tokens = [model.vocabulary.bytes_of(token) for token in range(model.tokens)] + [b""]
        self.special_token_ids = [token for token, data in enumerate(self.tokens) if not data]
        self._backend = model.tokenizer.backend_tokenizer
        self._known = {data: token for token, data in reversed(list(enumerate(self.tokens))) if data}
        self._longest = max(map(len, self._known))

    def __call__(self, text: str | bytes) -> list[int]:
        data = (text.encode() if isinstance(text, str) else text)[:SPELT]
        ids: list[int] = self._backend.encode(data.decode(errors="ignore"), add_special_tokens=False).ids
        if ids and data.startswith(b"".join(self.tokens[token] for token in ids)):
            return ids
        return self._longest_first(data)

    def _longest_first(self, data: bytes) -> list[int]:
        ids = []
        while data:
            sizes = range(min(self._longest, len(data)), 0, -1)
            size = next((size for size in sizes if data[:size] in self._known), 0)
            if not size:
                break
            ids.append(self._known[data[:size]])
            data = data[size:]
        return ids
