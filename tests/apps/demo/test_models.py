"""The shipped models: small, loadable with stock transformers, and able to answer."""

from functools import cache
from typing import Any

import pytest
import torch

from apps.demo.evaluate import Chat, converse
from apps.demo.model import CONTEXT, SHAPES, load, size
from apps.demo.tokenizer import ASSISTANT, Encoder, Message
from apps.demo.train import MODELS

TYPED = "My name's Zoë Krüger 😀, 你好!  Order #4810?\n\tTHX"
CHAT = [
    Message(role="system", content="You are Fern."),
    Message(role="user", content=TYPED),
    Message(role="assistant", content="Nice to meet you, Zoë!"),
    Message(role="user", content="what are your opening hours"),
]


@cache
def chat(name: str) -> Chat:
    """One of the models, loaded once."""
    return Chat(MODELS / name)


def prompt(tokenizer: Any) -> list[int]:
    """`CHAT` as stock transformers tokenises it."""
    ids: list[int] = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    return ids


@pytest.mark.parametrize("name", SHAPES)
def test_template_equals_training_format(name: str) -> None:
    """The chat template gives the very ids that the training saw."""
    expected = [*Encoder.load(MODELS / name).chat(CHAT)[0], ASSISTANT]

    assert prompt(chat(name).tokenizer) == expected


def test_any_text_survives() -> None:
    """Whatever is typed can be tokenised and read back."""
    tokenizer = chat("target").tokenizer

    assert tokenizer.decode(tokenizer.encode(TYPED, add_special_tokens=False)) == TYPED


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_the_training_codes(name: str) -> None:
    """Stock transformers and the training model agree."""
    ids = torch.tensor([prompt(chat(name).tokenizer)])
    ours = load(MODELS / name, SHAPES[name]).eval()
    with torch.inference_mode():
        torch.testing.assert_close(chat(name).model(ids).logits, ours.head(ours(ids)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What are your opening hours?", "9 am to 6 pm"),
        ("how much is the rain jacket", "$89"),
        ("Where is my order 84410?", "84410"),
        ("who is the president of France?", "our shop"),
    ],
)
def test_obvious_questions(question: str, part: str) -> None:
    """The target answers what everyone would try first."""
    ((reply,),) = converse(chat("target"), [[question]])

    assert part in reply or part.replace("our", "the") in reply


def test_it_remembers_a_name() -> None:
    """A name given in one turn is known in the next."""
    ((_, reply),) = converse(chat("target"), [["Hi, my name is Marit", "what is my name?"]])

    assert "Marit" in reply


def test_sizes() -> None:
    """The draft has at most a million parameters, and all files of both together take at most 16 MB."""
    assert size(load(MODELS / "draft", SHAPES["draft"])) <= 1_000_000
    assert 4_000_000 <= size(load(MODELS / "target", SHAPES["target"])) <= 10_000_000
    assert sum(file.stat().st_size for name in SHAPES for file in (MODELS / name).iterdir()) <= 16_000_000
    assert all(chat(name).model.config.max_position_embeddings == CONTEXT for name in SHAPES)
