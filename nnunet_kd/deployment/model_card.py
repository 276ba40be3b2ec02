"""The page that travels with an exported model: what it is, how closely it agrees, how to run it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnunet_kd.deployment.bundle import PARITY, RECORD, Bundle
from nnunet_kd.deployment.parity import structures


def model_card(bundle: Bundle, report: Mapping[str, Any], name: str) -> str:
    """Return the page in Markdown.

    Args:
        bundle: The exported model; its network must be written.
        report: Its parity report.
        name: Name of the bundle's folder.
    """
    plan = bundle.plan
    folds = ", ".join(map(str, bundle.folds))
    facts = {
        "data set": plan.dataset_name,
        "configuration": plan.configuration,
        "made from": f"{bundle.source.get('model')}, fold {folds}"
        + (" (logits averaged)" if len(bundle.folds) > 1 else ""),
        "channels": ", ".join(plan.channel_names),
        "structures": "; ".join(f"{title} = {_values(values)}" for title, values in structures(plan).items()),
        "structures overlap": "yes: regions, one sigmoid each" if plan.has_regions else "no: one label per voxel",
        "spacing": f"{_by(plan.spacing)} mm, axes in the network's order",
        "patch": f"{_by(plan.patch_size)} voxels",
        "files": f"{plan.file_ending}, read with {plan.image_reader_writer}",
        "runtime and precision": f"{bundle.runtime}, {bundle.precision}",
        "size of the network": f"{bundle.megabytes:.2f} MB",
        "mirroring": f"off by default; trained for axes {list(plan.mirror_axes)}" if plan.mirror_axes else "none",
        "written by": ", ".join(f"{package} {version}" for package, version in bundle.versions.items()),
    }
    if plan.previous_stage:
        facts["previous stage"] = f"{plan.previous_stage}: its label maps are needed as input"
    return "\n".join(
        [
            f"# {plan.dataset_name}, {plan.configuration}",
            "",
            "A segmentation network exported from nnU-Net. It runs without PyTorch and without nnU-Net.",
            "",
            *_table(("", ""), facts.items()),
            "",
            "## Agreement with PyTorch",
            "",
            f"{report['n_patches']} patches of {report['n_cases']} cases; {report['patches_from']}. Dice is against "
            f"{report['dice_against']}; a drop is PyTorch's mean Dice minus the exported network's. All figures: "
            f"`{PARITY}`.",
            "",
            *_table(
                ("precision", "largest logit difference", "largest logit", "equal voxels", "drop of mean Dice"),
                _rows(report["precisions"]),
            ),
            "",
            "## Run it",
            "",
            "```bash",
            f"pip install 'nnunet-kd[{bundle.runtime}]'",
            f"nnunet_kd predict -i IMAGES -o PREDICTIONS -m {name}",
            "```",
            "",
            f"Images are named `CASE_0000{plan.file_ending}`, one file per channel. `{RECORD}` holds the SHA-256 of "
            "every file; a bundle with a changed file is refused.",
            "",
            "No medical device. Who uses it answers for checking it on their own data.",
            "",
        ]
    )


def _rows(precisions: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for precision, figures in precisions.items():
        yield (
            precision,
            f"{figures['max_logit_difference']:.3g}",
            f"{figures['max_logit']:.3g}",
            f"{100 * figures['voxel_agreement']:.3f} %",
            f"{figures['dice_drop']:.5f}",
        )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *body]


def _values(values: Sequence[int]) -> str:
    return " + ".join(map(str, values))


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
