"""The network: torch and einops only, CPU and GPU alike."""

from iart.model.iart import IART, IARTConfig

__all__ = ["IART", "IARTConfig"]
