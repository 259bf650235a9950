"""Specialised SAE: tilted training over any base (Muhamed, Diab, Smith 2025)."""
