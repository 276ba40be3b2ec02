"""MRI reconstruction and super-resolution with distillation, after nnU-Net's planning conventions."""
