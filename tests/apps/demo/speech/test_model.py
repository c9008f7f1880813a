"""The ear's own code against stock Whisper."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from apps.demo.speech import model
from apps.demo.speech.convert import config
from apps.demo.speech.model import Shape, Whisper

SHAPE = Shape(width=32, heads=2, inner=64, encoder=2, decoder=2)


@pytest.fixture
def whisper() -> Whisper:
    """A small one, fresh."""
    torch.manual_seed(0)
    return Whisper(SHAPE).eval()


def test_logits_equal_the_stock_models(whisper: Whisper) -> None:
    """Transformers' Whisper, with the same weights, hears and writes the same."""
    stock = WhisperForConditionalGeneration(WhisperConfig(**config(whisper))).eval()
    weights = {f"model.{name}": one for name, one in whisper.state_dict().items() if "_head." not in name}
    stock.load_state_dict(weights | {"proj_out.weight": weights["model.decoder.embed_tokens.weight"]})
    features, tokens = torch.randn(1, 80, 3000), torch.randint(0, 500, (1, 7))

    with torch.no_grad():
        logits, _ = whisper.write(tokens, whisper.hear(features))
        theirs = stock(input_features=features, decoder_input_ids=tokens).logits

    torch.testing.assert_close(logits, theirs, atol=1e-4, rtol=1e-4)


def test_padding_that_is_worked_out_in_part(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of its positions it is the real padding to the last digit; with some of them it is near."""
    features = torch.nn.functional.pad(torch.randn(1, 80, 90), (0, 10))
    with torch.no_grad():
        real = whisper.hear(torch.nn.functional.pad(features, (0, 700))).hidden[:, :50]
        some = whisper.hear(features, 400).hidden
        none = whisper.hear(features).hidden
        monkeypatch.setattr(model, "PADDING", 1000)
        all_of_it = whisper.hear(features, 400).hidden[:, :50]

    assert some.shape[1] == 50 + 40
    torch.testing.assert_close(all_of_it, real, atol=1e-4, rtol=1e-4)
    assert (some[:, :50] - real).abs().mean() < 0.5 * (none - real).abs().mean()


def test_a_token_does_not_see_those_after_it(whisper: Whisper) -> None:
    """What is said next depends on what was said before alone."""
    heard = whisper.hear(torch.randn(1, 80, 60))
    one, other = torch.randint(0, 500, (1, 6)), torch.randint(0, 500, (1, 6))
    other[:, :4] = one[:, :4]

    (first, _), (second, _) = whisper.write(one, heard), whisper.write(other, heard)

    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:])


def test_bundled_files_are_small() -> None:
    """What is shipped takes at most 5 MB."""
    from apps.demo.speech.convert import MODEL

    assert sum(file.stat().st_size for file in Path(MODEL).iterdir()) <= 5_000_000
