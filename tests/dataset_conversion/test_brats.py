"""Claims about BraTS, on trees in the organisers' layouts."""

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_kd import cli
from nnunet_kd.dataset_conversion import brats
from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription
from nnunet_kd.dataset_conversion.challenges import challenge
from nnunet_kd.errors import UsageError
from nnunet_kd.postprocessing.brats import TumourLabels, tumour_labels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What one edition's download looks like.

    Attributes:
        training: Case names per folder.
        validation: The same for the cases without label maps.
        images: What is between the case's name and the ending, in the order T1, T1 with contrast, T2, FLAIR.
        label: The same for the label map.
        values: Our value of each of the organisers'.
        regions: Our values in each region.
    """

    training: Mapping[str, tuple[str, ...]]
    validation: Mapping[str, tuple[str, ...]]
    images: tuple[str, ...]
    label: str
    values: Mapping[int, int]
    regions: Mapping[str, tuple[int, ...]]
    ending: str = ".nii.gz"
    grid: tuple[int, int, int] = (240, 240, 155)


# Parts as published: 1 necrotic, 2 edema, 4 enhancing (https://www.med.upenn.edu/cbica/brats2019/tasks.html), enhancing
# is 3 since 2023 (https://github.com/rachitsaluja/BraTS-2023-Metrics); after treatment 4 is the resection cavity and
# children's are 1 enhancing, 2 non-enhancing, 3 cystic, 4 edema (https://github.com/rachitsaluja/BraTS-2024-Metrics).
# Ours count from the outside: edema, necrotic, (cystic,) enhancing, cavity.
UNTIL_2021 = {0: 0, 2: 1, 1: 2, 4: 3}
SINCE_2023 = {0: 0, 2: 1, 1: 2, 3: 3}
AFTER_TREATMENT = {0: 0, 2: 1, 1: 2, 3: 3, 4: 4}
CHILDREN = {0: 0, 4: 1, 2: 2, 3: 3, 1: 4}
THREE = {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)}
FOUR = THREE | {"resection cavity": (4,)}
FOUR_OF_CHILDREN = {
    "whole tumor": (1, 2, 3, 4),
    "tumor core": (2, 3, 4),
    "cystic component": (3,),
    "enhancing tumor": (4,),
}
OLD = {"images": ("_t1", "_t1ce", "_t2", "_flair"), "label": "_seg", "values": UNTIL_2021, "regions": THREE}
NEW = {"images": ("-t1n", "-t1c", "-t2w", "-t2f"), "label": "-seg", "values": SINCE_2023, "regions": THREE}


def _since_2023(tumour: str, training: str, validation: str, **other: Any) -> Layout:
    """Return a layout with three patients to train with, the first of them at two time points."""
    cases = tuple(f"BraTS-{tumour}-{ending}" for ending in ("00008-000", "00008-001", "00012-000", "00014-000"))
    parts = {"training": {training: cases}, "validation": {validation: (f"BraTS-{tumour}-00001-000",)}}
    return Layout(**NEW | parts | other)


def _asnr_2023(tumour: str) -> Layout:
    folder = f"ASNR-MICCAI-BraTS2023-{tumour}-Challenge"
    return _since_2023(tumour, f"{folder}-TrainingData", f"{folder}-ValidationData")


# 2018, 2019, 2021: nnU-Net's Dataset042_BraTS18.py, Dataset043_BraTS19.py and Dataset137_BraTS21.py,
# https://github.com/MIC-DKFZ/nnUNet/tree/master/nnunetv2/dataset_conversion; case names as participants list them.
# 2020: https://www.kaggle.com/datasets/awsaf49/brats20-dataset-training-validation (a copy, unpacked to .nii).
# 2023: https://huggingface.co/datasets/obi77/brats23-first-10-examples (a part, with the organisers' names).
# 2024: https://huggingface.co/datasets/flwrlabs/fed-brats (case names) and nnU-Net's Dataset226_BraTS2024-BraTS-GLI.py.
LAYOUTS = {
    "brats2018": Layout(
        **OLD,
        training={
            "MICCAI_BraTS_2018_Data_Training/HGG": ("Brats18_2013_10_1", "Brats18_CBICA_AAB_1"),
            "MICCAI_BraTS_2018_Data_Training/LGG": ("Brats18_TCIA13_630_1",),
        },
        validation={"MICCAI_BraTS_2018_Data_Validation": ("Brats18_CBICA_AAM_1",)},
    ),
    "brats2019": Layout(
        **OLD,
        training={
            "MICCAI_BraTS_2019_Data_Training/HGG": ("BraTS19_CBICA_AAL_1", "BraTS19_TCIA01_131_1"),
            "MICCAI_BraTS_2019_Data_Training/LGG": ("BraTS19_TCIA09_254_1",),
        },
        validation={"MICCAI_BraTS_2019_Data_Validation": ("BraTS19_CBICA_AAM_1", "BraTS19_CBICA_ABT_1")},
    ),
    "brats2020": Layout(
        **OLD,
        training={
            "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData": ("BraTS20_Training_001", "BraTS20_Training_355")
        },
        validation={"BraTS2020_ValidationData/MICCAI_BraTS2020_ValidationData": ("BraTS20_Validation_001",)},
        ending=".nii",
    ),
    "brats2021": Layout(
        **OLD,
        training={"BraTS2021_Training_Data": ("BraTS2021_00000", "BraTS2021_00002")},
        validation={"BraTS2021_ValidationData": ("BraTS2021_00001",)},
    ),
    "brats2023": _asnr_2023("GLI"),
    "brats2023-men": _asnr_2023("MEN"),
    "brats2023-met": _asnr_2023("MET"),
    "brats2023-ped": _asnr_2023("PED"),
    "brats2023-ssa": _asnr_2023("SSA"),
    "brats2024": Layout(
        **NEW | {"values": AFTER_TREATMENT, "regions": FOUR},
        training={"training_data1_v2": ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-GLI-03027-101")},
        validation={"validation_data": ("BraTS-GLI-02073-100",)},
        grid=(182, 218, 182),
    ),
    "brats2024-met": _since_2023(
        "MET", "MICCAI-BraTS2024-MET-Challenge-Training_1", "MICCAI-BraTS2024-MET-Challenge-Validation"
    ),
    "brats2024-ped": _since_2023(
        "PED",
        "BraTS-PEDs2024_Training",
        "BraTS_Validation_Data_backup",
        values=CHILDREN,
        regions=FOUR_OF_CHILDREN,
    ),
    "brats2024-ssa": _since_2023(
        "SSA", "ASNR-MICCAI-BraTS2023-SSA-Challenge-TrainingData_V2", "BraTS2024-SSA-Challenge-ValidationData"
    ),
}
MISNAMED = ("BraTS20_Training_355", "W39_1998.09.19_Segm")

FILES_BY_THEMSELVES = ("brats2018", "brats2019", "brats2020")

SIZE = (6, 7, 8)
STANDARD = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
ODD = np.array([[-0.9, 0.2, 0.1, 3.1], [0.15, -1.1, 0.25, 239], [0.05, 0.2, 1.3, -7.7], [0, 0, 0, 1]])

Download = Callable[..., Path]


@pytest.fixture
def download(tmp_path: Path) -> Download:
    """Return a function that writes an edition's download and returns its folder."""

    def write(
        name: str,
        *,
        validation: bool = True,
        training: bool = True,
        size: tuple[int, int, int] = SIZE,
        affine: Array = ODD,
    ) -> Path:
        layout, source = LAYOUTS[name], tmp_path / "download" / name
        folders = [*(layout.training if training else ()), *(layout.validation if validation else ())]
        for folder in folders:
            for case in (layout.training | layout.validation)[folder]:
                _write_case(
                    source / folder / case, layout, labelled=folder in layout.training, size=size, affine=affine
                )
        (source / "name_mapping.csv").write_text("Grade\n")
        return source

    return write


