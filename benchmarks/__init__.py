"""Benchmarks, imported as `softprompt.benchmarks` (the folder stands at the top so that it is found)."""
