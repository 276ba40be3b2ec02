"""What a search for a student within a budget tried, as a table and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from nnunet_kd.planning.budget_search import STAGES, Candidate, Found, Limits, Measurement

NONE = "-"
_COLUMNS = ("#", "student", "parameters", "patch", "tiles", "seconds", "MB memory", "MB file", "verdict")
_WORDS = {"seconds": "too slow", "memory": "too much memory", "megabytes": "too large a file"}


@dataclass(frozen=True, kw_only=True)
class Search:
    """A finished search with what a reader has to know.

    Attributes:
        found: What it came to.
        patches: Of each candidate, voxels per axis.
        case: Name of the case that was predicted.
        machine: One line.
        n_new: Measurements that were not stored before.
    """

    found: Found
    patches: Mapping[Candidate, Sequence[int]]
    case: str
    machine: str
    n_new: int


def verdict(candidate: Candidate, found: Found) -> str:
    """Say what became of a candidate, and why where it was not measured."""
    if candidate == found.chosen:
        return "chosen"
    if candidate in found.measured:
        over = found.limits.over(found.measured[candidate])
        return ", ".join(f"{_WORDS[name]} ({share:.2g} x)" for name, share in over.items()) or "kept, but smaller"
    if candidate.least_megabytes > found.limits.megabytes:
        return f"weights alone are {candidate.least_megabytes:.3g} MB"
    for index, other in enumerate(found.candidates, start=1):
        if other in found.measured and found.limits.over(found.measured[other]) and candidate.reaches(other):
            return f"no less than #{index} in anything"
    return "smaller than the chosen one"


def rows(search: Search) -> list[tuple[str, ...]]:
    """Return a row for every candidate, the smallest first."""
    found = search.found
    table = []
    for index, candidate in enumerate(found.candidates, start=1):
        taken = found.measured.get(candidate)
        numbers = (NONE,) * 4 if taken is None else _numbers(taken)
        patch = "x".join(map(str, search.patches[candidate]))
        table.append(
            (
                str(index),
                candidate.name,
                f"{candidate.parameters:,}",
                patch,
                *numbers,
                verdict(candidate, found),
            )
        )
    return table


def _numbers(taken: Measurement) -> tuple[str, ...]:
    return (
        str(taken.n_tiles),
        f"{taken.seconds:.3g}",
        f"{taken.peak_megabytes:.0f}",
        f"{taken.file_megabytes:.3g}",
    )


def limits_text(limits: Limits) -> str:
    """Say a budget in a line.

    Example:
        >>> limits_text(Limits(seconds=2, memory=1500))
        'at most 2 s for a case, 1500 MB of memory'
    """
    parts = [
        f"{limits.seconds:g} s for a case" if isfinite(limits.seconds) else "",
        f"{limits.memory:g} MB of memory" if isfinite(limits.memory) else "",
        f"{limits.megabytes:g} MB as a file" if isfinite(limits.megabytes) else "",
    ]
    return "at most " + ", ".join(part for part in parts if part)


def amounts_text(found: Measurement) -> str:
    """Say what a candidate takes of everything that can be limited."""
    return f"{found.seconds:.3g} s, {found.peak_megabytes:.0f} MB of memory, a file of {found.file_megabytes:.3g} MB"


def table_text(search: Search) -> str:
    """Return the table for a terminal, its columns aligned."""
    table = [_COLUMNS, *rows(search)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    left = (1, 8)  # texts; numbers stand to the right
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return "\n".join([*lines, "", *_explanation(search)])


def page(search: Search, title: str, picture: str) -> str:
    """Return the same as Markdown.

    Args:
        search: What was found.
        title: Of the page.
        picture: Name of the picture beside it.
    """
    head = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    body = ["| " + " | ".join(row) + " |" for row in rows(search)]
    split = _split_table(search)
    table = "\n".join([*head, *body])
    parts = [f"# {title}", f"![What was tried]({picture})", "\n\n".join(_explanation(search)), table]
    return "\n\n".join([*parts, *([split] if split else [])]) + "\n"


def _explanation(search: Search) -> list[str]:
    chosen = search.found.chosen
    lines = [
        f"budget: {limits_text(search.found.limits)}; case {search.case} of the data set",
        f"measured: {len(search.found.measured)} of {len(search.found.candidates)} students, {search.n_new} now; "
        f"{search.machine}",
        "seconds: of one case from file to file in a warm process, load + preprocess + window + tiles x network + "
        "resample + write; start-up apart, nothing overlaps",
        "memory: peak of a process that predicts case after case as nnunet_kd predict does; MB are 10^6 bytes",
    ]
    if chosen is not None:
        taken = search.found.measured[chosen]
        lines.append(f"chosen: {chosen.name}, {amounts_text(taken)}")
        lines.append(f"start-up of the chosen one: {taken.start_up:.2g} s, once for each command")
    return lines


def _split_table(search: Search) -> str:
    chosen = search.found.chosen
    if chosen is None:
        return ""
    taken = search.found.measured[chosen]
    names = (*STAGES[:3], f"network ({taken.n_tiles} x {taken.tile_seconds:.3g} s)", *STAGES[3:], "sum")
    values = [taken.stages[stage] for stage in STAGES]
    values = [*values[:3], taken.network_seconds, *values[3:], taken.seconds]
    lines = ["| stage of the chosen one | seconds |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value:.3g} |" for name, value in zip(names, values, strict=True))])


def write_page(search: Search, folder: Path, name: str, title: str) -> tuple[Path, Path]:
    """Write page and picture under temporary names, then rename them.

    Args:
        search: What was found.
        folder: Existing.
        name: Of both files, without ending.
        title: Of the page.

    Returns:
        The two files.
    """
    from nnunet_kd.planning.budget_plot import plot_search

    text, picture = folder / f"{name}.md", folder / f"{name}.png"
    new_text, new_picture = folder / f".{name}.tmp.md", folder / f".{name}.tmp.png"
    try:
        plot_search(search, new_picture)
        new_text.write_text(page(search, title, picture.name), encoding="utf-8")
        new_picture.replace(picture)
        new_text.replace(text)
    finally:
        new_text.unlink(missing_ok=True)
        new_picture.unlink(missing_ok=True)
    return text, picture
