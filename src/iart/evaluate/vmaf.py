"""VMAF of a clip, computed by an external program if there is one: `vmaf`, or ffmpeg with libvmaf.

Li et al., "Toward a Practical Perceptual Video Quality Metric", Netflix 2016; 0 … 100, more is
better. The program's own default model is used (vmaf_v0.6.1 today). Models look at luma alone: they
are given BT.601 Y, rounded to 8 bits, in 4:2:0 with chroma left grey.
"""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from iart.errors import DataError, MissingExtraError
from iart.evaluate.metrics import rgb_to_y

RESULT, GT, LOG = "result.y4m", "gt.y4m", "vmaf.json"


@dataclass(frozen=True)
class VmafProgram:
    """A program that computes VMAF; `arguments` compare RESULT with GT and write LOG."""

    path: Path
    arguments: tuple[str, ...]


def find_vmaf() -> VmafProgram:
    """The first program on the PATH that can compute VMAF.

    Raises:
        MissingExtraError: there is none.
    """
    if found := shutil.which("vmaf"):
        files = ("--reference", GT, "--distorted", RESULT, "--json", "--output", LOG, "--quiet")
        return VmafProgram(Path(found).absolute(), files)
    found = shutil.which("ffmpeg")
    if found and _has_libvmaf(found):
        graph = f"[0:v][1:v]libvmaf=log_fmt=json:log_path={LOG}"
        inputs = ("-i", RESULT, "-i", GT)
        quiet = ("-nostdin", "-hide_banner", "-loglevel", "error")
        return VmafProgram(
            Path(found).absolute(), (*quiet, *inputs, "-lavfi", graph, "-f", "null", "-")
        )
    has = f"'{found}' was built without libvmaf" if found else "there is no 'vmaf' or 'ffmpeg'"
    raise MissingExtraError(
        f"vmaf is not computed: {has}. Put Netflix's vmaf, or an ffmpeg with libvmaf, on the PATH"
    )


class VmafClip:
    """One clip on its way to the program: frames go to temporary files, uncompressed.

    The files (3 bytes per pixel and frame together) stay until `close`. Everything raises OSError
    if the disk is full or the program cannot be started.
    """

    def __init__(self, program: VmafProgram) -> None:
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="iart-vmaf-")
        self._files = [(Path(self._folder.name) / name).open("wb") for name in (RESULT, GT)]
        self._frames = 0

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.close()
        self._folder.cleanup()

    def add(self, result: UInt8[Tensor, "3 h w"], gt: UInt8[Tensor, "3 h w"]) -> None:
        """Write the next frame."""
        height, width = gt.shape[-2:]
        chroma = bytes([128]) * (2 * ((height + 1) // 2) * ((width + 1) // 2))
        for file, frame in zip(self._files, (result, gt), strict=True):
            if self._frames == 0:
                file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode())
            luma = rgb_to_y(frame).round().to(torch.uint8).cpu().numpy()
            file.write(b"FRAME\n" + luma.tobytes() + chroma)
        self._frames += 1

    def scores(self) -> list[float]:
        """VMAF of each frame, in order.

        Raises:
            DataError: the program fails or scores another number of frames.
        """
        for file in self._files:
            file.close()
        command = [str(self._program.path), *self._program.arguments]
        done = subprocess.run(
            command,
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        try:
            log = json.loads((Path(self._folder.name) / LOG).read_bytes())
            found = [float(frame["metrics"]["vmaf"]) for frame in log["frames"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise DataError(
                f"vmaf is not computed: '{self._program.path}' failed: {said}"
            ) from error
        if len(found) != self._frames:
            raise DataError(f"'{self._program.path}' scored {len(found)} frames of {self._frames}")
        return found


def _has_libvmaf(ffmpeg: str) -> bool:
    listing = subprocess.run(
        [ffmpeg, "-hide_banner", "-filters"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return b" libvmaf " in listing.stdout
