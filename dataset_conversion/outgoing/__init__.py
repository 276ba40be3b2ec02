"""From predictions to what organisers take: check, map back, pack, read back."""