def _write_case(folder: Path, layout: Layout, *, labelled: bool, size: tuple[int, ...], affine: Array) -> None:
    folder.mkdir(parents=True)
    label = np.zeros(size, np.uint8)
    label[: SIZE[0], : SIZE[1], : SIZE[2]] = np.random.default_rng(len(folder.name)).choice(list(layout.values), SIZE)
    for channel, image in enumerate(layout.images):
        voxels = np.full(size, channel, np.int16)
        voxels[0, 0, 0] = 1000
        _save(voxels, folder / f"{folder.name}{image}{layout.ending}", affine)
    if labelled:
        odd, stem = MISNAMED
        _save(label, folder / f"{stem if folder.name == odd else folder.name + layout.label}{layout.ending}", affine)


def _save(voxels: Array, path: Path, affine: Array = ODD) -> None:
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    nibabel.save(image, path)


def _voxels(path: Path) -> Array:
    return np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def _label(layout: Layout, folder: Path) -> Path:
    stem = MISNAMED[1] if folder.name == MISNAMED[0] else folder.name + layout.label
    return folder / f"{stem}{layout.ending}"


def _read(name: str, source: Path) -> tuple[DatasetDescription, dict[str, Case]]:
    description, cases = challenge(name).read_source(source)
    return description, {case.name: case for case in cases}


