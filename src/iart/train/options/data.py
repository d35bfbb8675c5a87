"""The sets of clips that an option file names."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from iart.model.upsample import SCALE
from iart.train.options.section import (
    IO_BACKEND,
    LOADER,
    OWN_PAIRS,
    PAIRS,
    VALIDATION,
    VIDEO_VALIDATION,
    FilePath,
    Section,
    Share,
    null_is,
)

CropSide = Annotated[int, Field(gt=0, multiple_of=SCALE)]


def _some(frames: int) -> int:
    if frames < 1 and frames != -1:
        raise ValueError("expected a number of frames, or -1 for all of a clip")
    return frames


Frames = Annotated[int, AfterValidator(_some)]


class LoaderOptions(Section):
    """How samples of a training set become batches."""

    known: ClassVar = LOADER

    use_shuffle: bool = True
    """Draw samples in random order, anew every epoch."""
    num_worker_per_gpu: NonNegativeInt = 0
    """Threads per process that make samples ahead; 0: the loop makes them itself."""
    batch_size_per_gpu: PositiveInt = 1
    """Samples per process and micro-batch."""
    dataset_enlarge_ratio: PositiveInt = 1
    """How often an epoch shows every item of the set."""
    gt_size: CropSide = 256
    """Side of the crop, in pixels of ground truth."""

    @property
    def crop_sides(self) -> tuple[int, ...]:
        """Of the crops, of which one is drawn, in pixels of ground truth."""
        return (self.gt_size,)


class DegradationOptions(Section):
    """How often each kind of low resolution is made on the way, in proportion (ours).

    docs/degradation.md says what each kind imitates.
    """

    bicubic: NonNegativeFloat = 0.0
    """MATLAB's bicubic reduction, and nothing else."""
    mpeg2: NonNegativeFloat = 0.0
    """A reduction by the kernels of scalers, then MPEG-2, and nothing else."""
    dvd: NonNegativeFloat = 0.0
    """Reduction, edge enhancement, grain, fields and MPEG-2."""
    tape: NonNegativeFloat = 0.0
    """What a video recorder does, then MPEG-2, DV or nothing."""
    web: NonNegativeFloat = 0.0
    """MPEG-4, H.264, FLV or H.263 at low rates, once or twice."""

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if not self.bicubic + self.mpeg2 + self.dvd + self.tape + self.web:
            yield "give one of bicubic, mpeg2, dvd, tape and web a share above 0"


class SceneOptions(LoaderOptions):
    """Folders of frames and videos, reduced by a random factor before they are ground truth.

    Low resolution is made on the way (ours, for the light model).
    """

    type: Literal["SceneDataset"] = "SceneDataset"
    """Scenes without low resolution of their own."""
    dataroot_gt: FilePath
    """Folder below which folders of frames and videos are scenes."""
    include: tuple[str, ...] = ("*",)
    """Patterns of the names, below the folder, of scenes to use."""
    exclude: tuple[str, ...] = ()
    """Patterns of the names of scenes to leave out."""
    num_frame: PositiveInt = 5
    """Frames of a sample. To validate with: the first frames of each scene, 7 unless given."""
    gt_size: CropSide = 128
    """Side of the crop, in pixels of ground truth."""
    reduce: tuple[float, float] = (1.7, 2.4)
    """Range of the factor by which sources are reduced: 2 hides the compression of a DVD."""
    still_share: Share = 0.25
    """Share of samples made from stills by synthetic camera motion."""
    drawn_share: Share = 0.0
    """Share of samples made so from drawn stills: shapes, gratings and text."""
    photo_share: Share = 0.0
    """Share of samples made so from the photographs of dataroot_photos."""
    dataroot_photos: FilePath | None = None
    """Folder of photographs; null: none."""
    exclude_photos: tuple[str, ...] = ()
    """Patterns of the names, below their folder, of photographs to leave out."""
    degradation: DegradationOptions | None = None
    """How low resolution is made; null: MATLAB's bicubic."""
    samples_on_device: bool | Literal["auto"] = "auto"
    """Compute samples where the network is, a batch at once; threads draw them, and make those that
    a codec has part in. false: threads make all. auto: true on CUDA."""
    batch_size_per_gpu: PositiveInt = 4
    """Samples per process and micro-batch."""

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if not 1 <= self.reduce[0] <= self.reduce[1]:
            yield f"reduce must be two factors, 1 ≤ low ≤ high, got {self.reduce}"
        if self.still_share + self.drawn_share + self.photo_share > 1 + 1e-6:
            yield "still_share, drawn_share and photo_share must be 1 in all at most"
        if self.photo_share and self.dataroot_photos is None:
            yield "photo_share needs dataroot_photos, a folder of photographs"


