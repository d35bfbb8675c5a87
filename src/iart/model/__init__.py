"""The network: torch and einops only, CPU and GPU alike."""
