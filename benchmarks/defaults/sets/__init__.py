"""The data sets that the defaults are measured on, made anew from public repositories at recorded commits."""
