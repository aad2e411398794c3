"""`softprompt try`: which way is best for a file of rows, by a cross-validation of `bench compare` in a few minutes."""
