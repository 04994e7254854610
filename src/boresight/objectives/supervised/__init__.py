"""Objectives that imitate demonstrations."""
