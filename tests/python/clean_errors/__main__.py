"""Makes the folder itself a program: VENV/bin/python tests/python/clean_errors run"""

import os
import sys

sys.path[0] = os.path.realpath(__file__ + "/../../..")

# A process that is capped imports nothing that only the runner needs.
if sys.argv[1:2] == ["child"]:
    from python.clean_errors.child import main
elif sys.argv[1:2] == ["cells"]:
    from python.clean_errors.cells import main
elif sys.argv[1:2] == ["probe"]:
    from python.clean_errors.probes import main
else:
    from python.clean_errors.commands import main

sys.exit(main(sys.argv[1:]))
