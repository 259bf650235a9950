"""JumpReLU SAE (Rajamanoharan et al. 2024)."""
