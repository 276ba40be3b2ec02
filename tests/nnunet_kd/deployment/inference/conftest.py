"""Plans of toy models, read by nnU-Net and by us."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_kd.deployment.inference.plan import InferencePlan, make_inference_plan
from nnunet_kd.deployment.inference.sliding_window import Network

CT = {"mean": 40.0, "std": 25.0, "percentile_00_5": -60.0, "percentile_99_5": 120.0}


@dataclass(frozen=True)
class Model:
    """A toy model's plans and data set, as files hold them."""

    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    configuration: str = "3d_fullres"

    def ours(self, mirror_axes: tuple[int, ...] | None = None) -> InferencePlan:
        return make_inference_plan(self.plans, self.dataset_json, self.configuration, mirror_axes)

    def manager(self) -> PlansManager:
        return PlansManager(self.plans)

    def network(self) -> torch.nn.Module:
        """Two random convolutions: the second sees what the first made of the neighbours."""
        plan = self.ours()
        conv = torch.nn.Conv3d if len(plan.patch_size) == 3 else torch.nn.Conv2d
        torch.manual_seed(0)
        layers = conv(plan.n_inputs, 6, 3, padding=1), torch.nn.Tanh(), conv(6, plan.n_outputs, 3, padding=1)
        network = torch.nn.Sequential(*layers).eval()
        for parameter in network.parameters():
            parameter.data *= 3
        return network

    def predictor(self, network: torch.nn.Module, mirror_axes: tuple[int, ...] | None = None) -> nnUNetPredictor:
        predictor = nnUNetPredictor(use_mirroring=mirror_axes is not None, device=torch.device("cpu"), allow_tqdm=False)
        manager = self.manager()
        configuration = manager.get_configuration(self.configuration)
        weights = [network.state_dict()]
        predictor.manual_initialization(network, manager, configuration, weights, self.dataset_json, "", mirror_axes)
        return predictor


def resampling(order: int = 1, force: bool | None = None, order_z: int = 0, *, is_seg: bool = False) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": order_z, "force_separate_z": force}


MakeModel = Callable[..., Model]


@pytest.fixture
def make_model() -> MakeModel:
    """Return a function that makes a model from what is to differ from an isotropic MR model with two labels."""

    def make(
        labels: dict[str, Any] | None = None,
        channels: tuple[str, ...] = ("MRI",),
        transpose: tuple[int, ...] = (0, 1, 2),
        regions: tuple[int, ...] | None = None,
        ending: str = ".nii.gz",
        reader: str = "SimpleITKIO",
        **changes: Any,
    ) -> Model:
        settings = {
            "data_identifier": "toy",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [8, 10, 12],
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"] * len(channels),
            "use_mask_for_norm": [False] * len(channels),
            "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
        }
        for of, kwargs in (
            ("data", resampling(3)),
            ("seg", resampling(1, is_seg=True)),
            ("probabilities", resampling(1)),
        ):
            settings[f"resampling_fn_{of}"] = "resample_data_or_seg_to_shape"
            settings[f"resampling_fn_{of}_kwargs"] = kwargs
        plans = {
            "dataset_name": "Dataset900_Toy",
            "plans_name": "nnUNetPlans",
            "transpose_forward": list(transpose),
            "transpose_backward": [int(axis) for axis in np.argsort(transpose)],
            "image_reader_writer": reader,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {str(c): dict(CT) for c in range(len(channels))},
            "configurations": {"base": settings, "3d_fullres": {"inherits_from": "base"} | changes},
        }
        dataset_json = {
            "channel_names": {str(index): name for index, name in enumerate(channels)},
            "labels": labels or {"background": 0, "one": 1, "two": 2},
            "file_ending": ending,
        }
        return Model(plans, dataset_json | ({"regions_class_order": list(regions)} if regions else {}))

    return make


@pytest.fixture
def as_function() -> Callable[[torch.nn.Module], Network]:
    """Return a function that makes a network one from arrays to arrays."""

    def wrap(network: torch.nn.Module) -> Network:
        def call(patch: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                output: np.ndarray = network(torch.from_numpy(patch)).numpy()
            return output

        return call

    return wrap


@pytest.fixture
def blob() -> Callable[..., np.ndarray]:
    """Return a function that makes an image: a noisy ellipsoid with a hole, in a border of zeros."""

    def make(shape: tuple[int, ...], n_channels: int = 1, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        axes = np.meshgrid(*(np.linspace(-1.3, 1.1, n) for n in shape), indexing="ij")
        inside = sum(axis**2 for axis in axes) < 1 if min(shape) > 1 else axes[1] ** 2 + axes[2] ** 2 < 1
        values = random.normal(30, 40, size=(n_channels, *shape)) * inside
        values[(slice(None), *(n // 2 for n in shape))] = 0
        return values.astype(np.float32)

    return make
