"""The verb ``recon``: nnU-Net's steps for reconstruction and super-resolution, one sub-verb each.

Each sub-verb is a module with ``EXAMPLE``, ``add_arguments(parser)`` and ``run(options)``, as the program's own verbs
are; it is imported only when it is asked for.
"""

import argparse
import sys
from importlib import import_module

from nnunet_kd.errors import UsageError
from nnunet_kd.verb_parser import VerbParser

EXAMPLE = "nnunet_kd recon train 1 2d 0 -tr DCCNNTrainer"

# sub-verb: (module, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "convert": ("nnunet_kd.recon.data.convert_command", "make a raw data set of k-space, or of magnitude images"),
    "extract_fingerprint": (
        "nnunet_kd.recon.planning.extract_fingerprint_command",
        "say what a raw data set holds: matrices, coils, intensity, noise, masks",
    ),
    "plan": ("nnunet_kd.recon.planning.plan_command", "plan networks of a data set, or a student of a trained one"),
    "preprocess": ("nnunet_kd.recon.planning.preprocess_command", "write what training reads, and folds by patient"),
    "train": ("nnunet_kd.recon.training.train_command", "train a network, alone or with what its teachers say"),
    "predict": ("nnunet_kd.recon.inference.predict_command", "reconstruct volumes from k-space"),
    "export": ("nnunet_kd.recon.deployment.export_command", "a trained network whose convolutions OpenVINO runs"),
    "evaluate": ("nnunet_kd.recon.evaluation.evaluate_command", "score a folder of reconstructions"),
    "compare": ("nnunet_kd.recon.evaluation.compare_command", "paired comparison of reconstructions, with pictures"),
    "hallucination_report": (
        "nnunet_kd.recon.evaluation.invention.command",
        "what reconstructions invented, measured where the truth is known",
    ),
    "demo": ("nnunet_kd.recon.demo_command", "from phantoms to report and pictures in five minutes"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verb and leave its options to it."""
    width = max(map(len, VERBS), default=0) + 2
    parser.description = "\n".join(
        [
            "Reconstruction and super-resolution of MR images, after nnU-Net's steps.",
            "",
            "sub-verbs:",
            *(f"  {verb:<{width}}{text}" for verb, (_, text) in VERBS.items()),
            "",
            "'nnunet_kd recon SUB-VERB --help' shows the options of a sub-verb and an example.",
        ]
    )
    parser.add_argument("sub_verb", metavar="SUB-VERB", help="one of: " + ", ".join(VERBS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its options")


def run(options: argparse.Namespace) -> int:
    """Parse the sub-verb's own options and run it; a mistake of the user is one line and status 2.

    Raises:
        UsageError: If there is no such sub-verb.
    """
    if options.sub_verb not in VERBS:
        raise UsageError(f"unknown sub-verb '{options.sub_verb}', expected one of: {', '.join(VERBS)}")
    module_name, text = VERBS[options.sub_verb]
    module = import_module(module_name)
    parser = VerbParser(f"nnunet_kd recon {options.sub_verb}", text, module.EXAMPLE)
    module.add_arguments(parser)
    chosen = parser.parse_args(options.arguments)
    try:
        return int(module.run(chosen) or 0)
    except UsageError as error:  # said here, where the sub-verb is known
        sys.stderr.write(f"{parser.prog}: {' '.join(str(error).split())}\n")
        return 2
