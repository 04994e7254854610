"""Data: `Example`, reading, rendering and tokenising."""
