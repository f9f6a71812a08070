"""The diffusion process only: noise, loss and samplers; no network."""
