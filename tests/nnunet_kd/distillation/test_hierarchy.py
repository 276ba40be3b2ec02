"""Claims about the selectors of ``pairs``: every form, on networks of equal and unequal depth, and every mistake."""

from itertools import product

import pytest

from nnunet_kd.distillation.hierarchy import OUTPUT, expand_row, read_row
from nnunet_kd.errors import UsageError


def stages(n_encoder: int, n_decoder: int, letter: str) -> dict[str, str]:
    """Return stages named as ``ae0`` and ``ad0``, between them as in networks that compute both in turn."""
    encoder = {f"{letter}e{i}": "encoder" for i in range(n_encoder)}
    decoder = {f"{letter}d{i}": "decoder" for i in range(n_decoder)}
    return {**dict(list(encoder.items())[:2]), **decoder, **encoder}


SHALLOW, DEEP = stages(3, 2, "s"), stages(5, 4, "t")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (["encoder[0]", "encoder[-1]"], "se0:te4"),
        (["decoder[0]", "decoder[-1]"], "sd0:td3"),
        (["encoder[-3]", "output"], "se0:output"),
        (["some.module.0", "output"], "some.module.0:output"),
        (["encoder[0]", "encoder[1:-1]"], "se0:te1+te2+te3"),
        (["encoder[:]", "encoder[-1]"], "se0:te4 se1:te4 se2:te4"),
        (["decoder[1:]", "output"], "sd1:output"),
        (["decoder[:]", ["decoder[:2]"]], "sd0:td0+td1 sd1:td0+td1"),
        ([["encoder[:-1]"], "encoder[-1]"], "se0+se1:te4"),
        ([["encoder[:-1]"], "encoder[:]"], "se0+se1:te0+te1+te2+te3+te4"),
        ([["decoder[0]", "x", "encoder[0:2]", "output"], ["output"]], "sd0+x+se0+se1+output:output"),
        (["encoder[:2]", "encoder[3:]"], "se0:te3 se1:te4"),
        (["encoder[:]", "encoder[:]"], "se0:te0 se1:te1 se2:te2"),  # the finest of both, the deepest stay out
        (["decoder[:]", "decoder[:]"], "sd0:td2 sd1:td3"),
        (["encoder[0:2]", "decoder[-2:]"], "se0:td2 se1:td3"),
        (["encoder[0:99]", ["encoder[4]"]], "se0:te4 se1:te4 se2:te4"),  # as Python slices
    ],
)
def test_a_row_stands_for_these_comparisons(row: list[object], expected: str) -> None:
    compared = expand_row(read_row(row), SHALLOW, DEEP)
    assert " ".join("+".join(ours) + ":" + "+".join(theirs) for ours, theirs in compared) == expected


@pytest.mark.parametrize(("n_student", "n_teacher"), list(product(range(1, 6), repeat=2)))
def test_two_open_slices_pair_every_stage_of_the_shallower_with_its_own_level(n_student: int, n_teacher: int) -> None:
    student, teacher = stages(n_student, n_student, "s"), stages(n_teacher, n_teacher, "t")
    for kind, finest in (("encoder", 0), ("decoder", -1)):
        row = read_row([f"{kind}[:]", f"{kind}[:]"])
        pairs = [(ours[0], theirs[0]) for ours, theirs in expand_row(row, student, teacher)]
        assert len(pairs) == min(n_student, n_teacher)
        assert pairs[finest] == tuple([n for n, k in side.items() if k == kind][finest] for side in (student, teacher))
        levels = {n_student - int(s[2:]) - (n_teacher - int(t[2:])) for s, t in pairs}
        assert len(levels) == 1  # no level is skipped


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["encoder[3]", "output"], r"encoder\[3\]: the student has encoder\[0\] to encoder\[2\]; .*--show-taps"),
        (["output", "encoder[-6]"], r"encoder\[-6\]: the teacher has encoder\[0\] to encoder\[4\]"),
        (["decoder[2:]", "output"], r"decoder\[2:\]: the student has decoder\[0\] to decoder\[1\]"),
        (["output", ["decoder[0]", "decoder[9]"]], r"decoder\[9\]: the teacher has decoder\[0\] to decoder\[3\]"),
        (["encoder[2:1]", "output"], r"encoder\[2:1\]: the student has"),
        (["encoder[:]", "decoder[:]"], r"expected as many stages on both sides, got 3 and 4; bound the slices"),
    ],
)
def test_stages_that_do_not_exist_are_answered_with_those_that_do(row: list[object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand_row(read_row(row), SHALLOW, DEEP)


def test_networks_with_one_stage_or_none_are_described_as_such() -> None:
    with pytest.raises(UsageError, match=r"encoder\[1\]: the student has encoder\[0\];"):
        expand_row(("encoder[1]", OUTPUT), stages(1, 1, "s"), DEEP)
    with pytest.raises(UsageError, match=r"decoder\[0\]: the student has no stages in a decoder;"):
        expand_row(("decoder[0]", OUTPUT), stages(1, 0, "s"), DEEP)


@pytest.mark.parametrize("selector", ["encoder[x]", "encoder[]", "encoder[0", "encoder[0:1:2]", "bottleneck[0]", "", 3])
def test_selectors_of_another_form_are_refused(selector: object) -> None:
    for row in ([selector, "output"], ["output", [selector, "output"]]):
        with pytest.raises(ValueError, match=r"pairs: expected a stage as encoder\[0\], .* got " + f"{selector!r}"[:5]):
            read_row(row)


@pytest.mark.parametrize("row", ["encoder[0]", ["output"], ["output"] * 3, {"a": "b"}, None])
def test_rows_of_another_form_are_refused(row: object) -> None:
    with pytest.raises(ValueError, match=r"pairs: expected \[student module, teacher module\], got"):
        read_row(row)


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a selector or a list of them on each side, got \[\]"):
        read_row([[], "output"])
