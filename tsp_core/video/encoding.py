"""What writers of videos have in common."""

X264_REPEATABLE = "mbtree=0"
"""For `x264-params`: the same frames give the same bytes, with one thread.

x264's macroblock tree reads memory that it did not write: in a process that has done other work, a
file in fifty differs.
"""