def _names(parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    return sorted(name for names in parts.values() for name in names)


def _convert(name: str, source: Path, raw: Path, *options: str) -> Path:
    assert cli.main(["convert", name, str(source), *options]) == 0
    (dataset,) = raw.iterdir()
    return dataset


def _swap(source: Path, case: str, change: Callable[[Path], object]) -> None:
    """Do something to the folder of a case."""
    (folder,) = source.rglob(case)
    change(folder)


every_edition = pytest.mark.parametrize("name", LAYOUTS)


def test_every_edition_has_a_layout_here() -> None:
    assert {*LAYOUTS, "brats-pool"} == set(brats.CHALLENGES)


@every_edition
def test_cases_with_and_without_label_maps_are_told_apart(name: str, download: Download) -> None:
    layout, source = LAYOUTS[name], download(name)
    description, cases = _read(name, source)
    assert sorted(n for n, case in cases.items() if case.label) == _names(layout.training)
    assert sorted(n for n, case in cases.items() if not case.label) == _names(layout.validation)
    assert description.file_ending == layout.ending
    files = {path for case in cases.values() for path in (*(v.path for v in case.images), case.label) if path}
    assert files == set(source.rglob("*.nii*"))


@every_edition
def test_channels_come_in_nnunets_order(name: str, download: Download) -> None:
    description, cases = _read(name, download(name))
    assert description.channel_names == ("T1", "T1ce", "T2", "Flair")
    for case in cases.values():
        assert [int(_voxels(image.path)[1, 1, 1]) for image in case.images] == [0, 1, 2, 3]


@every_edition
def test_regions_painted_in_their_order_give_the_labels_back(name: str, download: Download) -> None:
    description, _ = _read(name, download(name))
    order, values = description.regions_class_order, np.array(sorted(LAYOUTS[name].values.values()))
    assert order is not None
    painted = np.zeros_like(values)
    for region, value in zip(LAYOUTS[name].regions, order, strict=True):
        painted[np.isin(values, LAYOUTS[name].regions[region])] = value
    assert painted.tolist() == values.tolist()


@every_edition
def test_clean_up_of_brats_finds_the_parts_of_adults(name: str, download: Download) -> None:
    content = _read(name, download(name))[0].to_json(1)
    if name == "brats2024-ped":  # its core has three parts
        with pytest.raises(UsageError, match="expected the labels edema, necrotic and enhancing"):
            tumour_labels(content, Path("dataset.json"))
    else:
        assert tumour_labels(content, Path("dataset.json")) == TumourLabels(edema=1, necrotic=2, enhancing=3)


@every_edition
def test_labels_become_nnunets(name: str, download: Download, nnunet_raw: Path) -> None:
    layout, source = LAYOUTS[name], download(name)
    dataset = _convert(name, source, nnunet_raw)
    content = json.loads((dataset / "dataset.json").read_text())
    regions = {k: tuple(v) if isinstance(v, list) else (v,) for k, v in content["labels"].items()}
    assert regions == {"background": (0,)} | layout.regions
    assert content["numTraining"] == len(_names(layout.training))
    for case in _names(layout.training):
        (folder,) = source.rglob(case)
        theirs, ours = _voxels(_label(layout, folder)), _voxels(dataset / "labelsTr" / f"{case}{layout.ending}")
        assert set(np.unique(theirs)) == set(layout.values)
        assert all(set(np.unique(ours[theirs == value])) == {layout.values[value]} for value in layout.values)


@pytest.mark.parametrize(
    "name",
    [n if n in ("brats2020", "brats2024-ped") else pytest.param(n, marks=pytest.mark.slow) for n in LAYOUTS],
)
def test_nnunet_accepts_the_data_set(name: str, download: Download, nnunet_raw: Path) -> None:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(_convert(name, download(name), nnunet_raw)), 1)


