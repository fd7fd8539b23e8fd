"""python -m impasto"""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the folder we are called in: a random.py there is none of ours

from impasto.cli.app import main

main()
