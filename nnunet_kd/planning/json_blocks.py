"""Frozen dataclasses from JSON and back, with errors that a person can act on.

Shared by the ``kd`` block and by reconstruction plans; imports neither torch nor nnU-Net.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from nnunet_kd.errors import UsageError

T = TypeVar("T")


def check_keys(data: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse unknown keys, naming the known ones.

    Args:
        data: The JSON object.
        known: The keys it may have.
        where: How to name the object in the message, e.g. ``kd block, 3d_fullres``.

    Raises:
        UsageError: If ``data`` is no JSON object or has another key.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: expected a JSON object, got {type(data).__name__}")
    known = list(known)
    for key in data:
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'{suggestion(key, known)}; known keys: {', '.join(known)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known word, or an empty text.

    Example:
        >>> suggestion("wieght", ["weight", "name"])
        " (did you mean 'weight'?)"
    """
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def check_choice(value: Any, known: Iterable[Any], where: str) -> None:  # noqa: ANN401  # any JSON value
    """Refuse a value that is not among the known ones."""
    known = list(known)
    if value not in known:
        hint = suggestion(value, [k for k in known if isinstance(k, str)]) if isinstance(value, str) else ""
        raise UsageError(f"{where}: expected one of {', '.join(map(str, known))}, got {value!r}{hint}")


def check_number(
    value: Any,  # noqa: ANN401  # any JSON value
    where: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> None:
    """Refuse what is no finite number in the given range.

    Args:
        value: The JSON value; booleans are no numbers here.
        where: How to name it in the message.
        above: Exclusive lower bound.
        at_least: Inclusive lower bound.
        at_most: Inclusive upper bound.
        whole: Whether it must be an integer.
    """
    kinds = (int,) if whole else (int, float)
    bounds = f" > {above}" if above is not None else f" >= {at_least}" if at_least is not None else ""
    if at_most is not None:
        bounds += f" and <= {at_most}"
    expected = f"{'a whole number' if whole else 'a number'}{bounds}"
    fits = isinstance(value, kinds) and not isinstance(value, bool) and _is_finite(value)
    if fits and above is not None:
        fits = value > above
    if fits and at_least is not None:
        fits = value >= at_least
    if fits and at_most is not None:
        fits = value <= at_most
    if not fits:
        raise UsageError(f"{where}: expected {expected}, got {value!r:.80}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def read_block(cls: type[T], data: Mapping[str, Any], where: str, **parsed: Any) -> T:  # noqa: ANN401
    """Build a dataclass from a JSON object.

    Args:
        cls: A dataclass whose field names are the JSON keys.
        data: The JSON object. Keys it lacks take the dataclass's defaults.
        where: How to name the object in messages.
        **parsed: Fields that were parsed already (nested objects); they win over ``data``.

    Raises:
        UsageError: For an unknown key, a missing one, or what ``__post_init__`` refuses with a ``ValueError``.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    check_keys(data, [field.name for field in fields], where)
    values = {**data, **parsed}
    missing = [f.name for f in fields if f.name not in values and _is_required(f)]
    if missing:
        raise UsageError(f"{where}: missing key '{missing[0]}'")
    return cls(**values)


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def write_block(block: Any) -> Any:  # noqa: ANN401  # dataclasses, containers and plain values alike
    """Turn nested dataclasses, mappings and tuples into what ``json.dump`` takes."""
    if dataclasses.is_dataclass(block) and not isinstance(block, type):
        return {f.name: write_block(getattr(block, f.name)) for f in dataclasses.fields(block)}
    if isinstance(block, Mapping):
        return {key: write_block(value) for key, value in block.items()}
    if isinstance(block, list | tuple):
        return [write_block(value) for value in block]
    return block
