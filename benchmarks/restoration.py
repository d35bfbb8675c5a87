"""Score shipped models on the frozen protocols: docs/models.md, benchmarks/scores.json, a picture.

    python benchmarks/restoration.py dvd            # bicubic, light likewise: a few minutes each
    python benchmarks/restoration.py --take dvd80.safetensors dvd   # new weights of a name, scored
    python benchmarks/restoration.py --picture       # docs/images/restoration.webp

Rows of models that are not named stay. Reports go to results/; runs that stopped are resumed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from iart import load_model, upscale
from iart.evaluate.benchmark import run
from iart.evaluate.made import make_frames
from iart.evaluate.protocol import read_protocol
from iart.pictures.degrade import to_uint8
from iart.reports.details import sheet
from iart.video.open import open_video
from iart.weights import read_metadata, read_model, save_model

ROOT = Path(__file__).parents[1]
PAGE, SCORES = ROOT / "docs" / "models.md", ROOT / "benchmarks" / "scores.json"
PICTURE = ROOT / "docs" / "images" / "restoration.webp"
PROTOCOLS = ("mpeg2-q4", "mpeg2-q8", "dvd", "tape", "web")
MODELS = ("bicubic", "light", "dvd")
HEADER = "| protocol | model | PSNR | SSIM | tOF | flicker | blockiness | sharpness |"
METRICS = {"psnr": 2, "ssim": 4, "tof": 3, "flicker": 2, "blockiness": 3, "sharpness": 3}
"""Of a record, with decimals."""

ASSETS = ROOT / "src" / "iart" / "assets"
LEARNT_FROM = (
    "DAVIS 2017 (CC BY 4.0), Intel car-detection (CC BY 4.0), Sintel (CC BY 3.0), photographs of"
    " pop-os/wallpapers (public domain), drawn stills"
)
DEGRADATION = {
    "light": "MATLAB bicubic x1/4, 8 bit",
    "dvd": "DVDs, tapes, video of the web (docs/degradation.md); a fifth clean reductions",
}

SHOWN = (
    # protocol, clip, frame, left, top: a detail in pixels of the ground truth
    ("mpeg2-q8", "bunny", 7, 120, 60),
    ("dvd", "canyon", 7, 90, 90),
    ("tape", "lake", 7, 90, 90),
    ("dvd", "drawn-3", 7, 90, 90),
)
SIDE = 160


def take(weights: Path, name: str) -> None:
    """Make weights of a training run those that ship under a name."""
    known = read_metadata(weights)
    about = {key: known[key] for key in ("step", "blend") if key in known} | {
        "name": name,
        "licence": "MIT",
        "degradation": DEGRADATION[name],
        "learnt_from": LEARNT_FROM,
        "training": "docs/models.md",
    }
    save_model(read_model(weights), ASSETS / f"{name}.safetensors", metadata=about)


def score(name: str) -> None:
    """Measure a model by each protocol, and write its rows."""
    scores: dict[str, dict[str, Any]] = json.loads(SCORES.read_text())
    own: dict[str, Any] = {"psnr": {}}
    for protocol in PROTOCOLS:
        record = run(protocol, weights=name, device="cpu")
        means = record.means()
        own["psnr"][protocol] = round(means["psnr"], 2)
        if name != "bicubic":
            own["weights"] = record.weights_hash
        values = [f"{means[metric]:.{digits}f}" for metric, digits in METRICS.items()]
        print(protocol, name, *values, flush=True)
        _write_row(protocol, name, values)
    scores[name] = own
    lines = (f' "{key}": {json.dumps(scores[key])}' for key in MODELS if key in scores)
    SCORES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _write_row(protocol: str, model: str, values: list[str]) -> None:
    """One row of the table of the page, beside those that are there."""
    lines = PAGE.read_text().splitlines()
    first = lines.index(HEADER) + 2
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    rows, shown = {}, ""
    for line in lines[first:last]:
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        shown = cells[0] or shown
        rows[shown, cells[1]] = cells[2:]
    rows[protocol, model] = values
    table = []
    for place in PROTOCOLS:
        names = [name for name in MODELS if (place, name) in rows]
        for name in names:
            label = f"`{place}` " if name == names[0] else ""
            told = name if name == "bicubic" else f"`{name}`"
            table.append(f"| {label}| {told} | {' | '.join(rows[place, name])} |")
    PAGE.write_text("\n".join([*lines[:first], *table, *lines[last:]]) + "\n")


def draw() -> None:
    """Details of clips of the protocols: bicubic, light, dvd, ground truth."""
    rows = []
    networks = [load_model(name, "cpu") for name in MODELS]
    for name, clip, frame, left, top in SHOWN:
        protocol, folder = make_frames(read_protocol(name))
        low, truth = (
            torch.stack([f.data for f in open_video(folder / place / clip, scenes=False)])
            for place in (protocol.lq[0], protocol.gt)
        )
        made = [*(upscale(low, network)[frame] for network in networks), truth[frame]]
        cut = [to_uint8(image)[:, top : top + SIDE, left : left + SIDE] for image in made]
        rows.append((f"{name}, {clip}", cut))
    sheet([*MODELS, "original"], rows, zoom=1).save(PICTURE, quality=80)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", choices=[*MODELS, []])
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("--take", type=Path, metavar="FILE", help="weights to ship as the model")
    asked = parser.parse_args()
    if asked.take and (len(asked.models) != 1 or asked.models[0] not in DEGRADATION):
        parser.error("--take wants one model: light or dvd")
    if asked.take:
        take(asked.take, asked.models[0])
    for name in asked.models:
        score(name)
    if asked.picture:
        draw()


if __name__ == "__main__":
    main()
