"""What every method promises, what is the same thing reached two ways, and how it compares with PEFT's own code."""
