"""Networks that run without torch: OpenVINO and ONNX Runtime behind one function on arrays."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.bundle import Bundle
from nnunet_kd.errors import UsageError
from nnunet_kd.hardware import n_cores
from nnunet_kd.optional import require

Array = NDArray[np.float32]
Network = Callable[[Array], Array]

# runtime: the module to import, which is also the name of the extra's main package
LIBRARIES = {"openvino": "openvino", "onnx": "onnxruntime"}
_LOG = logging.getLogger(__name__)


def open_network(bundle: Bundle, threads: int | None = None) -> Network:
    """Load the network of a bundle.

    Args:
        bundle: An exported model.
        threads: Cores to use, at least 1; ``None`` takes all that this process may use.

    Returns:
        A function from patches ``(B, C, *patch)`` to logits ``(B, n_outputs, *patch)``, both float32. It computes one
        patch after the other and is not to be called from two threads at once.

    Raises:
        UsageError: If the runtime is not installed or refuses the file.
    """
    return network_from_file(bundle.network, bundle.runtime, bundle.precision, threads)


def network_from_file(file: Path, runtime: str, precision: str, threads: int | None = None) -> Network:
    """Load a network that was exported with batch size 1; see :func:`open_network`.

    Args:
        file: OpenVINO's ``.xml`` with its ``.bin`` beside it, or an ``.onnx``.
        runtime: ``openvino`` or ``onnx``.
        precision: ``f32``, ``bf16`` (OpenVINO only; float32 where the processor has no bfloat16) or ``int8``.
        threads: Cores to use; ``None`` takes all.

    Raises:
        UsageError: If the runtime is not installed or refuses the file.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"expected at least 1 thread, got {threads}")
    library = import_runtime(runtime)
    load = _load_openvino if runtime == "openvino" else _load_onnx
    try:
        run_one, shape = load(library, file, precision, threads or n_cores())
    except RuntimeError as error:  # both libraries' word for a file they cannot read
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"{LIBRARIES[runtime]} {library.__version__} cannot open {file} ({reason}); export it again here"
        ) from error

    def run(patches: Array) -> Array:
        if patches.ndim != len(shape) or patches.shape[1:] != shape[1:]:
            raise ValueError(f"expected patches (B, {', '.join(map(str, shape[1:]))}), got {patches.shape}")
        patches = np.ascontiguousarray(patches, dtype=np.float32)
        if len(patches) == 1:
            return run_one(patches)
        return np.concatenate([run_one(patches[index : index + 1]) for index in range(len(patches))])

    return run


def import_runtime(runtime: str) -> Any:  # noqa: ANN401  # a module without type hints
    """Import the library that runs a bundle's network.

    Raises:
        UsageError: If it is not installed.
    """
    return require(LIBRARIES[runtime])


def computes_bf16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this processor.

    Raises:
        UsageError: If OpenVINO is not installed.
    """
    core = import_runtime("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _load_openvino(ov: Any, file: Path, precision: str, threads: int) -> tuple[Network, tuple[int, ...]]:  # noqa: ANN401
    if precision == "bf16" and not computes_bf16():
        _LOG.warning("this processor has no bfloat16: the network is run in float32")
        precision = "f32"
    # without a hint OpenVINO takes bfloat16 by itself wherever the processor has it
    hint = "bf16" if precision == "bf16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(str(file), "CPU", settings)
    request = compiled.create_infer_request()
    output = compiled.output(0)

    def run_one(patch: Array) -> Array:
        logits: Array = request.infer({0: patch}, share_inputs=True)[output]
        return logits

    return run_one, tuple(compiled.input(0).shape)


def _load_onnx(ort: Any, file: Path, precision: str, threads: int) -> tuple[Network, tuple[int, ...]]:  # noqa: ANN401
    if precision != "f32":
        raise UsageError(f"ONNX Runtime runs bundles in f32 only, got {precision}; export with --format openvino")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class of their own
        raise RuntimeError(str(error)) from error
    entry = session.get_inputs()[0]

    def run_one(patch: Array) -> Array:
        logits: Array = session.run(None, {entry.name: patch})[0]
        return logits

    return run_one, tuple(entry.shape)
