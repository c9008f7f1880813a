"""Whisper's encoder and decoder in plain torch, with the names of Hugging Face's weights.

Beside the transcript it learns from espeak's timings: which phoneme (half way up the encoder) and
which word (at its top) each 20 ms frame is part of, and where the first head of each decoder layer
should look. These heads are dropped when the model is converted.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apps.demo.speech import tokenizer
from apps.demo.speech.features import MELS

SOURCE_POSITIONS = 1500
TARGET_POSITIONS = 448
PADDING = 40


class Shape(NamedTuple):
    """The sizes of the model."""

    width: int = 128
    heads: int = 4
    inner: int = 512
    encoder: int = 4
    decoder: int = 2
    phonemes: int = 96


class Heard(NamedTuple):
    """What the encoder makes of (clips, MELS, frames); `hidden` may have positions of the padding at its end."""

    hidden: Tensor
    """(clips, positions, width)"""
    phonemes: Tensor
    """(clips, frames / 2, phonemes)"""
    weight: Tensor
    """(positions,): the logarithm of how many positions each stands for"""


class Attention(nn.Module):
    """Whisper's attention: no bias on the keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def _apart(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend to itself; `bias` is added to the scores."""
        return self.cross(x, x, bias)[0]

    def cross(self, x: Tensor, other: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to `other`; also the weights, (clips, heads, positions of x, positions of other)."""
        q, k, v = self._apart(self.q_proj(x)), self._apart(self.k_proj(other)), self._apart(self.v_proj(other))
        with torch.autocast("cpu", enabled=False):  # or the softmax would be in float32, and a sixth slower
            scores = (q / math.sqrt(q.shape[-1])) @ k.mT
            weights = (scores + bias.to(scores.dtype)).softmax(-1)
            mixed = weights @ v
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out, weights


class EncoderLayer(nn.Module):
    """Attention and two linear layers, normalised before."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.self_attn_layer_norm = nn.LayerNorm(shape.width)
        self.fc1 = nn.Linear(shape.width, shape.inner)
        self.fc2 = nn.Linear(shape.inner, shape.width)
        self.final_layer_norm = nn.LayerNorm(shape.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(clips, positions, width) to the same."""
        x = x + self.self_attn(self.self_attn_layer_norm(x), bias)
        inner: Tensor = self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return x + inner


class DecoderLayer(EncoderLayer):
    """With a look at what the encoder heard."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.encoder_attn = Attention(shape)
        self.encoder_attn_layer_norm = nn.LayerNorm(shape.width)

    def look(self, x: Tensor, heard: Heard) -> tuple[Tensor, Tensor]:
        """(clips, tokens, width) to the same, and where it looked: (clips, heads, tokens, positions)."""
        later = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)
        x = x + self.self_attn(self.self_attn_layer_norm(x), later)
        seen, weights = self.encoder_attn.cross(self.encoder_attn_layer_norm(x), heard.hidden, heard.weight)
        x = x + seen
        inner: Tensor = self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return x + inner, weights


class Encoder(nn.Module):
    """Features to hidden states, two frames to one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, shape.width, 3, padding=1)
        self.conv2 = nn.Conv1d(shape.width, shape.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(SOURCE_POSITIONS, shape.width)
        self.embed_positions.weight = nn.Parameter(sinusoids(SOURCE_POSITIONS, shape.width), requires_grad=False)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder))
        self.layer_norm = nn.LayerNorm(shape.width)


class Decoder(nn.Module):
    """Tokens to hidden states."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(tokenizer.size(), shape.width)
        self.embed_positions = nn.Embedding(TARGET_POSITIONS, shape.width)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder))
        self.layer_norm = nn.LayerNorm(shape.width)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        nn.init.normal_(self.embed_positions.weight, std=0.02)


class Whisper(nn.Module):
    """The whole model and its three heads of the training."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.phoneme_head = nn.Linear(shape.width, shape.phonemes)
        self.word_head = nn.Linear(shape.width, tokenizer.size() - tokenizer.TIMESTAMPS)

    def hear(self, features: Tensor, positions: int = 0) -> Heard:
        """Encode (clips, MELS, frames), frames even, as if it were padded with zeros to `positions`.

        Of the padding, which sounds the same everywhere, only PADDING positions are worked out, taken at
        random and weighted for all: Whisper's 1,500 positions cost no more than those that have sound.
        """
        x = self.convolved(features) + self.encoder.embed_positions.weight[: features.shape[-1] // 2]
        weight, length = torch.zeros(x.shape[1]), x.shape[1]
        if positions > length:
            some = length + torch.randperm(positions - length)[:PADDING]
            silent = self.convolved(torch.zeros(1, MELS, 8))[:, 2] + self.encoder.embed_positions.weight[some]
            x = torch.cat([x, silent.expand(len(x), -1, -1)], 1)
            weight = torch.cat([weight, torch.full((len(some),), math.log((positions - length) / len(some)))])
        half, phonemes = len(self.encoder.layers) // 2, x
        for at, layer in enumerate(self.encoder.layers, 1):
            x = layer(x, weight)
            phonemes = x if at == half else phonemes
        return Heard(self.encoder.layer_norm(x), self.phoneme_head(phonemes[:, :length]), weight)

    def convolved(self, features: Tensor) -> Tensor:
        """(clips, MELS, frames) to (clips, frames / 2, width)."""
        x = F.gelu(self.encoder.conv1(features))
        return F.gelu(self.encoder.conv2(x)).transpose(1, 2)

    def write(self, tokens: Tensor, heard: Heard) -> tuple[Tensor, list[Tensor]]:
        """The logits after each of `tokens` (clips, tokens), and where each layer looked."""
        x = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[: tokens.shape[1]]
        looks = []
        for layer in self.decoder.layers:
            assert isinstance(layer, DecoderLayer)
            x, weights = layer.look(x, heard)
            looks.append(weights)
        return F.linear(self.decoder.layer_norm(x), self.decoder.embed_tokens.weight), looks


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's fixed positions of the encoder, (length, channels)."""
    steps = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * steps[None, :]
    return torch.cat([angles.sin(), angles.cos()], 1)
