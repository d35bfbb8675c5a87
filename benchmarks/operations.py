"""Operations of PyTorch that a GPU is given for one pass of the network, counted without a GPU.

    python benchmarks/operations.py [light|full|FILE] [--height 480 --width 720 --frames 4]
        [--backend triton] [--gradients]

A pass goes through the code that a GPU takes, on PyTorch's meta device: its tensors have shapes but
no numbers. Views cost nothing and are not counted; flow is left out, and so is what autocast adds:
all is float32 there. Each operation is at least one launch, and reads and writes memory: printed
are both, for a step of the recurrence (frames x branches), and what there is most of. With
`--gradients` a pass is one of training: forward and backward, and what is kept in between.
"""

import argparse
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iart.bench.measure import load_network
from iart.model import IART, IARTConfig
from iart.model.kernels.dispatch import BACKENDS

WAITS = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "item", "masked_select")
"""Operations that let the processor wait for a GPU: for a number, or for the size of a result."""


class Operations(TorchDispatchMode):
    """Counts what is computed in the block.

    Attributes:
        calls: by name, without views.
        bytes: by name, of inputs and outputs.
        waits: names of operations that wait for the device, or copy to it from the processor
            without being told not to wait.
        kept: bytes of the tensors that are kept for gradients, each memory once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.waits: list[str] = []
        self._kept: dict[int, Tensor] = {}

    @property
    def kept(self) -> int:
        """See above."""
        storages = {x.untyped_storage()._cdata: x for x in self._kept.values()}
        return sum(x.untyped_storage().nbytes() for x in storages.values())

    def keep(self, x: Tensor) -> Tensor:
        """Note that it is kept."""
        self._kept[id(x)] = x
        return x

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket)
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        across = len({x.device.type for x in (*inputs, *outputs) if x.ndim}) > 1
        across = across and not (kwargs or {}).get("non_blocking")
        if across or name.rsplit(".", 1)[-1] in WAITS:
            self.waits.append(name)
        if not (func.is_view or name == "aten.detach" or name == "aten._unsafe_view"):
            self.calls[name] += 1
            self.bytes[name] += sum(x.numel() * x.element_size() for x in (*inputs, *outputs))
        return out


def count(
    config: IARTConfig,
    frames: int,
    height: int,
    width: int,
    *,
    backend: str = "triton",
    gradients: bool = False,
) -> Operations:
    """Operations of one pass of the network on a GPU, flow not counted.

    Args:
        config: of the network.
        frames: of the clip.
        height: in pixels.
        width: in pixels.
        backend: one of `iart.model.kernels.dispatch.BACKENDS`.
        gradients: a pass of training, forward and backward, without the optimiser.
    """
    with torch.device("meta"):
        network = IART(config).eval().requires_grad_(gradients)
        network.backend = backend
        clip = torch.empty(1, frames, 3, height, width)
        flow = torch.empty(1, frames - 1, 2, height, width)
    with torch.set_grad_enabled(gradients), Operations() as operations:
        kept = torch.autograd.graph.saved_tensors_hooks(operations.keep, lambda x: x)
        with kept:
            out = network(clip, flows=(flow, flow))
        if gradients:
            out.backward(torch.empty_like(out))
    return operations


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="light", help="light, full or a file")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=720)
    parser.add_argument("--backend", choices=BACKENDS, default="triton")
    parser.add_argument("--gradients", action="store_true", help="forward and backward")
    args = parser.parse_args()
    config = load_network(args.model, "cpu").config
    found = count(
        config,
        args.frames,
        args.height,
        args.width,
        backend=args.backend,
        gradients=args.gradients,
    )
    steps = args.frames * config.branches
    calls, size = found.calls.total(), found.bytes.total()
    print(f"{args.model}, {args.frames} frames of {args.width}x{args.height}")
    print(f"{calls} operations, {calls / steps:.1f} per step; {size / steps / 1e6:.0f} MB per step")
    print(f"{found.kept / steps / 1e6:.0f} MB per step kept for gradients")
    print(f"waits for the device: {', '.join(sorted(set(found.waits))) or 'none'}")
    for name, number in found.calls.most_common(25):
        print(f"{name:32}{number / steps:10.2f} per step{found.bytes[name] / steps / 1e6:10.1f} MB")


if __name__ == "__main__":
    main()
