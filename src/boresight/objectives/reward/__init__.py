"""Objectives that train a reward model."""
