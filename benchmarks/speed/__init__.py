"""A step of ours against a step of its peer's: seconds, memory, how much of the machine is used, how cost grows."""
