"""How good the defaults are: every contender as a user gets it, on many data sets with few labelled rows."""
