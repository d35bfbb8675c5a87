"""The sets of clips that an option file names."""

from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from iart.model.upsample import SCALE
from iart.train.section import FilePath, Section, Share, null_is
from iart.train.vocabulary import IO_BACKEND, LOADER, OWN_PAIRS, PAIRS, VALIDATION

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


class SceneOptions(LoaderOptions):
    """Folders of frames and videos, reduced by a random factor before they are ground truth.

    Low resolution is made on the way, as MATLAB's imresize does (ours, for the light model).
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
    """Frames of a sample."""
    gt_size: CropSide = 128
    """Side of the crop, in pixels of ground truth."""
    reduce: tuple[float, float] = (1.7, 2.4)
    """Range of the factor by which sources are reduced: 2 hides the compression of a DVD."""
    still_share: Share = 0.25
    """Share of samples made from stills by synthetic camera motion."""
    batch_size_per_gpu: PositiveInt = 4
    """Samples per process and micro-batch."""

    @model_validator(mode="after")
    def _range_ascends(self) -> "SceneOptions":
        if not 1 <= self.reduce[0] <= self.reduce[1]:
            raise ValueError(f"reduce must be two factors, 1 ≤ low ≤ high, got {self.reduce}")
        return self


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
    dataroot_lq: FilePath
    """Folder (or LMDB) of the same clips at low resolution."""
    meta_info_file: FilePath | None = None
    """List of the clips, a line `name frames (height,width,3)` each; null: all that are found."""
    io_backend: Annotated[IoBackend, null_is({}, IoBackend)] = Field(default_factory=IoBackend)
    """Where frames are stored."""
    num_frame: Frames = -1
    """Frames of a sample; -1: all of the clip."""
    gt_size: CropSide = 256
    """Side of the crop, in pixels of ground truth."""
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

    @model_validator(mode="after")
    def _a_share_for_each(self) -> "DVDOptions":
        sizes, shares = self.patch_sizes or (), self.patch_probs
        if len(sizes) != len(shares) or (sizes and abs(sum(shares) - 1) > 1e-6):
            raise ValueError(
                f"patch_probs {list(shares)} must be one share for each of patch_sizes "
                f"{list(sizes)}, 1 in all"
            )
        return self


class VideoOptions(PairedOptions):
    """Pairs of video files."""

    known: ClassVar = OWN_PAIRS

    type: Literal["VideoRecurrentDataset", "VideoDataset"]
    """The set's kind; the two are the same here."""
    dataroot_gt: FilePath | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Folder of videos of ground truth; null: of the list."""
    dataroot_lq: FilePath | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Folder of the same videos at low resolution; null: of the list."""
    meta_info_file: FilePath | None = None
    """JSON list of {name, gt_video, lq_video, frame_count}; null: pairs are found by name."""

    @model_validator(mode="after")
    def _found_or_listed(self) -> "VideoOptions":
        if self.meta_info_file is None and None in (self.dataroot_gt, self.dataroot_lq):
            raise ValueError("give dataroot_gt and dataroot_lq, or meta_info_file")
        return self


class ValidationOptions(Section):
    """Whole clips that are scored now and then."""

    known: ClassVar = VALIDATION

    type: Literal["VideoRecurrentTestDataset", "VideoTestDataset", "VideoTestVimeo90KDataset"]
    """Folders of clips; of Vimeo-90K only the frame in the middle is scored."""
    name: str | None = None
    """What scores are logged under; null: the section's key."""
    dataroot_gt: FilePath
    """Folder of clips of ground truth."""
    dataroot_lq: FilePath
    """Folder of the same clips at low resolution."""
    meta_info_file: FilePath | None = None
    """List of the clips, names first in each line; null: all that are found."""
    num_frame: Frames = -1
    """Frames of each clip that are used; -1: all."""
    cache_data: bool = False
    """Keep all clips in memory."""


TrainingSetOptions = Annotated[
    REDSOptions | VimeoOptions | DVDOptions | VideoOptions | SceneOptions,
    Field(discriminator="type"),
]
ValidationSetOptions = Annotated[ValidationOptions | SceneOptions, Field(discriminator="type")]


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
