"""Whisper's log-mel features in torch, for batches; equal to faster-whisper's to 2e-5.

Source: faster-whisper 1.2 `feature_extractor.py` (25 ms Hann window, 10 ms hop, 80 Slaney mels,
eight decades below the loudest point of the clip kept, then (x + 4) / 4).
"""

import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from torch import Tensor

RATE = 16_000
HOP = 160
WINDOW = 400
MELS = 80


class LogMel:
    """Waveforms in, features out."""

    def __init__(self) -> None:
        mels = FeatureExtractor.get_mel_filters(RATE, WINDOW, n_mels=MELS).astype(np.float32)
        self.filters = torch.from_numpy(mels)
        self.window = torch.hann_window(WINDOW)

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """The features of `waves` (clips, samples) of `lengths` samples each, 0 beyond them; (clips, MELS, frames)."""
        padded = torch.nn.functional.pad(waves, (0, HOP))
        spectrum = torch.stft(padded, WINDOW, HOP, window=self.window, pad_mode="reflect", return_complex=True)
        power = spectrum[..., :-1].abs().square()
        logs = (self.filters @ power).clamp(min=1e-10).log10()
        frames = frame_counts(lengths)
        beyond = torch.arange(logs.shape[-1])[None, :] >= frames[:, None]
        loudest = logs.masked_fill(beyond[:, None], -10.0).amax((1, 2), keepdim=True)
        scaled = (torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0
        return scaled.masked_fill(beyond[:, None], 0.0)


def frame_counts(lengths: Tensor) -> Tensor:
    """How many frames clips of `lengths` samples have."""
    return (lengths + HOP) // HOP
