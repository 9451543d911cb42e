"""`python -m sgl_proxythinker.evaluation.behaviours`"""

import sys

from sgl_proxythinker.evaluation.behaviours.command_line import main

if __name__ == "__main__":
    sys.exit(main())
