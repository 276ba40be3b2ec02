"""What prediction has to know of a model: the parts of plans.json and dataset.json that it needs, and nothing else."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_keys

NORMALIZATIONS = (
    *("ZScoreNormalization", "CTNormalization", "NoNormalization"),
    *("RescaleTo01Normalization", "RGBTo01Normalization"),
)
READERS = (
    *("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"),
    *("NaturalImage2DIO", "Tiff3DIO"),
)
RESAMPLINGS = ("resample_data_or_seg_to_shape", "no_resampling_hack")
_RESAMPLING_DEFAULTS = {
    "is_seg": False,
    "order": 3,
    "order_z": 0,
    "force_separate_z": False,
    "separate_z_anisotropy_threshold": 3.0,
}


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """One of nnU-Net's resampling functions with its settings; the defaults are nnU-Net's.

    Attributes:
        name: The function's name, one of :data:`RESAMPLINGS`.
        is_seg: Whether it takes label maps.
        order: Spline order, 0 to 5; in the plane where the third axis is resampled apart.
        order_z: Spline order along the axis that is resampled apart.
        force_separate_z: Whether the axis of the largest spacing is resampled apart; ``None`` decides by the threshold.
        separate_z_anisotropy_threshold: Largest over smallest spacing above which it is.
    """

    name: str = RESAMPLINGS[0]
    is_seg: bool = False
    order: int = 3
    order_z: int = 0
    force_separate_z: bool | None = False
    separate_z_anisotropy_threshold: float = 3.0


@dataclass(frozen=True, kw_only=True)
class InferencePlan:
    """A model's preprocessing, patch, labels and files. Axes are in the transposed order unless said otherwise.

    Attributes:
        dataset_name: Data set the model was trained on.
        configuration: nnU-Net configuration, e.g. ``3d_fullres``.
        spacing: Millimetres per voxel the network works at; two numbers for a 2-D configuration.
        patch_size: Voxels per tile; as many numbers as ``spacing``.
        transpose_forward: Which axis of the image as read becomes each axis of the network's array.
        transpose_backward: The way back.
        normalization_schemes: nnU-Net's class name per channel.
        use_mask_for_norm: Per channel, whether statistics are taken inside the non-zero mask.
        foreground_intensity_properties: Per channel, what the data set's foreground has: mean, std, percentiles.
        resampling_data: How images are resampled.
        resampling_seg: How the previous stage's label map is resampled.
        resampling_probabilities: How logits are brought back to the image.
        channel_names: Of the image, in the order of the files' ``_0000`` endings.
        labels: Label, or labels of a region, by name, as in dataset.json.
        regions_class_order: Label that each region writes, in writing order; ``None`` without regions.
        file_ending: Of images and label maps, with its dot.
        image_reader_writer: nnU-Net's class name.
        mirror_axes: Axes of the patch that may be mirrored; ``None`` where training did not mirror.
        previous_stage: Configuration whose label map is a cascade's extra input; ``None`` without a cascade.
    """

    dataset_name: str
    configuration: str
    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    foreground_intensity_properties: tuple[dict[str, float], ...]
    resampling_data: Resampling
    resampling_seg: Resampling
    resampling_probabilities: Resampling
    channel_names: tuple[str, ...]
    labels: dict[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None
    file_ending: str
    image_reader_writer: str
    mirror_axes: tuple[int, ...] | None
    previous_stage: str | None

    @property
    def has_regions(self) -> bool:
        """Whether the network has a sigmoid per region instead of a softmax over labels."""
        return any(isinstance(value, tuple) and len(value) > 1 for value in self.labels.values())

    @property
    def ignore_label(self) -> int | None:
        """Label that training left out; the network has no output for it."""
        value = self.labels.get("ignore")
        return value if isinstance(value, int) else None

    @property
    def foreground_labels(self) -> tuple[int, ...]:
        """Labels above 0 in rising order, without the ignore label; one input channel each in a cascade."""
        values = [value for name, value in self.labels.items() if name != "ignore"]
        flat = {label for value in values for label in (value if isinstance(value, tuple) else (value,))}
        return tuple(sorted(flat - {0}))

    @property
    def n_outputs(self) -> int:
        """Channels that the network returns: one per region, or background and one per label."""
        if not self.has_regions:
            return len(self.foreground_labels) + 1
        named = [value for name, value in self.labels.items() if name != "ignore"]
        return len([value for value in named if value != 0 and set(value if isinstance(value, tuple) else ()) != {0}])

    @property
    def n_inputs(self) -> int:
        """Channels that the network takes: the image's, and the foreground labels of a cascade's previous stage."""
        return len(self.channel_names) + (len(self.foreground_labels) if self.previous_stage else 0)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "InferencePlan":
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: If a key is missing or unknown, or a name is none that this version knows.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        check_keys(content, known, "inference plan")
        if missing := [name for name in known if name not in content]:
            raise UsageError(f"inference plan: expected the key '{missing[0]}', found none; export the model again")
        values = {name: _frozen(value) for name, value in content.items()}
        values["labels"] = {name: _frozen(value) for name, value in content["labels"].items()}
        for name in ("resampling_data", "resampling_seg", "resampling_probabilities"):
            settings = dict(content[name])
            values[name] = _resampling(settings.pop("name", None), settings, name)
        plan = cls(**values)
        _check_known(plan)
        return plan


def make_inference_plan(
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    configuration: str,
    mirror_axes: Sequence[int] | None,
) -> InferencePlan:
    """Collect what prediction needs of a model folder's files.

    Args:
        plans: Content of plans.json; the configuration may inherit from others.
        dataset_json: Content of dataset.json.
        configuration: nnU-Net configuration.
        mirror_axes: ``inference_allowed_mirroring_axes`` of the checkpoint.

    Raises:
        UsageError: If the plans name a class or function that is not known here, or lack something.
    """
    settings = _resolved(plans, configuration)
    _check_classes(plans, settings)
    channels = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    intensities = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    try:
        plan = InferencePlan(
            dataset_name=plans["dataset_name"],
            configuration=configuration,
            spacing=tuple(float(value) for value in settings["spacing"]),
            patch_size=tuple(int(value) for value in settings["patch_size"]),
            transpose_forward=tuple(plans["transpose_forward"]),
            transpose_backward=tuple(plans["transpose_backward"]),
            normalization_schemes=tuple(settings["normalization_schemes"]),
            use_mask_for_norm=tuple(settings["use_mask_for_norm"]),
            foreground_intensity_properties=tuple(dict(intensities.get(str(c), {})) for c in range(len(channels))),
            channel_names=tuple(channels[key] for key in sorted(channels, key=int)),
            labels={name: _frozen(value) for name, value in dataset_json["labels"].items()},
            regions_class_order=_frozen(dataset_json.get("regions_class_order")),
            file_ending=dataset_json["file_ending"],
            image_reader_writer=plans["image_reader_writer"],
            mirror_axes=None if mirror_axes is None else tuple(int(axis) for axis in mirror_axes),
            previous_stage=settings.get("previous_stage"),
            **{
                f"resampling_{of}": _resampling(
                    settings[f"resampling_fn_{of}"], settings[f"resampling_fn_{of}_kwargs"], f"resampling_fn_{of}"
                )
                for of in ("data", "seg", "probabilities")
            },
        )
    except KeyError as error:
        raise UsageError(f"plans.json or dataset.json, {configuration}: lacks {error}; copy the files again") from error
    _check_known(plan)
    return plan


def _resolved(plans: Mapping[str, Any], configuration: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    known = plans.get("configurations", {})
    if configuration in seen or configuration not in known:
        found = "a circle" if configuration in seen else f"none among {', '.join(known) or 'no configurations'}"
        raise UsageError(f"plans.json: expected configuration '{configuration}', found {found}; copy the file again")
    own = dict(known[configuration])
    parent = own.get("inherits_from")
    return own if parent is None else _resolved(plans, parent, (*seen, configuration)) | own


def _check_classes(plans: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for where, name, expected in (
        ("label_manager", plans.get("label_manager", "LabelManager"), "LabelManager"),
        ("preprocessor_name", settings.get("preprocessor_name"), "DefaultPreprocessor"),
    ):
        if name != expected:
            raise UsageError(
                f"plans.json, {where}: only nnU-Net's {expected} is known outside nnU-Net, got {name}; predict with "
                "nnUNetv2_predict"
            )


def _resampling(name: Any, settings: Mapping[str, Any], where: str) -> Resampling:  # noqa: ANN401  # any JSON value
    check_choice(name, RESAMPLINGS, f"{where} (others work only with nnUNetv2_predict)")
    check_keys(settings, _RESAMPLING_DEFAULTS, where)
    values = _RESAMPLING_DEFAULTS | dict(settings)
    check_choice(values["force_separate_z"], (True, False, None), f"{where}, force_separate_z")
    for key in ("order", "order_z"):
        check_choice(values[key], range(6), f"{where}, {key}")
    return Resampling(name=name, **values)


def _check_known(plan: InferencePlan) -> None:
    for scheme in plan.normalization_schemes:
        check_choice(scheme, NORMALIZATIONS, "normalization_schemes (others work only with nnUNetv2_predict)")
    check_choice(plan.image_reader_writer, READERS, "image_reader_writer (others work only with nnUNetv2_predict)")
    n_channels = len(plan.channel_names)
    per_channel = (plan.normalization_schemes, plan.use_mask_for_norm, plan.foreground_intensity_properties)
    if not n_channels or any(len(values) < n_channels for values in per_channel):
        raise UsageError(
            f"expected a normalisation for each of {n_channels} channels, got {len(plan.normalization_schemes)}; "
            "copy plans.json and dataset.json of one model"
        )
    if len(plan.spacing) != len(plan.patch_size) or len(plan.spacing) not in (2, 3):
        raise UsageError(
            f"expected spacing and patch_size of 2 or 3 axes, got {plan.spacing} and {plan.patch_size}; copy plans.json"
        )
    if plan.has_regions and len(plan.regions_class_order or ()) != plan.n_outputs:
        raise UsageError(
            f"expected {plan.n_outputs} entries of regions_class_order, got {plan.regions_class_order}; mend "
            "dataset.json"
        )


def _frozen(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list | tuple) else value
