"""Objectives on preferences: pairs, and responses labelled desirable or not."""