@pytest.mark.parametrize(
    ("name", "case", "patient"),
    [
        ("brats2018", "Brats18_TCIA13_630_1", "Brats18_TCIA13_630"),
        ("brats2021", "BraTS2021_00002", ""),
        ("brats2023", "BraTS-GLI-00008-001", "BraTS-GLI-00008"),
        ("brats2024", "BraTS-GLI-00005-101", "BraTS-GLI-00005"),
    ],
)
def test_time_points_have_one_patient(name: str, case: str, patient: str, download: Download) -> None:
    assert _read(name, download(name))[1][case].patient == patient


def test_time_points_stay_in_one_fold(download: Download, nnunet_raw: Path) -> None:
    source = download("brats2023", validation=False)
    (folder,) = LAYOUTS["brats2023"].training
    for number in range(20, 24):
        for point in range(2):
            case = source / folder / f"BraTS-GLI-{number:05d}-{point:03d}"
            _write_case(case, LAYOUTS["brats2023"], labelled=True, size=SIZE, affine=ODD)
    folds = json.loads((_convert("brats2023", source, nnunet_raw) / "splits_final.json").read_text())
    assert len(folds) == 5
    for fold in folds:
        assert not {case[:15] for case in fold["train"]} & {case[:15] for case in fold["val"]}


@pytest.mark.parametrize("name", ["brats2020", "brats2024"])
def test_validation_folder_alone_is_a_pool(name: str, download: Download, nnunet_raw: Path) -> None:
    dataset = _convert(name, download(name, training=False), nnunet_raw)
    assert json.loads((dataset / "dataset.json").read_text())["numTraining"] == 0
    assert len(list((dataset / "imagesTs").iterdir())) == 4 * len(_names(LAYOUTS[name].validation))


def test_pool_takes_any_years_and_leaves_labels_behind(download: Download, nnunet_raw: Path) -> None:
    source = download("brats2021").parent
    download("brats2023-men")
    dataset = _convert("brats-pool", source, nnunet_raw)
    expected = [case for name in ("brats2021", "brats2023-men") for case in _names(LAYOUTS[name].training)]
    expected += [case for name in ("brats2021", "brats2023-men") for case in _names(LAYOUTS[name].validation)]
    assert sorted({path.name[:-12] for path in (dataset / "imagesTs").iterdir()}) == sorted(expected)
    assert not (dataset / "labelsTr").exists()


def test_links_are_followed_and_copies_of_other_programs_are_not(download: Download, tmp_path: Path) -> None:
    source = download("brats2021")
    expected = set(_read("brats2021", source)[1])
    linked = tmp_path / "linked"
    linked.mkdir()
    for folder in source.iterdir():
        (linked / folder.name).symlink_to(folder)
    (linked / "again").symlink_to(linked)  # a circle
    for other in (".cache", "__MACOSX"):
        (linked / other / "BraTS2021_00777").mkdir(parents=True)
    assert set(_read("brats2021", linked)[1]) == expected


