"""Adds options to `optuna-kd`, so that a Makefile runs as it is, and yet not for minutes.

Python imports this module as it starts, where its folder is in PYTHONPATH.
"""

import os
import sys
from pathlib import Path

if Path(sys.argv[0]).name == "optuna-kd":
    sys.argv += os.environ["MORE_OPTIONS"].split()
