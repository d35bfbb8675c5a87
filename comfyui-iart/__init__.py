"""Nodes for ComfyUI: put this folder, or a link to it, into `custom_nodes`.

They need iart in ComfyUI's Python: pip install iart-vsr
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS  # noqa: TID252

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
