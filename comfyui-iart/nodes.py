"""The nodes *IART load model* and *IART upscale*."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import comfy.model_management  # pyright: ignore[reportMissingImports]
import comfy.utils  # pyright: ignore[reportMissingImports]
import folder_paths  # pyright: ignore[reportMissingImports]
import torch
from jaxtyping import Float
from torch import Tensor, nn

from iart import Frame, load_model, model_names, upscale_frames
from iart.video.read.scenes import CutDetector

FOLDER = "iart"
"""Kind of models, as ComfyUI calls it: files lie in `models/iart`."""
ENDINGS = (".safetensors", ".pth")
_RATE = Fraction(25)  # nothing depends on it

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


class LoadModel:
    """A model that ships with iart, or a file of weights in `models/iart`."""

    RETURN_TYPES = ("IART_MODEL",)
    FUNCTION = "load"
    CATEGORY = "video/iart"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Names and precisions to choose from."""
        files = [n for n in folder_paths.get_filename_list(FOLDER) if n.endswith(ENDINGS)]
        names = [*reversed(model_names()), *files]
        precisions = ["auto", "float32", "bfloat16", "float16"]
        return {"required": {"name": (names,), "precision": (precisions,)}}

    def load(self, name: str, precision: str) -> tuple[nn.Module]:
        """The model, on ComfyUI's device."""
        path = name if name in model_names() else folder_paths.get_full_path(FOLDER, name)
        device = comfy.model_management.get_torch_device()
        return (load_model(path or name, device, precision),)


class Upscale:
    """A batch of pictures, taken as a video, four times larger."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "video/iart"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Windows in time, tiles in space, and whether cuts are looked for."""
        options = {
            "window": ("INT", {"default": 16, "min": 1, "max": 256}),
            "overlap": ("INT", {"default": 3, "min": 0, "max": 64}),
            "tile": ("INT", {"default": 0, "min": 0, "max": 4096, "tooltip": "0: automatic"}),
            "find_cuts": ("BOOLEAN", {"default": True}),
        }
        return {"required": {"model": ("IART_MODEL",), "images": ("IMAGE",), **options}}

    def upscale(
        self,
        model: nn.Module,
        images: Float[Tensor, "n h w c"],
        window: int,
        overlap: int,
        tile: int,
        find_cuts: bool,
    ) -> tuple[Float[Tensor, "n 4*h 4*w c"]]:
        """Enlarge RGB or RGBA in [0, 1]; alpha goes its own way.

        Memory is given back however it ends: after an interruption, too.
        """
        bar = comfy.utils.ProgressBar(len(images))
        place = comfy.model_management.intermediate_device()
        n, h, w, c = images.shape
        large = torch.empty(n, 4 * h, 4 * w, c, device=place)
        try:
            enlarged = upscale_frames(
                _frames(images, find_cuts),
                model,
                window=window,
                overlap=min(overlap, max(0, (window - 1) // 2)),
                tile=tile or "auto",
            )
            for index, frame in enumerate(enlarged):
                comfy.model_management.throw_exception_if_processing_interrupted()
                channels = [frame.data] if frame.alpha is None else [frame.data, frame.alpha]
                large[index] = torch.cat(channels).permute(1, 2, 0)
                bar.update_absolute(index + 1, len(images))
        finally:
            comfy.model_management.soft_empty_cache()
        return (large,)


def _frames(images: Float[Tensor, "n h w c"], find_cuts: bool) -> Iterator[Frame]:
    """Pictures as frames of a video, of which cuts mark the first ones of scenes."""
    detector = CutDetector() if find_cuts else None
    for index, image in enumerate(images.float().clamp(0, 1)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        rgb, alpha = image[..., :3], image[..., 3:]
        is_cut = False
        if detector is not None:
            array = (rgb * 255).round().byte().cpu().numpy()
            grey = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="gray")
            is_cut = detector.is_cut(grey)
        planes = rgb.permute(2, 0, 1).contiguous()
        has_alpha = alpha.shape[-1] == 1
        yield Frame(
            planes, index, 1 / _RATE, 1, is_cut, alpha.permute(2, 0, 1) if has_alpha else None
        )


NODE_CLASS_MAPPINGS = {"IARTLoadModel": LoadModel, "IARTUpscale": Upscale}
NODE_DISPLAY_NAME_MAPPINGS = {
    "IARTLoadModel": "IART load model",
    "IARTUpscale": "IART upscale",
}
