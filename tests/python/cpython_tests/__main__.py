"""Makes the folder itself a program: VENV/bin/python tests/python/cpython_tests --python PYTHON"""

import os
import sys

sys.path[0] = os.path.realpath(__file__ + "/../../..")

from python.cpython_tests.commands import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
