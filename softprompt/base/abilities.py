"""What a base can do, by name. Who needs to know asks for the ability, not for the kind of model that happens to have it."""

from __future__ import annotations

from typing import Any

from .families import Kind


class Abilities:
    """Facts that follow from a base's kind (see `families.py`)."""

    kind: Kind
    tokenizer: Any

    @property
    def bidirectional(self) -> bool:
        """Tokens of a row see each other both ways, so all of them run in every step."""
        return self.kind in ("masked", "encoder")

    @property
    def has_decoder(self) -> bool:
        """An encoder reads the row, a decoder answers."""
        return self.kind == "seq2seq"

    @property
    def has_words(self) -> bool:
        """A language-model head gives words to answer with."""
        return self.kind != "encoder"

    @property
    def generates(self) -> bool:
        """Answers can be written, token by token."""
        return self.kind in ("causal", "seq2seq")

    @property
    def answers_at_end(self) -> bool:
        """An answer stands behind all that is read of the row, in the same sequence."""
        return self.kind == "causal"

    @property
    def mixes_prompts(self) -> bool:
        """Rows behind different prompts run in one batch."""
        return self.kind == "causal"

    @property
    def keeps_positions(self) -> bool:
        """Tokens run at positions that we give them, so keys and values in front may take some."""
        return self.kind == "causal"

    @property
    def blank_id(self) -> int | None:
        """What stands for a token that is hidden: the mask token, which an encoder has from its pretraining, too."""
        blank: int | None = getattr(self.tokenizer, "mask_token_id", None)
        return blank if self.bidirectional else None
