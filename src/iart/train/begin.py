"""The network that a run begins with: new, or with weights of others taken over."""

import logging
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from iart.errors import WeightsError
from iart.model import IART
from iart.model.flow import SpyNet
from iart.train.options import Options
from iart.train.start import start
from iart.weights import published_name, read_model
from iart.weights.load import PUBLISHED_KEYS
from iart.weights.published import constants, unused_tensors
from iart.weights.tensorfile import (
    choose_weights,
    is_safetensors,
    read_pickle,
    read_safetensors,
    some,
)

_log = logging.getLogger(__name__)

LICENCE = (
    "SpyNet's published weights allow non-commercial research only, and so does what is trained"
    " from them"
)


def new_network(options: Options, *, resumed: bool = False) -> IART:
    """The network at step 0, the same on every process.

    Args:
        options: of the run.
        resumed: leave out what a saved state brings anyhow.

    Raises:
        WeightsError: a file of weights is missing, damaged or does not fit; names it.
    """
    torch.manual_seed(options.manual_seed)
    model = IART(options.network_g.config()).train()
    if resumed:
        return model
    start(model)
    source, spynet = options.path.pretrain_network_g, options.network_g.spynet_path
    if source is not None:  # it holds a flow network as well
        load_network(model, source, options.path.param_key_g, strict=options.path.strict_load_g)
    elif spynet is not None:
        load_flow(model, spynet)
    return model


def load_network(model: IART, path: Path, key: str, *, strict: bool) -> None:
    """Take over weights of a whole network, published or ours.

    Args:
        model: takes them.
        path: a file.
        key: which weights of a published file; one that has "params" alone gives these.
        strict: whether all must fit; if not, what does not is logged and left as it is.

    Raises:
        WeightsError: the file cannot be used, or `strict` and the network is another.
    """
    if strict:
        _take_all(model, path, key)
    else:
        _take_what_fits(model, path, key)


def _take_all(model: IART, path: Path, key: str) -> None:
    other = read_model(path, key=key if _has(path, key) else None)
    theirs = replace(other.config, drop_path=model.config.drop_path)  # leaves no trace in weights
    if theirs != model.config:
        words = "; ".join(
            f"{name} is {getattr(theirs, name)}, network_g has {getattr(model.config, name)}"
            for name in (field.name for field in fields(theirs))
            if getattr(theirs, name) != getattr(model.config, name)
        )
        raise WeightsError(
            f"cannot use '{path}' as path.pretrain_network_g: {words}. Change network_g, or take "
            "over what fits with path.strict_load_g=false"
        )
    model.load_state_dict(other.state_dict())


def _take_what_fits(model: IART, path: Path, key: str) -> None:
    tensors, published = _tensors(path, key)
    own = {
        published_name(name) if published else name: parameter
        for name, parameter in model.named_parameters()
    }
    fitting = {n: p for n, p in own.items() if n in tensors and tensors[n].shape == p.shape}
    with torch.no_grad():
        for name, parameter in fitting.items():
            parameter.copy_(tensors[name])
    known = own.keys() | constants(model).keys() | unused_tensors(model.config).keys()
    left = {
        "not in the file": [name for name in own if name not in tensors],
        "of another shape": [name for name in own if name in tensors and name not in fitting],
        "unknown": [name for name in tensors if name not in known],
    }
    if any(left.values()):
        words = "; ".join(f"{what}: {some(names)}" for what, names in left.items() if names)
        _log.info("'%s' gave %d of %d tensors; %s", path, len(fitting), len(own), words)


def _tensors(path: Path, key: str) -> tuple[dict[str, Tensor], bool]:
    """(tensors by name, whether the names are the published ones)."""
    try:
        if is_safetensors(path):
            return read_safetensors(path)[1], False
        content = read_pickle(path)
        chosen = key if isinstance(content, dict) and key in content else None
        return choose_weights(content, chosen, PUBLISHED_KEYS), True
    except (WeightsError, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise WeightsError(f"cannot use '{path}': {reason}") from error


def _has(path: Path, key: str) -> bool:
    """Whether a published file has weights under a key; of others, and without a file, not."""
    try:
        content = None if is_safetensors(path) else read_pickle(path)
    except (WeightsError, OSError):
        return False
    return isinstance(content, dict) and key in content


def load_flow(model: IART, path: Path) -> None:
    """Take over a flow network: SpyNet's published file, or weights of a whole network.

    Raises:
        WeightsError: the file is missing or damaged, or its flow network has other sizes.
    """
    instead = "Pass another network_g.spynet_path, or null for flow weights of our own"
    try:
        tensors, published = _tensors(path, "params")
        if published and any(name.startswith("basic_module.") for name in tensors):
            _fill(model.flow, tensors, path)
            _log.info("'%s': %s", path, LICENCE)
            return
        other = read_model(path)
    except WeightsError as error:
        raise WeightsError(f"network_g.spynet_path: {error}. {instead}") from error
    sizes = (other.config.flow_channels, other.config.flow_levels)
    wanted = (model.config.flow_channels, model.config.flow_levels)
    if sizes != wanted:
        raise WeightsError(
            f"network_g.spynet_path: the flow network in '{path}' has channels and levels {sizes}, "
            f"network_g has {wanted}. {instead}"
        )
    model.flow.load_state_dict(other.flow.state_dict())


def _fill(flow: SpyNet, tensors: dict[str, Tensor], path: Path) -> None:
    """Fill a flow network from SpyNet's published tensors; its constants may be among them."""
    own = {_spynet_name(name): parameter for name, parameter in flow.named_parameters()}
    wrong = [
        f"{name} is {list(tensors[name].shape) if name in tensors else 'missing'}"
        f", expected {list(parameter.shape)}"
        for name, parameter in own.items()
        if name not in tensors or tensors[name].shape != parameter.shape
    ]
    wrong += [f"{name} is unknown" for name in tensors if name not in (*own, "mean", "std")]
    wrong += [f"{name} is not finite" for name, t in tensors.items() if not t.isfinite().all()]
    if wrong:
        raise WeightsError(f"cannot use '{path}': it is of another flow network: {some(wrong)}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def _spynet_name(name: str) -> str:
    """The name of a parameter of the flow network in SpyNet's published file."""
    return published_name(f"flow.{name}").removeprefix("spynet.")
