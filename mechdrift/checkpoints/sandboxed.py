"""The inside of a sandboxed process: its limit of memory, and the loop that answers requests, a line of JSON each."""

import json
import sys
from collections.abc import Callable
from typing import Any

MAX_MEMORY = 4 * 2**30  # bytes of data; sandbox.py names it


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Say that the libraries are loaded, then answer each request until there is none."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        pass
    else:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard), hard))
        # Who aborts for want of memory leaves no core file of 4 GB behind.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    sys.stdout.write("loaded\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(answer(json.loads(line)))}\n")
        sys.stdout.flush()
