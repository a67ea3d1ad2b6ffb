"""What writers of videos have in common."""

X264_REPEATABLE = "mbtree=0"
"""For `x264-params`: the same frames give the same bytes, with one thread.

With its macroblock tree x264 now and then gives others in a process that has done other work.
"""
