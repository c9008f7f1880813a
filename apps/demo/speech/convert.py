"""Turn the trained model into what the stock faster-whisper loads: CTranslate2 in int8, some small files."""

import json
import tempfile
from pathlib import Path
from typing import Any

from apps.demo.speech import tokenizer
from apps.demo.speech.features import MELS
from apps.demo.speech.model import SOURCE_POSITIONS, TARGET_POSITIONS, Shape, Whisper

MODEL = Path(__file__).parents[1] / "models" / "asr"
CHUNK_S = 8
BOUNDS = {"no_speech_threshold": 0.3, "logprob_threshold": 0.0, "logprob_floor": -0.7}
"""What of it is not to be believed (see the speech stage's judgement.py): it is surer than OpenAI's models.

Of 1,650 clips of speech, in noise and on the telephone too, none is above the first bound and one below the last;
of what music still gives text, nearly all is.
"""


def config(model: Whisper) -> dict[str, Any]:
    """The Hugging Face configuration of `model`."""
    shape, eot = model.shape, tokenizer.special("endoftext")
    return {
        "vocab_size": tokenizer.size(), "num_mel_bins": MELS, "d_model": shape.width,
        "encoder_layers": shape.encoder, "encoder_attention_heads": shape.heads, "encoder_ffn_dim": shape.inner,
        "decoder_layers": shape.decoder, "decoder_attention_heads": shape.heads, "decoder_ffn_dim": shape.inner,
        "max_source_positions": SOURCE_POSITIONS, "max_target_positions": TARGET_POSITIONS,
        "bos_token_id": eot, "eos_token_id": eot, "pad_token_id": eot,
        "decoder_start_token_id": tokenizer.special("startoftranscript"),
    }  # fmt: skip


def convert(model: Whisper, folder: Path) -> None:
    """Write `model` into `folder`; what is there already is replaced."""
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    stock = WhisperForConditionalGeneration(WhisperConfig(**config(model)))
    weights = {f"model.{name}": weight for name, weight in model.state_dict().items() if "_head." not in name}
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    stock.load_state_dict(weights)
    eot = tokenizer.special("endoftext")
    stock.generation_config.suppress_tokens = [eot + at for at in range(1, 8)]
    stock.generation_config.begin_suppress_tokens = []
    with tempfile.TemporaryDirectory() as temporary:
        stock.save_pretrained(temporary)
        tokenizer.save(Path(temporary))
        TransformersConverter(temporary, copy_files=["tokenizer.json"]).convert(
            str(folder), quantization="int8", force=True
        )
    amend(folder / "config.json", {"alignment_heads": alignment_heads(model.shape)})
    (folder / "generation_config.json").write_text(json.dumps(BOUNDS, indent=2) + "\n")
    extractor = {
        "chunk_length": CHUNK_S, "feature_size": MELS, "hop_length": 160, "n_fft": 400, "sampling_rate": 16_000,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2) + "\n")


def alignment_heads(shape: Shape) -> list[list[int]]:
    """The (layer, head) that tells where words are: of those that were taught to, the last.

    With others beside it words begin .01 s nearer, but where the sound goes on after the last word, as in all partial
    transcripts, one word end in ten is more than .1 s late.
    """
    return [[shape.decoder - 1, 0]]


def amend(file: Path, values: dict[str, Any]) -> None:
    """Put `values` into a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values, indent=2) + "\n")
