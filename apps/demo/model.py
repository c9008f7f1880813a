"""A Llama for training: Hugging Face's names and maths, without the rest.

What `save` writes, `AutoModelForCausalLM.from_pretrained` loads, with the same logits.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig

from apps.demo.tokenizer import BOS, END, PAD, SIZE

CONTEXT = 1024
THETA = 10_000.0
DROPOUT = 0.1


class Shape(NamedTuple):
    """The sizes of one model."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    head: int = 64


SHAPES = {"target": Shape(256, 6, 4, 2, 704), "draft": Shape(128, 3, 2, 1, 384)}


class Norm(nn.Module):
    """Root mean square norm, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
        return self.weight.to(x.dtype) * wide.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x is (batch, heads, length, head), cos and sin (length, head)."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, all (batch, heads, length, head).

    On a CPU in bfloat16, plain products are twice as fast as torch's own for short rows, forward and back.
    """
    length = q.shape[2]
    if length > 600 or q.dtype is not torch.bfloat16 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT + mask
    out: Tensor = scores.softmax(-1) @ v
    return out


class Attention(nn.Module):
    """Causal self-attention with grouped keys and values."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.kv_heads * shape.head, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.kv_heads * shape.head, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Same shape as `x`, (batch, length, width)."""
        rows, length, _ = x.shape
        q, k, v = (
            layer(x).view(rows, length, -1, self.shape.head).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        groups = self.shape.heads // self.shape.kv_heads
        k = rotate(k, cos, sin).repeat_interleave(groups, 1)
        out = attend(rotate(q, cos, sin), k, v.repeat_interleave(groups, 1))
        joined: Tensor = self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))
        return joined


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.width)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.width)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Same shape as `x`."""
        x = x + self._dropped(self.self_attn(self.input_layernorm(x), cos, sin))
        out: Tensor = x + self._dropped(self.mlp(self.post_attention_layernorm(x)))
        return out

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, DROPOUT, self.training)


class Llama(nn.Module):
    """Token ids to hidden states; `head` makes logits of them, with the tied embeddings."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, vocab: int = SIZE) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(vocab, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width)
        self._initialise()
        turns = torch.outer(
            torch.arange(CONTEXT).float(), THETA ** (-torch.arange(0, shape.head, 2).float() / shape.head)
        )
        angles = torch.cat((turns, turns), -1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.02 if "embed" in name else weight.shape[1] ** -0.5
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=scale * (0.3 if small else 1.0))

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, length) to (batch, length, width)."""
        x = self.embed_tokens(ids)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        cos, sin = (table[: ids.shape[1]].to(x.dtype) for table in (self.cos, self.sin))
        for layer in self.layers:
            x = layer(x, cos, sin)
        out: Tensor = self.norm(x)
        return out

    def head(self, x: Tensor) -> Tensor:
        """(…, width) to (…, vocabulary)."""
        return F.linear(x, self.embed_tokens.weight)


def size(model: nn.Module) -> int:
    """How many parameters, shared ones once."""
    return sum(weight.numel() for weight in model.parameters())


def save(model: Llama, folder: Path) -> None:
    """Write weights (bfloat16) and configuration as Hugging Face reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.named_parameters()
    }
    fresh = folder / "model.safetensors.new"
    save_file(weights, fresh, metadata={"format": "pt"})
    fresh.replace(folder / "model.safetensors")
    shape = model.shape
    LlamaConfig(
        vocab_size=model.embed_tokens.num_embeddings, hidden_size=shape.width,
        intermediate_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head,
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": THETA}, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    GenerationConfig(
        bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD, do_sample=False, max_new_tokens=256
    ).save_pretrained(folder)


def load(folder: Path, shape: Shape) -> Llama:
    """Read back what `save` wrote, without dropout."""
    weights = {
        name.removeprefix("model."): weight.float() for name, weight in load_file(folder / "model.safetensors").items()
    }
    model = Llama(shape, len(weights["embed_tokens.weight"])).eval()
    model.load_state_dict(weights)
    return model
