"""What every section of an option file has in common: known keys, and what is said of others."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError


@dataclass(frozen=True)
class Known:
    """A key of BasicSR's that nothing here reads.

    Attributes:
        reason: why it is not needed; or, if only some values are allowed, what to do.
        only: values that change nothing; any other is refused. None allows all.
    """

    reason: str
    only: tuple[Any, ...] | None = None


class Section(BaseModel):
    """Keys that are fields are used, `known` ones are allowed, all others are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    known: ClassVar[Mapping[str, Known]] = {}

    @classmethod
    def holds(cls, key: object) -> bool:
        """Whether values under `key` are used."""
        return key in cls.model_fields

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        for key, value in tree.items():
            if cls.holds(key):
                continue
            known = cls.known.get(key)
            if known is None:
                nearest = difflib.get_close_matches(str(key), [*cls.model_fields, *cls.known], n=1)
                hint = f"; the nearest known key is '{nearest[0]}'" if nearest else ""
                raise key_error(key, f"unknown key{hint}")
            if known.only is not None and value not in known.only:
                raise key_error(key, f"{known.reason} (got {value!r})")
        return {key: value for key, value in tree.items() if cls.holds(key)}

    def notes(self, tree: Mapping[str, Any], place: str = "") -> Iterator[str]:
        """One line for every key of `tree`, from which this was read, that is not needed."""
        for key, value in tree.items():
            known = self.known.get(key)
            if known is not None and known.only is None and value is not None:
                yield f"{place}{key} is not needed: {known.reason}"
            child = getattr(self, key) if self.holds(key) else None
            if isinstance(child, Section) and isinstance(value, Mapping):
                yield from child.notes(value, f"{place}{key}.")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Editors know the keys that are not needed as well."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).setdefault("properties", {})
        for key, known in cls.known.items():
            if known.only is None:
                properties[key] = {"description": f"Not needed: {known.reason}."}
            else:
                properties[key] = {"description": f"{known.reason}.", "enum": list(known.only)}
        return schema


def key_error(key: object, text: str) -> PydanticCustomError:
    """An error whose place is `key` of the section that is checked."""
    return PydanticCustomError("key", "{text}", {"key": str(key), "text": text})


def _nonempty(value: Any) -> Any:
    if value == "" or (isinstance(value, str) and "\0" in value):
        raise ValueError("a path must be text without NUL, and not empty")
    return value


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


FilePath = Annotated[Path, BeforeValidator(_nonempty), AfterValidator(_at_home)]
"""Relative to the current folder; ~ is home."""

Share = Annotated[float, Field(ge=0, le=1)]


def null_is(value: Any, kind: Any) -> BeforeValidator:
    """Reads null as `value`, in place of a `kind`."""

    def read(given: Any) -> Any:
        return value if given is None else given

    return BeforeValidator(read, json_schema_input_type=kind | None)
