"""SWIM ("See What I Mean"): the attention of a named noun falls on that object. See the README at the top."""

import sys

from swim.command_line import end_in_one_line

if sys.argv[:1] == ["-m"]:  # `python -m swim.X` is about to import X
    sys.excepthook = end_in_one_line
