"""The trainers that ``nnUNetv2_train -tr NAME`` finds: one per file."""

__all__: list[str] = []
