"""python -m regraft.serving MODEL PATH...: `regraft predict` without the rest of Regraft."""

import sys

from regraft.serving.command import main

if __name__ == "__main__":
    sys.exit(main())