def test_files_with_both_endings_are_read_by_the_one_that_all_have(download: Download) -> None:
    source = download("brats2021")
    for path in list(source.rglob("*_t2.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert _read("brats2021", source)[0].file_ending == ".nii.gz"


def _unpack_one(source: Path) -> None:
    path = min(source.rglob("*.nii.gz"))
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("brats2021", _unpack_one, r"1 are \.nii only .* -exec gzip"),
        ("brats2019", lambda s: shutil.rmtree(s) or s.mkdir(), "like BraTS19_CBICA_AAB_1 .* found none"),
        ("brats2019", shutil.rmtree, "No such file"),
    ],
    ids=["two endings", "empty", "no folder"],
)
def test_other_downloads_are_refused(
    name: str, change: Callable[[Path], object], said: str, download: Download
) -> None:
    source = download(name)
    change(source)
    with pytest.raises(UsageError, match=said):
        challenge(name).read_source(source)


@pytest.mark.parametrize(
    ("real", "typed", "said"),
    [
        ("brats2021", "brats2020", "convert brats2021 "),
        ("brats2023-met", "brats2023", "convert brats2023-met or brats2024-met "),
    ],
)
def test_other_years_name_is_said(real: str, typed: str, said: str, download: Download) -> None:
    with pytest.raises(UsageError, match=said):
        challenge(typed).read_source(download(real))


