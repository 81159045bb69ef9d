"""Memory that a process has freed stays with it, so that the next tensor of that size costs no page faults.

glibc maps every large block anew and gives it back when it is freed; a network on a CPU then spends a tenth to
a third of its time in page faults. The price is that the process stays as large as it once was.
"""

import ctypes
import os
import platform

VARIABLE = "DIFFSE_KEEP_PAGES"  # 0: leave the C library as it is
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names of glibc's malloc.h
_NEVER, _AT_ONCE = 2**31 - 1, 2**28  # bytes


def keep() -> bool:
    """Tell glibc to keep freed memory, for the rest of the process. Returns whether it does.

    Other C libraries, and a user who set `DIFFSE_KEEP_PAGES=0`, are left alone.
    """
    if os.environ.get(VARIABLE) == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _AT_ONCE}
    return all([mallopt(option, value) == 1 for option, value in options.items()])
