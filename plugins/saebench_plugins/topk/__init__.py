"""TopK SAE (Gao et al. 2024)."""
