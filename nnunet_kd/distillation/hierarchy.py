"""Which stages of two networks are compared, written as data: the rows of a loss's setting ``pairs``.

A row is ``[student's side, teacher's side]``; a side is a selector, or a list of selectors whose maps are combined:

- ``encoder[0]``, ``decoder[-1]``: a stage, counted in the order of computation, so that ``encoder[0]`` is the
  finest of the encoder and ``decoder[0]`` the deepest of the decoder; from the end if negative.
- ``encoder[1:-1]``, ``decoder[:]``: several stages, as Python slices them.
- ``output``: the network's logits at full resolution.
- anything else: a module's dotted name.

A slice on the student's side, not in a list, stands for a row per stage. On the teacher's side it is the combination of
its stages, unless the student's side is a slice too: then they pair one to one.
"""

import re
from collections.abc import Mapping

from nnunet_kd.errors import UsageError

OUTPUT = "output"
_STAGES = re.compile(
    r"(?P<kind>encoder|decoder)\[(?:(?P<index>-?[0-9]+)|(?P<start>-?[0-9]+)?(?P<slice>:)(?P<stop>-?[0-9]+)?)\]"
)

Side = str | tuple[str, ...]
Row = tuple[Side, Side]
# the modules of one side of a comparison; more than one are combined
Modules = tuple[str, ...]
# dotted name -> "encoder" or "decoder", in the order of computation
Stages = Mapping[str, str]


def read_row(row: object) -> Row:
    """Check the form of a row as it stands in JSON, and freeze it.

    Args:
        row: ``[student's side, teacher's side]``.

    Raises:
        ValueError: If it has another form; whether the stages exist is not known here.

    Example:
        >>> read_row(["encoder[0]", ["encoder[1]", "encoder[2]"]])
        ('encoder[0]', ('encoder[1]', 'encoder[2]'))
    """
    if not isinstance(row, list | tuple) or len(row) != 2:
        raise ValueError(f"pairs: expected [student module, teacher module], got {row!r:.120}")
    return _read_side(row[0]), _read_side(row[1])


def _read_side(side: object) -> Side:
    selectors = tuple(side) if isinstance(side, list | tuple) else (side,)
    if not selectors:
        raise ValueError("pairs: expected a selector or a list of them on each side, got []")
    for selector in selectors:
        if not (isinstance(selector, str) and selector and ("[" not in selector or _STAGES.fullmatch(selector))):
            raise ValueError(
                "pairs: expected a stage as encoder[0], stages as decoder[1:], output, or a module's name, "
                f"got {selector!r:.120}"
            )
    return side if isinstance(side, str) else selectors


def expand_row(row: Row, student: Stages, teacher: Stages) -> list[tuple[Modules, Modules]]:
    """Return the comparisons that a row stands for in two networks, as modules of the student and of the teacher.

    Slices of both networks that select unlike numbers of stages pair from the finest stage on, so that the coarsest of
    the deeper network stay out.

    Args:
        row: What :func:`read_row` returned.
        student: Its stages.
        teacher: Its stages.

    Raises:
        UsageError: If a stage does not exist.

    Example:
        >>> shallow = {"a": "encoder", "b": "encoder"}
        >>> deep = {"x": "encoder", "y": "encoder", "z": "encoder"}
        >>> expand_row(("encoder[:]", "encoder[-1]"), shallow, deep)
        [(('a',), ('z',)), (('b',), ('z',))]
        >>> expand_row(("encoder[0]", "encoder[1:]"), shallow, deep)
        [(('a',), ('y', 'z'))]
        >>> expand_row(("encoder[:]", "encoder[:]"), shallow, deep)
        [(('a',), ('x',)), (('b',), ('y',))]
    """
    ours, theirs = _modules(row[0], student, "student"), _modules(row[1], teacher, "teacher")
    if not _is_slice(row[0]):
        return [(ours, theirs)]
    if not _is_slice(row[1]):
        return [((name,), theirs) for name in ours]
    return [((a,), (b,)) for a, b in _one_to_one(row, ours, theirs)]


def _is_slice(side: Side) -> bool:
    found = _STAGES.fullmatch(side) if isinstance(side, str) else None
    return found is not None and found["slice"] is not None


def _modules(side: Side, stages: Stages, whose: str) -> Modules:
    selectors = (side,) if isinstance(side, str) else side
    return tuple(name for selector in selectors for name in _select(selector, stages, whose))


def _select(selector: str, stages: Stages, whose: str) -> Modules:
    found = _STAGES.fullmatch(selector)
    if found is None:
        return (selector,)
    present = [name for name, kind in stages.items() if kind == found["kind"]]
    if found["slice"] is not None:
        start, stop = (None if found[key] is None else int(found[key]) for key in ("start", "stop"))
        chosen = present[start:stop]
    else:
        index = int(found["index"])
        chosen = present[index:][:1] if -len(present) <= index < len(present) else []
    if not chosen:
        kind, last = found["kind"], len(present) - 1
        known = f"{kind}[0]" + (f" to {kind}[{last}]" if last > 0 else "") if present else f"no stages in a {kind}"
        raise UsageError(f"{selector}: the {whose} has {known}; nnunet_kd plan ... --show-taps lists them")
    return tuple(chosen)


def _one_to_one(row: Row, ours: Modules, theirs: Modules) -> list[tuple[str, str]]:
    if len(ours) == len(theirs):
        return list(zip(ours, theirs, strict=True))
    kinds = [str(side).partition("[")[0] for side in row]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"[{row[0]}, {row[1]}]: expected as many stages on both sides, got {len(ours)} and {len(theirs)}; "
            "bound the slices, e.g. encoder[0:2]"
        )
    n = min(len(ours), len(theirs))
    finest = slice(None, n) if kinds[0] == "encoder" else slice(-n, None)
    return list(zip(ours[finest], theirs[finest], strict=True))
