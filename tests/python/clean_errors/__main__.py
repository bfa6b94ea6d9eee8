"""Makes the folder itself a program: VENV/bin/python tests/python/clean_errors run"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

# A process that is capped imports nothing that only the runner needs.
if sys.argv[1:2] == ["child"]:
    from python.clean_errors.child import main
elif sys.argv[1:2] == ["cells"]:
    from python.clean_errors.cells import main
else:
    from python.clean_errors.commands import main

sys.exit(main(sys.argv[1:]))
