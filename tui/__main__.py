"""``python -m tui`` is ``svm-tui``."""

import sys

from tui.cli import main

sys.exit(main())
