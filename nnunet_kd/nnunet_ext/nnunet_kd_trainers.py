"""The only module nnU-Net's trainer search imports from us; it re-exports ``nnunet_kd.trainers``."""

try:
    from nnunet_kd.trainers import *  # noqa: F403
except ModuleNotFoundError as error:
    # another environment may inherit nnUNet_extTrainer without having this package: then define nothing,
    # because an exception here would end nnU-Net's search for every trainer
    if error.name != "nnunet_kd":
        raise
