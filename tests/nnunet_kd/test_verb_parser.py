import pytest

from nnunet_kd.verb_parser import VerbParser


@pytest.fixture
def parser() -> VerbParser:
    parser = VerbParser("nnunet_kd sing", "sing a song", "nnunet_kd sing --half-tone 1")
    parser.add_argument("--half-tone", type=int)
    parser.add_argument("--both_hands", action="store_true")
    parser.add_argument("--a-b_c")
    parser.add_argument("-np", dest="n")
    return parser


@pytest.mark.parametrize(
    "words",
    [
        ["--half-tone", "3", "--both_hands"],
        ["--half_tone", "3", "--both-hands"],
        ["--half_tone=3", "--both_hands"],
        ["--both_hands", "--half", "3"],
    ],
)
def test_options_are_taken_in_either_spelling(parser: VerbParser, words: list[str]) -> None:
    options = parser.parse_args(words)
    assert (options.half_tone, options.both_hands) == (3, True)


def test_values_keep_their_spelling(parser: VerbParser) -> None:
    options = parser.parse_args(["--a-b_c=x_y-z", "-np", "both-hands"])
    assert (options.a_b_c, options.n) == ("x_y-z", "both-hands")


def test_an_unknown_option_is_told_as_it_was_typed(parser: VerbParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--whole_tone"])
    assert "unrecognized arguments: --whole_tone" in capsys.readouterr().err


def test_sub_commands_take_either_spelling_too() -> None:
    parser = VerbParser()
    parser.add_subparsers().add_parser("loud").add_argument("--half-tone")
    assert parser.parse_args(["loud", "--half_tone", "3"]).half_tone == "3"


def test_help_says_what_it_does_and_an_example(parser: VerbParser) -> None:
    text = parser.format_help()
    assert "\nSing a song.\n" in text
    assert "example:\n  nnunet_kd sing --half-tone 1" in text
