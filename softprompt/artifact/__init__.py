"""Artifacts: the small folder that a method saves. It loads back, swaps, and where PEFT can express it, loads there."""

from . import peft_format
from .checks import check_base, check_savable
from .ensemble import Ensemble, check_ensemble_place, is_ensemble, load_ensemble, write_ensemble
from .manifest import FORMAT_VERSION, Manifest
from .peft_folder import read_peft, read_peft_weights
from .push import Pushed, push
from .source import folder_of
from .store import Artifact, check_place, load, save

__all__ = [
    "FORMAT_VERSION",
    "Artifact",
    "Ensemble",
    "Manifest",
    "Pushed",
    "check_base",
    "check_ensemble_place",
    "check_place",
    "check_savable",
    "folder_of",
    "is_ensemble",
    "load",
    "load_ensemble",
    "peft_format",
    "push",
    "read_peft",
    "read_peft_weights",
    "save",
    "write_ensemble",
]
