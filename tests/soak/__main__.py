"""The long proofs: ``python tests/soak --help``. The test run has a short form of each, in ``tests/test_soak.py``."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the folder of tests, where the modules of tests are

from soak.runner import main  # noqa: E402  # it is found only now

faulthandler.enable()
sys.exit(main())
