"""``python -m zmalloc``: see :mod:`zmalloc._cli`."""

import sys

from zmalloc._cli import main

sys.exit(main())
