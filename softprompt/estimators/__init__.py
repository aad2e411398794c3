"""Estimators after scikit-learn's pattern: `fit`, `predict`, `score` over texts in memory, with a prompt behind them."""

from .classifier import PromptClassifier
from .extractor import PromptExtractor
from .generator import PromptGenerator
from .shared import release
from .tagger import PromptTagger

__all__ = ["PromptClassifier", "PromptExtractor", "PromptGenerator", "PromptTagger", "release"]
