"""Expander SAE (Mendoza-Smith 2026)."""
