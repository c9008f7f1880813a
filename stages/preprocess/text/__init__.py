"""The text stage: turns in, prompts out."""

from stages.preprocess.text.stage import TextStage, text_stage

__all__ = ["TextStage", "text_stage"]
