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
        """Whether tokens of a row see each other both ways; then all of them run in every step."""
        return self.kind in ("masked", "encoder")

    @property
    def has_decoder(self) -> bool:
        """Whether an encoder reads the row and a decoder answers."""
        return self.kind == "seq2seq"

    @property
    def has_words(self) -> bool:
        """Whether a language-model head gives words to answer with."""
        return self.kind != "encoder"

    @property
    def generates(self) -> bool:
        """Whether the base can generate answers token by token."""
        return self.kind in ("causal", "seq2seq")

    @property
    def answers_at_end(self) -> bool:
        """Whether the answer follows the row's text in the same sequence."""
        return self.kind == "causal"

    @property
    def mixes_prompts(self) -> bool:
        """Whether rows behind different prompts run in one batch."""
        return self.kind == "causal"

    @property
    def keeps_positions(self) -> bool:
        """Whether tokens run at the positions that we give them, so that keys and values in front may have
        positions."""
        return self.kind == "causal"

    @property
    def blank_id(self) -> int | None:
        """The id that replaces a hidden token: the mask token, which an encoder also has from its pretraining."""
        blank: int | None = getattr(self.tokenizer, "mask_token_id", None)
        return blank if self.bidirectional else None
