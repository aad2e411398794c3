"""`auto`: which base and method answer these rows best, found by cross-validation, alone or together.

Several cheap ways are tried beside the learned prompt on the same folds, so that what is chosen has a reference beside it.
Where one is as good as all together it answers alone; else they answer together, weighted by the rows that they were not
trained on.
"""

from .choosing import FEW, Comparison, choose, compare
from .contenders import Contender, contenders_for, is_open
from .running import AutoRun, train_auto
from .trying import Kept, Trainer, Tried, cross_validate

__all__ = [
    "FEW",
    "AutoRun",
    "Comparison",
    "Contender",
    "Kept",
    "Trainer",
    "Tried",
    "choose",
    "compare",
    "contenders_for",
    "cross_validate",
    "is_open",
    "train_auto",
]
