"""For those who come from PEFT and TRL: a configuration of PEFT's and rows in TRL's shapes, trained by this engine.

import peft
import softprompt as sp

config = peft.LoraConfig(r=8, target_modules="all-linear")
result = sp.peft.fit(config, [{"prompt": "…", "completion": " …"}], "smollm2", "runs/mine")
peft.PeftModel.from_pretrained(model, result.artifact)
"""

from __future__ import annotations

from .configs import method as method
from .fitting import fit as fit

__all__ = ["fit", "method"]
