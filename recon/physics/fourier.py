"""The one Fourier transform of this package: two-dimensional, centred, orthonormal."""

from torch import Tensor, complex64, fft

_AXES = (-2, -1)


def image_to_kspace(image: Tensor) -> Tensor:
    """Return the centred, orthonormal 2-D Fourier transform over the last two axes.

    The zero frequency lies at index ``(H // 2, W // 2)``, for even and for odd sizes, and so does the image's origin,
    as in fastMRI [1]. The transform is unitary: it keeps lengths, and :func:`kspace_to_image` is its inverse and its
    adjoint.

    Args:
        image: ``(..., H, W)``, complex, or real of any precision: bfloat16 is widened first.

    Returns:
        ``(..., H, W)``, complex64; complex128 for double precision.

    References:
        [1] Zbontar et al., fastMRI: An Open Dataset and Benchmarks for Accelerated MRI, 2018,
            https://arxiv.org/abs/1811.08839

    Example:
        >>> import torch
        >>> image_to_kspace(torch.ones(2, 2)).real
        tensor([[0., 0.],
                [0., 2.]])
    """
    shifted = fft.ifftshift(to_complex(image), dim=_AXES)
    kspace: Tensor = fft.fftshift(fft.fft2(shifted, norm="ortho"), dim=_AXES)
    return kspace


def kspace_to_image(kspace: Tensor) -> Tensor:
    """Return the inverse of :func:`image_to_kspace`, ``(..., H, W)``, complex."""
    shifted = fft.ifftshift(to_complex(kspace), dim=_AXES)
    image: Tensor = fft.fftshift(fft.ifft2(shifted, norm="ortho"), dim=_AXES)
    return image


def to_complex(values: Tensor) -> Tensor:
    """Return values as complex numbers of single precision, or of double where they are double already.

    What mixed precision left in half precision is widened, so that no Fourier transform ever runs in it.
    """
    if values.is_complex():
        return values.to(complex64) if values.element_size() < 8 else values
    wide = values if values.element_size() == 8 else values.float()
    return wide.to(wide.dtype.to_complex())