class IoBackend(Section):
    """Where frames are stored."""

    known: ClassVar = IO_BACKEND

    type: Literal["disk", "lmdb"] = "disk"
    """Folders of images, or LMDB as `iart data lmdb` writes it."""


class PairedOptions(LoaderOptions):
    """Clips of ground truth, and the same clips at a quarter of the size."""

    known: ClassVar = PAIRS

    dataroot_gt: FilePath
    """Folder (or LMDB) of clips of ground truth."""
    dataroot_lq: FilePath | None = None
    """Folder (or LMDB) of the same clips at low resolution; null: see degradation."""
    degradation: DegradationOptions | None = None
    """How low resolution is made of the ground truth, without dataroot_lq (ours)."""
    meta_info_file: FilePath | None = None
    """List of the clips, a line `name frames (height,width,3)` each; null: all that are found."""
    io_backend: Annotated[IoBackend, null_is({}, IoBackend)] = Field(default_factory=IoBackend)
    """Where frames are stored."""
    num_frame: Frames = -1
    """Frames of a sample; -1: all of the clip."""
    interval_list: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    """Distances between successive frames of a sample, one of which is drawn."""
    random_reverse: bool = False
    """Let time run backwards in half of the samples."""
    use_hflip: bool = True
    """Mirror left and right in half of the samples."""
    use_rot: bool = True
    """Mirror top and bottom, and swap the axes, each in half of the samples."""
    flip_sequence: bool = False
    """Let a sample run forwards and then backwards: twice as many frames."""

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if self.degradation is not None and self.dataroot_lq is not None:
            yield "give dataroot_lq or degradation, not both"
        if self.degradation is None and self.dataroot_lq is None and self._needs_low_resolution():
            yield "give dataroot_lq, or degradation to make low resolution on the way"

    def _needs_low_resolution(self) -> bool:
        return True

    @property
    def io_backend_type(self) -> Literal["disk", "lmdb"]:
        """Where frames are stored."""
        return self.io_backend.type


class REDSOptions(PairedOptions):
    """Clips of REDS: one part is held out by their names."""

    type: Literal["REDSRecurrentDataset"]
    """The set's kind."""
    val_partition: Literal["REDS4", "official"] = "REDS4"
    """Clips held out: 000, 011, 015 and 020, or 240 to 269."""
    test_mode: bool = False
    """Use the clips held out instead of all others."""


class VimeoOptions(PairedOptions):
    """Clips of Vimeo-90K: 7 frames each, all of which are a sample."""

    known: ClassVar = OWN_PAIRS

    type: Literal["Vimeo90KRecurrentDataset"]
    """The set's kind."""


class DVDOptions(PairedOptions):
    """Own clips of any length; a sample never goes over a clip's end."""

    known: ClassVar = OWN_PAIRS

    type: Literal["DVDRecurrentDataset", "DVDMultiScaleDataset"]
    """The set's kind; the two are the same here."""
    patch_sizes: Annotated[tuple[CropSide, ...], Field(min_length=1)] | None = None
    """Sides of crops in pixels of ground truth, one of which is drawn; null: gt_size."""
    patch_probs: tuple[Share, ...] = ()
    """Probability of each of patch_sizes; 1 in all."""

    @property
    def crop_sides(self) -> tuple[int, ...]:
        """See `LoaderOptions`."""
        return self.patch_sizes or (self.gt_size,)

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        yield from super().conflicts()
        sizes, shares = self.patch_sizes or (), self.patch_probs
        if len(sizes) != len(shares) or (sizes and abs(sum(shares) - 1) > 1e-6):
            yield (
                f"patch_probs {list(shares)} must be one share for each of patch_sizes "
                f"{list(sizes)}, 1 in all"
            )


