"""Experiment trackers: what a run measures goes to TensorBoard, Trackio, Weights & Biases or MLflow while it trains."""

from .base import Tracker
from .reporter import Reporter, check_installed, reporting

__all__ = ["Reporter", "Tracker", "check_installed", "reporting"]
