"""Weights: names, files, formats. Loading is strict and never runs code that a file brings.

A file of ours is safetensors with the configuration in its metadata. A published file is a pickle
of tensors, `{"params": …}`, `{"params": …, "params_ema": …}` or a bare dictionary, with or without
`module.` before each name; its configuration is read off the tensors' shapes.

load.py        names and files → a network         save.py       a network → a file; convert, blend
published.py   the published names and layout      tensorfile.py files of tensors, opened safely
"""

from iart.weights.load import load_model, model_names, read_metadata, read_model
from iart.weights.published import published_name
from iart.weights.save import blend, convert, save_model, weights_hash

__all__ = [
    "blend",
    "convert",
    "load_model",
    "model_names",
    "published_name",
    "read_metadata",
    "read_model",
    "save_model",
    "weights_hash",
]
