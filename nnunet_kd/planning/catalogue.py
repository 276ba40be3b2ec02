"""What can be planned: methods, losses and students, a line each."""

import inspect

from nnunet_kd.planning.presets import PRESETS
from nnunet_kd.planning.students import STUDENTS, block_function, student_options


def catalogue() -> str:
    """Return the lines that ``nnunet_kd plan --list`` prints."""
    from nnunet_kd.losses import LOSSES, FeatureLoss, ImageLoss, loss_options

    kinds = {FeatureLoss: "features", ImageLoss: "images, for reconstruction only"}
    losses = {}
    for name, loss in LOSSES.items():
        kind = next((text for base, text in kinds.items() if issubclass(loss, base)), "outputs")
        losses[name] = f"{kind}; settings: {', '.join(loss_options(name))}"
    sections = {
        "methods (--method)": {name: preset.summary for name, preset in PRESETS.items()},
        "losses (--losses NAME:KEY=VALUE,...; every one also takes weight, schedule, until)": losses,
        "students (--student NAME:KEY=VALUE,...)": {name: _student(name) for name in STUDENTS},
    }
    width = max(len(name) for lines in sections.values() for name in lines) + 2
    blocks = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}{text}" for name, text in lines.items())])
        for title, lines in sections.items()
    ]
    return "\n\n".join(blocks)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0].rstrip(".")


def _student(name: str) -> str:
    options = ", ".join(student_options(name))
    return _first_line(block_function(name)) + (f"; settings: {options}" if options else "")
