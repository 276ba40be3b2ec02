"""``python -m nnunet_kd`` is the program ``nnunet_kd``."""

import sys

from nnunet_kd.cli import main

if __name__ == "__main__":
    sys.exit(main())
