"""What is asked in `penstock bench llm`: conversations of the demo domain, and the seven standard kinds of prompts.

No prompt is asked twice in a run, so that no cache of prompts shortens one; but what many begin with (a system prompt)
may be shared by who can. Same seed, same prompts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count, cycle
from typing import TYPE_CHECKING

from apps.bench.llm_contest import Ids
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MISSES = 2000
"""Conversations in a row without a prompt that fits, after which there is none."""

KINDS = ("short", "medium", "long", "multi-turn", "code", "maths", "long context")

SHORT = (
    "What is the capital of Portugal?",
    "Name three rivers in Asia.",
    "北京今天的天气怎么样?",
    "请用一句话介绍长城。",
)
MEDIUM = (
    (
        "I have been learning to cook for a few months and my bread never rises the way it should. The kitchen is cold "
        "in the morning and I use dried yeast from a packet. What could be wrong, and what should I try first?"
    ),
    (
        "Write a short letter to my landlord. The heating in the living room has not worked since Tuesday, the plumber "
        "who came on Thursday did not have the part, and I would like to know when it will be mended."
    ),
    "我刚开始学习弹钢琴,每天只有半个小时的练习时间。请帮我安排一个四周的计划,并说明每周的重点是什么。",
    "请把下面的会议内容整理成三点:市场部希望推迟发布,技术部认为可以按时完成,财务部要求先确认预算。",
)
STORY = (
    "The lighthouse stood on a rock so small that at spring tide the sea took the lower steps. Two keepers lived there "
    "in turns of six weeks, and the one who went ashore left a letter for the one who came: what had broken, what had "
    "been eaten, which lamp smoked and how the weather had been. Over forty years the letters filled a chest. "
)
TALE = (
    "山脚下有一个小村子,村里只有一口井。每天清晨,人们排着队打水,一边等一边说着各家的新闻。后来有人提议修一条水渠,"
    "大家商量了整整一个冬天,才决定从哪里开始挖。"
)
CODE = (
    (
        "Find the mistake in this function and write it anew:\n"
        "def median(values):\n    values.sort()\n    middle = len(values) / 2\n    if len(values) % 2:\n"
        "        return values[middle]\n    return (values[middle] + values[middle + 1]) / 2\n"
    ),
    (
        "Write a SQL query: all customers who ordered in March and not in April, with the sum of what they paid, "
        "from orders(id, customer_id, day, amount) and customers(id, name)."
    ),
    "用 Python 写一个函数,读取一个 CSV 文件,返回每一列的平均值,忽略空的单元格:\ndef averages(path):\n",
    "解释下面这段代码的作用:\nfor (let i = 0; i < rows.length; i++) { total += rows[i].price * rows[i].count; }\n",
)
RECORDS = 24
MATHS = (
    (
        "A train leaves at 9:40 and travels 186 km at 62 km/h, waits 25 minutes and goes on for 93 km at the same "
        "speed. When does it arrive? Show each step."
    ),
    "Solve for x: 3x^2 - 14x + 8 = 0. Then check both solutions.",
    "一个水池有两个进水管,单开甲管 6 小时注满,单开乙管 9 小时注满。两管同时开,几小时注满?请写出过程。",
    "求函数 f(x) = x^3 - 6x^2 + 9x + 1 在区间 [0, 4] 上的最大值和最小值。",
)


def standard(kind: str, number: int, rng: random.Random) -> list[dict[str, str]]:
    """The messages of the `number`-th prompt of `kind`; every other pair is Chinese."""
    english = number % 4 < 2
    match kind:
        case "short" | "medium" | "code" | "maths":
            texts = {"short": SHORT, "medium": MEDIUM, "code": CODE, "maths": MATHS}[kind]
            return [_user(texts[number % len(texts)])]
        case "long":
            text = STORY * 3 + "Go on with the story." if english else TALE * 4 + "请继续写这个故事。"
            return [_user(text)]
        case "multi-turn":
            asked = SHORT[:2] + MEDIUM[:1] if english else SHORT[2:] + MEDIUM[2:3]
            said = "Gladly. Tell me a little more about it." if english else "好的,请再说得详细一点。"
            return [message for text in asked[:-1] for message in (_user(text), _assistant(said))] + [_user(asked[-1])]
        case _:
            return [_user(_records(rng, english=english))]


def _records(rng: random.Random, *, english: bool) -> str:
    """Many lines, and a question about one of them."""
    line = "Order {0}: {1} pairs, paid {2}." if english else "订单 {0}:{1} 双,已付 {2}。"
    orders = [(rng.randrange(10_000, 99_999), rng.randrange(1, 9), rng.randrange(20, 400)) for _ in range(RECORDS)]
    asked = rng.choice(orders)[0]
    question = f"How many pairs were in order {asked}?" if english else f"订单 {asked} 有几双?"
    return "\n".join([*(line.format(*order) for order in orders), question])


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def standard_prompts(tokenizer: PreTrainedTokenizerBase, *, longest: int, seed: int) -> Iterator[Ids]:
    """All kinds in turn, without end; a number in front makes each another prompt. Only of at most `longest` tokens.

    Raises:
        SettingsError: none is so short.
    """
    rng, misses = random.Random(f"standard {seed}"), 0
    for number, kind in zip(count(), cycle(KINDS), strict=False):
        messages = standard(kind, number // len(KINDS), rng)
        messages[0]["content"] = f"{number + 1}. {messages[0]['content']}"
        ids = _ids(tokenizer, messages)
        misses = 0 if len(ids) <= longest else misses + 1
        if not misses:
            yield ids
        elif misses > 4 * len(KINDS):  # each kind has four texts
            raise _too_many(longest)


def demo_prompts(tokenizer: PreTrainedTokenizerBase, *, tokens: int, longest: int, seed: int) -> Iterator[Ids]:
    """Held-out conversations with the demo's shop, without end, whose right answer has at least `tokens` tokens.

    The last thing said is a question; what the assistant said before are right answers.

    Raises:
        SettingsError: there are no such, or no more of them.
    """
    from apps.demo.grammar import dialogue, system_prompt
    from apps.demo.phrases import NoPhrase, Split

    rng = random.Random(f"demo {seed}")
    known: set[Ids] = set()
    misses = 0
    while misses < MISSES:
        misses += 1
        messages = [{"role": "system", "content": text}] if (text := system_prompt(rng)) else []
        try:
            turns = list(dialogue(rng, Split.TEST, noise=0.5))
        except NoPhrase:
            continue
        for turn in turns:
            messages.append(_user(turn.user))
            ids = _ids(tokenizer, messages)
            enough = len(tokenizer.encode(turn.replies[0], add_special_tokens=False)) >= tokens
            if enough and len(ids) <= longest and ids not in known:
                known.add(ids)
                misses = 0
                yield ids
                break
            messages.append(_assistant(turn.replies[0]))
    raise _too_many(longest)


def _too_many(longest: int) -> SettingsError:
    return SettingsError(
        "--tokens", f"there are no prompts of at most {longest} tokens with such answers; ask for fewer"
    )


def _ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> Ids:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return tuple(tokenizer.encode(text, add_special_tokens=False))
