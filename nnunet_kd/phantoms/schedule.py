"""How many training steps fit into the minutes that a demo may take."""

import re

from nnunet_kd.phantoms.stopwatch import StepTimes

N_EPOCHS = 10  # few, because each ends with a checkpoint and a plot
USED_SHARE = 0.7  # of the minutes: the rest is for machines that do something else meanwhile

_MIN_STEPS, _MAX_STEPS = 150, 2000
_LOADING = 1.5  # a training step over its pure computing, with augmentation on the same cores
# all start-ups of nnU-Net's commands, in units of its imports: before the first training, and from each to the end
_STARTS_OF_TEACHER, _STARTS_AFTER_TEACHER = 6, 20


def teacher_steps(times: StepTimes, seconds: float) -> int:
    """Return how many steps teacher and students can make, as many each, in the given time."""
    starts = (_STARTS_OF_TEACHER + _STARTS_AFTER_TEACHER) * times.start
    per_step = _LOADING * (times.teacher + 2 * times.student + times.guidance)
    return _whole_epochs((seconds - starts) / per_step)


def student_steps(times: StepTimes, seconds: float, *, at_most: int) -> int:
    """Return how many steps each student can make in the time that the teacher has left."""
    per_step = _LOADING * (2 * times.student + times.guidance)
    return min(at_most, _whole_epochs((seconds - _STARTS_AFTER_TEACHER * times.start) / per_step))


def slowdown(times: StepTimes, log: str, steps_per_epoch: int) -> float:
    """Return how much longer the teacher's training took than was expected from the measurement.

    Args:
        times: As measured.
        log: What nnU-Net printed while it trained the teacher.
        steps_per_epoch: Of this training.
    """
    epochs = sorted(float(value) for value in re.findall(r"Epoch time: ([\d.]+) s", log))
    if not epochs:
        return 1.0
    return epochs[len(epochs) // 2] / (steps_per_epoch * _LOADING * times.teacher)


def _whole_epochs(steps: float) -> int:
    return N_EPOCHS * round(min(max(steps, _MIN_STEPS), _MAX_STEPS) / N_EPOCHS)
