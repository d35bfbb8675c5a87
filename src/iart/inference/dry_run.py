"""What would be done for an order, told after all checks and before any work."""

from torch import nn

from iart.inference.job import begun_parts, known_tiling
from iart.inference.order import Order
from iart.inference.video import plan_for
from iart.video.describe import describe
from iart.video.image_writer import PicturePlan
from iart.video.pending import Place

Lines = list[tuple[str, str]]


def dry_run(
    order: Order, model: nn.Module, *, overwrite: bool = False, processes: int = 1
) -> Lines:
    """Check everything that `upscale_video` checks before its work, and write nothing.

    Args:
        order: what is asked for.
        model: enlarges `b t 3 h w`; runs where its parameters lie.
        overwrite: as for `upscale_video`.
        processes: that will share the work.

    Returns:
        Labelled lines: the source, the output, what becomes of tracks, and where the work begins.

    Raises:
        IARTError: the work would be refused.
    """
    reading = order.reading.resolved()
    with reading.open() as reader:
        info = reader.info
    target = order.plan(info, reading)
    place = Place(order.output, folder=order.is_folder, inputs=[info.path], overwrite=overwrite)
    begun = begun_parts(place, order.identity(model), overwrite=overwrite)
    kept = target.parts(begun).count() if begun else 0
    expected = "" if info.frame_count is None else f" of {info.frame_count}"
    lines = [(label, text) for label, text in describe(info) if not label.startswith("track")]
    if isinstance(target.plan, PicturePlan):
        plan = target.plan
        lines.append(("output", f"{plan.path}, {plan.width}x{plan.height}, PNG"))
    else:
        encode = target.plan.encode
        shape, encoding = encode.shape, encode.encoding
        options = " ".join(f"{k}={v}" for k, v in encoding.options.items() if k != "x265-params")
        lines.append(("output", f"{target.plan.path}, {shape.width}x{shape.height}"))
        lines.append(("codec", f"{encoding.encoder}, {encoding.pixel_format}, {options}"))
        lines += [
            (plan.name, "copied" if plan.target in ("copy", "attach") else f"to {plan.target}")
            for plan in target.plan.assembly.tracks.carried
        ]
    lines += [("note", note) for note in target.plan.notes]
    tiling = None if begun is None else known_tiling(begun.parent)
    if tiling is None:
        tiling = plan_for(order, model, info, processes=processes)
    lines.append(("network", tiling.describe(info.height, info.width)))
    lines.append(("begins", f"at frame {kept}{expected}"))
    return lines