class VideoFiles(Section):
    """Where pairs of video files are."""

    dataroot_gt: FilePath | None = None
    """Folder of videos of ground truth; null: of the list."""
    dataroot_lq: FilePath | None = None
    """Folder of the same videos at low resolution; null: of the list."""
    meta_info_file: FilePath | None = None
    """JSON list of {name, gt_video, lq_video, frame_count}; null: pairs are found by name."""


class VideoOptions(VideoFiles, PairedOptions):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Pairs of video files."""

    known: ClassVar = OWN_PAIRS

    type: Literal["VideoRecurrentDataset", "VideoDataset"]
    """The set's kind; the two are the same here."""

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        yield from super().conflicts()
        low = self.dataroot_lq or self.degradation
        if self.meta_info_file is None and None in (self.dataroot_gt, low):
            yield "give dataroot_gt and dataroot_lq, or meta_info_file"
        if self.meta_info_file is not None and self.degradation is not None:
            yield "a list of videos has their low resolution: leave out degradation"

    def _needs_low_resolution(self) -> bool:
        return False  # a list may name the videos


class WholeClipsOptions(Section):
    """What sets of whole clips that are scored now and then have in common."""

    name: str | None = None
    """What scores are logged under; null: the section's key."""
    num_frame: Frames = -1
    """Frames of each clip that are used; -1: all."""
    cache_data: bool = False
    """Keep all clips in memory."""


class ValidationOptions(WholeClipsOptions):
    """Folders of whole clips that are scored now and then."""

    known: ClassVar = VALIDATION

    type: Literal["VideoRecurrentTestDataset", "VideoTestDataset", "VideoTestVimeo90KDataset"]
    """Folders of clips; of Vimeo-90K only the frame in the middle is scored."""
    dataroot_gt: FilePath
    """Folder of clips of ground truth."""
    dataroot_lq: FilePath
    """Folder of the same clips at low resolution."""
    meta_info_file: FilePath | None = None
    """List of the clips, names first in each line; null: all that are found."""


class VideoValidationOptions(VideoFiles, WholeClipsOptions):
    """Whole pairs of video files that are scored now and then."""

    known: ClassVar = VIDEO_VALIDATION

    type: Literal["VideoRecurrentDataset"]
    """The set's kind."""

    def conflicts(self) -> Iterator[str]:
        """See `Section`."""
        if self.meta_info_file is None and None in (self.dataroot_gt, self.dataroot_lq):
            yield "give dataroot_gt and dataroot_lq, or meta_info_file"


TrainingSetOptions = Annotated[
    REDSOptions | VimeoOptions | DVDOptions | VideoOptions | SceneOptions,
    Field(discriminator="type"),
]
ValidationSetOptions = Annotated[
    ValidationOptions | VideoValidationOptions | SceneOptions, Field(discriminator="type")
]


class DatasetsOptions(Section):
    """Clips to learn from; and, under keys that start with val or test, clips to score."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ValidationSetOptions]  # pyright: ignore[reportIncompatibleVariableOverride]

    train: TrainingSetOptions
    """Clips to learn from."""

    @classmethod
    def holds(cls, key: object) -> bool:
        """See `Section`; sets to validate with have any name that starts with val or test."""
        return key == "train" or str(key).startswith(("val", "test"))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Editors know which keys sets to validate with may have."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        section = handler.resolve_ref_schema(schema)
        section["patternProperties"] = {"^(val|test)": section["additionalProperties"]}
        section["additionalProperties"] = False
        return schema

    @property
    def validation(self) -> dict[str, ValidationSetOptions]:
        """Clips to score, by their keys."""
        return self.__pydantic_extra__
