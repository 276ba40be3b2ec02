"""What happens during training: teachers, targets, the objective, the trainer, its checkpoints."""