def _relabel(ending: str, value: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / f"{folder.name}{ending}"
        _save(np.full(SIZE, value, np.uint8), path)

    return change


def _shift(ending: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _save(np.zeros(SIZE, np.int16), folder / f"{folder.name}{ending}", ODD + np.eye(4)[:, [3, 0, 1, 2]] * 0.5)

    return change


def _remove(ending: str) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{folder.name}{ending}").unlink()


FAULTS = {
    "missing modality": ("brats2021", "BraTS2021_00000", _remove("_t1ce.nii.gz"), ["_t1ce.nii.gz", "missing"]),
    "missing modality to test": ("brats2021", "BraTS2021_00001", _remove("_t2.nii.gz"), ["_t2.nii.gz", "missing"]),
    "missing label": ("brats2020", "BraTS20_Training_001", _remove("_seg.nii"), ["001_seg.nii", "missing"]),
    "new value, old year": ("brats2021", "BraTS2021_00000", _relabel("_seg.nii.gz", 3), ["label values 3"]),
    "old value, new year": ("brats2023", "BraTS-GLI-00012-000", _relabel("-seg.nii.gz", 4), ["label values 4"]),
    "moved": ("brats2024", "BraTS-GLI-00005-100", _shift("-t2w.nii.gz"), ["-t2w.nii.gz", "positions differ"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_case_is_named_and_can_be_left_out(
    fault: str, download: Download, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, case, change, said = FAULTS[fault]
    source = download(name)
    _swap(source, case, change)
    assert cli.main(["convert", name, str(source)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"  {case}:")]
    assert all(word in line for word in said)
    assert not list(nnunet_raw.iterdir())
    dataset = _convert(name, source, nnunet_raw, "--skip-faulty")
    assert not list(dataset.rglob(f"{case}*"))


def test_same_case_twice_is_refused(download: Download, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = download("brats2021")
    (folder,) = source.rglob("BraTS2021_00000")
    shutil.copytree(folder, source / "copy" / folder.name)
    assert cli.main(["convert", "brats2021", str(source)]) == 2
    assert "BraTS2021_00000: its name is given to 2 cases" in capsys.readouterr().err


def _submit(name: str, predictions: Path, images: Path, *options: str) -> tuple[int, Path]:
    target = predictions.parent / ("sent" if name in FILES_BY_THEMSELVES else "sent.zip")
    arguments = ["submit", name, str(predictions), "-o", str(target), "--images", str(images), *options]
    return cli.main(arguments), target


def _content(target: Path) -> dict[str, bytes]:
    if target.is_dir():
        return {path.name: path.read_bytes() for path in target.iterdir()}
    with zipfile.ZipFile(target) as archive:
        return {file: archive.read(file) for file in archive.namelist()}


@pytest.fixture
def let_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that changes what the organisers take."""

    def change(name: str, **changes: Any) -> None:
        found = brats.CHALLENGES[name]
        assert found.submission is not None
        monkeypatch.setitem(brats.CHALLENGES, name, replace(found, submission=replace(found.submission, **changes)))

    return change


def _assert_round_trip(name: str, source: Path, raw: Path) -> None:
    layout, dataset = LAYOUTS[name], _convert(name, source, raw)
    status, target = _submit(name, dataset / "labelsTr", dataset / "imagesTr")
    assert status == 0
    files = _content(target)
    assert sorted(files) == [f"{case}.nii.gz" for case in _names(layout.training)]
    for file, content in files.items():
        (folder,) = source.rglob(file.removesuffix(".nii.gz"))
        sent, truth = nibabel.Nifti1Image.from_bytes(gzip.decompress(content)), nibabel.load(_label(layout, folder))
        assert np.array_equal(np.asanyarray(sent.dataobj), np.asanyarray(truth.dataobj))  # type: ignore[attr-defined]
        image = nibabel.load(folder / f"{folder.name}{layout.images[0]}{layout.ending}")
        for place in ("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
            assert sent.header[place] == image.header[place]  # type: ignore[index]
        for place in ("sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units"):
            assert np.array_equal(sent.header[place], image.header[place])  # type: ignore[index]


@every_edition
def test_labels_go_out_as_they_came_in(
    name: str, download: Download, nnunet_raw: Path, let_in: Callable[..., None]
) -> None:
    let_in(name, shape=SIZE, affine=None)
    _assert_round_trip(name, download(name), nnunet_raw)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["brats2020", "brats2023", "brats2024"])
def test_the_organisers_grid_is_taken(name: str, download: Download, nnunet_raw: Path) -> None:
    source = download(name, validation=False, size=LAYOUTS[name].grid, affine=STANDARD)
    _assert_round_trip(name, source, nnunet_raw)


@every_edition
def test_other_grids_are_refused(
    name: str, download: Download, nnunet_raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = _convert(name, download(name, validation=False), nnunet_raw)
    assert _submit(name, dataset / "labelsTr", dataset / "imagesTr")[0] == 2
    assert f"expected {'x'.join(map(str, LAYOUTS[name].grid))}" in capsys.readouterr().err


@pytest.mark.parametrize(("affine", "status"), [(STANDARD, 0), (ODD, 2)], ids=["published", "other"])
def test_2023_takes_one_matrix_only(
    affine: Array, status: int, download: Download, nnunet_raw: Path, let_in: Callable[..., None]
) -> None:
    let_in("brats2023", shape=SIZE)
    dataset = _convert("brats2023", download("brats2023", affine=affine), nnunet_raw)
    assert _submit("brats2023", dataset / "labelsTr", dataset / "imagesTr")[0] == status


@pytest.mark.parametrize(("name", "status"), [("brats2021", 2), ("brats2024", 0)])
def test_part_of_the_cases_goes_where_it_is_scored(
    name: str, status: int, download: Download, nnunet_raw: Path, let_in: Callable[..., None]
) -> None:
    let_in(name, shape=SIZE)
    dataset = _convert(name, download(name), nnunet_raw)
    min((dataset / "labelsTr").iterdir()).unlink()
    assert _submit(name, dataset / "labelsTr", dataset / "imagesTr")[0] == 2
    assert _submit(name, dataset / "labelsTr", dataset / "imagesTr", "--partial")[0] == status


# what the validators look for: ``<folder's name>.nii.gz`` and, since 2023, names that end in NNNNN-NNN.nii.gz,
# https://github.com/Sage-Bionetworks-Challenges/brats2023/blob/main/evaluation/lesionwise/validate.py
@pytest.mark.parametrize(
    ("name", "case"),
    [("brats2021", "case_001"), ("brats2023", "BraTS-GLI-1-1"), ("brats2023-men", "BraTS-GLI-00001-000")],
)
def test_other_case_names_are_not_sent_in(name: str, case: str) -> None:
    found: Challenge = brats.CHALLENGES[name]
    assert found.submission is not None
    with pytest.raises(UsageError, match=f"got {case}"):
        found.submission.file_name(case)
