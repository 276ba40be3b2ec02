"""Build script: the sibling folders become sub-packages of ``nnunet_kd``."""

from setuptools import find_packages, setup

SIBLINGS = ("trainers", "dataset_conversion", "recon")

# nnunet_ext has no __init__.py, so that nnU-Net's search finds exactly one module in it
packages = [*find_packages(include=["nnunet_kd", "nnunet_kd.*"]), "nnunet_kd.nnunet_ext"]
package_dir = {"nnunet_kd": "nnunet_kd"}
for name in SIBLINGS:
    package_dir[f"nnunet_kd.{name}"] = name
    packages += [f"nnunet_kd.{name}", *(f"nnunet_kd.{name}.{sub}" for sub in find_packages(name))]

if __name__ == "__main__":  # nnU-Net's trainer search may import this file
    setup(packages=packages, package_dir=package_dir, package_data={"nnunet_kd": ["py.typed"]})
