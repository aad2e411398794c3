"""How a row is answered: chosen, written or pointed at. One file a way, behind one contract (`form.py`)."""

from .evaluate import evaluate, evaluate_quickly
from .form import AnswerForm, Compiled, Prompt, find_form
from .gain import Gain, gain_over_best
from .outcome import LIKELIHOOD, Evaluation, Outcome, summarize
from .serving import answer, compiled

__all__ = [
    "LIKELIHOOD",
    "AnswerForm",
    "Compiled",
    "Evaluation",
    "Gain",
    "Outcome",
    "Prompt",
    "answer",
    "compiled",
    "evaluate",
    "evaluate_quickly",
    "find_form",
    "gain_over_best",
    "summarize",
]
