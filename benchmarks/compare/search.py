"""How learning rates are searched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from softprompt.config import Strict


class SearchSpec(Strict):
    """How each learning rate is chosen on dev. Every method that learns by gradients gets the same number of trials.

    Attributes:
        trials: learning rates tried.
        spread: ratio of neighbours in the grid round a method's default rate; of `log_uniform` the whole range is the grid's.
        draw: `grid`, or `log_uniform`: seeded draws from the same range (Bergstra & Bengio 2012).
        halving: null: every trial makes all steps. η: all trials make a share of the steps, the best 1/η of them η times as
            many, and so on until one is left (successive halving, Jamieson & Talwalkar 2016).
        seed: of the trials; none of the seeds that are reported, so that these are alike.
    """

    trials: PositiveInt = 3
    spread: float = Field(default=3.0, gt=1)
    draw: Literal["grid", "log_uniform"] = "grid"
    halving: float | None = Field(default=None, ge=2)
    seed: int = Field(default=1000, ge=0)

    @property
    def shares(self) -> list[float]:
        """Share of all steps that a trial makes in each round, ascending."""
        if self.halving is None or self.trials == 1:
            return [1.0]
        rounds, left = 0, self.trials
        while left > 1:
            rounds, left = rounds + 1, self.kept(left)
        return [self.halving**-power for power in range(rounds, 0, -1)]

    def kept(self, trials: int) -> int:
        """How many of a round's trials go on."""
        return max(1, int(trials / self.halving)) if self.halving else 1

    @property
    def cost(self) -> float:
        """Full runs' worth of steps in the whole search of one method."""
        if self.trials == 1:
            return 0.0
        total, left = 0.0, self.trials
        for share in self.shares:
            total, left = total + left * share, self.kept(left)
        return total
