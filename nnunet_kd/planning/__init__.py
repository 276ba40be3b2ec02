"""What is decided before training: the kd block, the student's plans, the checks between teacher and student."""
