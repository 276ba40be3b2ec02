"""The equation ``y = M F S x + n``: Fourier transform F, sampling M, coils S, noise n, and data consistency."""
