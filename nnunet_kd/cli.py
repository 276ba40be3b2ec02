"""The program ``nnunet_kd``: parse and delegate.

Each verb is a module with ``EXAMPLE``, ``add_arguments(parser)`` and ``run(options)``;
it is imported only when its verb is asked for, so that ``nnunet_kd --help`` costs no torch.
"""

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module

from nnunet_kd import __version__, discovery
from nnunet_kd.errors import UsageError
from nnunet_kd.verb_parser import VerbParser

# verb: (module, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "plan": ("nnunet_kd.planning.command", "write the plans of a student and what it learns from its teacher"),
    "cache_teacher": (
        "nnunet_kd.distillation.cache_command",
        "run the teachers once over every case and store what they say",
    ),
    "pseudo_label": ("nnunet_kd.pseudo_labels.command", "let an ensemble label scans that nobody labelled"),
    "release": ("nnunet_kd.deployment.release_command", "pack a student so that stock nnU-Net predicts it"),
    "export": ("nnunet_kd.deployment.export_command", "write a model as a bundle that runs without PyTorch"),
    "predict": ("nnunet_kd.deployment.predict_command", "segment images with a bundle, without PyTorch and nnU-Net"),
    "benchmark": ("nnunet_kd.deployment.benchmark_command", "seconds, memory and size of models, side by side"),
    "postprocess": ("nnunet_kd.postprocessing.command", "apply a challenge's published rules to predictions"),
    "compare": ("nnunet_kd.evaluation.command", "paired comparison of predictions: table, intervals, plot"),
    "convert": (
        "nnunet_kd.dataset_conversion.incoming.command",
        "turn a challenge's download into a data set",
    ),
    "submit": (
        "nnunet_kd.dataset_conversion.outgoing.command",
        "turn predictions into the file that a challenge's organisers take",
    ),
    "recon": ("nnunet_kd.recon.cli", "the same for MRI reconstruction and super-resolution"),
    "doctor": ("nnunet_kd.doctor", "check the installation and say how to mend each fault"),
    "demo": ("nnunet_kd.phantoms.command", "from nothing to a comparison report in ten minutes"),
}

BROKEN_PIPE = 141  # what shells report of a program that the closed pipe ended
_CURES = {
    errno.ENOSPC: "free space there or name another folder",
    errno.EDQUOT: "free space there or name another folder",
    errno.EROFS: "name a folder that takes files",
    errno.EACCES: "name a folder that takes files, or change its permissions",
    errno.EPERM: "name a folder that takes files, or change its permissions",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "the link leads to itself; name the folder itself",
}

_USAGE = "nnunet_kd VERB [options]"


def _overview() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{text}" for verb, (_, text) in VERBS.items()]
    head = f"usage: {_USAGE}\n\nKnowledge distillation for nnU-Net v2 (nnunet_kd {__version__}).\n\nverbs:\n"
    return head + "\n".join(lines) + "\n\n'nnunet_kd VERB --help' shows the options of a verb and an example."


def _parser(verb: str) -> tuple[VerbParser, object]:
    module_name, text = VERBS[verb]
    module = import_module(module_name)
    parser = VerbParser(f"nnunet_kd {verb}", text, module.EXAMPLE)
    module.add_arguments(parser)
    return parser, module


def main(arguments: list[str] | None = None) -> int:
    """Run a verb and return its exit status.

    A mistake of the user ends in one line on stderr and status 2, and so does what the operating system refuses: a full
    disk, a folder that takes no files, too long a name. A reader that has gone (``nnunet_kd doctor | head -1``) ends
    the program silently. Anything else is a bug of ours and keeps its traceback.

    Args:
        arguments: What follows the program's name; ``None`` takes the command line's.
    """
    with suppress(AttributeError):  # what the terminal's encoding lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            if sys.stdout is not None:  # as where it was closed, ">&-"
                sys.stdout.flush()  # here, where a failure can still be reported
    except BrokenPipeError:
        _silence_output()
        return BROKEN_PIPE
    except OSError as error:
        print(f"nnunet_kd: {_explain(error)}", file=sys.stderr)
        _silence_output()
        return 2


def _explain(error: OSError) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or str(error)
    return " ".join(f"{what}; {_CURES.get(error.errno or 0, 'check the path and its disk')}".split())


def _silence_output() -> None:
    """Keep the interpreter from flushing once more, at its end, into an output that takes nothing."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # an output without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    verb = arguments[0]
    if verb == "--version":
        print(__version__)
        return 0
    if verb not in VERBS:
        print(f"nnunet_kd: unknown verb '{verb}', expected one of: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    parser, module = _parser(verb)
    options = parser.parse_args(arguments[1:])
    discovery.register()
    try:
        status = module.run(options)  # type: ignore[attr-defined]
    except UsageError as error:
        print(f"nnunet_kd {verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
