"""`python -m declai.worker.node`."""

import sys

from declai.worker.node.program import main

sys.exit(main())
