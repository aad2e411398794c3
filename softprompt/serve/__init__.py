"""Answers to requests that come at any time, from one process that holds the bases and the artifacts."""
