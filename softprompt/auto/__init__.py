"""`auto`: which base and method answer these rows best, found by cross-validation, alone or together.

Several cheap ways are tried beside the learned prompt on the same folds, so that what is chosen has a reference beside it.
Where one is as good as all together it answers alone; else they answer together, weighted by the rows that they were not
trained on.
"""

from .choosing import Choice, choose
from .contenders import Contender, contenders_for, is_open
from .trying import Kept, Tried, cross_validate

__all__ = ["Choice", "Contender", "Kept", "Tried", "choose", "contenders_for", "cross_validate", "is_open"]
