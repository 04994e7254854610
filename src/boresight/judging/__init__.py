"""Judges, votes, arenas, agreement: what to believe of what was said to be better."""
