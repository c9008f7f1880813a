"""The features of the training are those of the recognition."""

import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor

from apps.demo.speech.features import LogMel


def test_equal_faster_whispers() -> None:
    """Each clip of a batch has the features that faster-whisper makes of it alone, and zeros after them."""
    rng = np.random.default_rng(0)
    clips = [(rng.normal(size=length) * loud).astype(np.float32) for length, loud in ((16_000, 0.1), (9_999, 0.001))]
    clips[0][:4000] = 0
    waves = torch.zeros(2, 16_000)
    for row, clip in zip(waves, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)

    found = LogMel()(waves, torch.tensor([len(clip) for clip in clips]))

    for mine, clip in zip(found.numpy(), clips, strict=True):
        theirs = FeatureExtractor()(clip)
        np.testing.assert_allclose(mine[:, : theirs.shape[1] - 2], theirs[:, :-2], atol=2e-5)
        assert not mine[:, theirs.shape[1] :].any()
