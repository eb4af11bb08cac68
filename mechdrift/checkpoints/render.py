"""A program, run by chat.py in a process of its own: conversations in, rendered text out, a line of JSON each."""

import json
import sys
from datetime import datetime, tzinfo
from typing import Any

MAX_MEMORY = 4 * 2**30  # bytes of data; a template can ask for any amount


def day(today: str) -> type[datetime]:
    """A datetime whose now() is the first moment of that day."""

    class Day(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Day":
            return cls.fromisoformat(today).replace(tzinfo=tz)

    return Day


def main() -> None:
    """Say that the libraries are loaded, then answer each request."""
    import transformers.utils.chat_template_utils  # noqa: F401 - before the first request, whose time is limited

    try:
        import resource
    except ImportError:  # Windows has no such limit
        pass
    else:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard), hard))
    sys.stdout.write("loaded\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(answered(json.loads(line)))}\n")
        sys.stdout.flush()


def answered(asked: dict[str, Any]) -> dict[str, Any]:
    """The conversations rendered, or why not."""
    from transformers.utils import chat_template_utils

    try:
        # What a template is given is made plain data, so its strftime_now can only be set through the module's own datetime.
        chat_template_utils.datetime = day(asked["today"])
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=asked["conversations"],
            chat_template=asked["chat_template"],
            add_generation_prompt=True,
            **asked["special_tokens"],
        )
    except Exception as error:  # whatever a template does wrong is told in one line
        return {"error": f"does not render ({type(error).__name__}: {' '.join(str(error).split())[:200]})"}
    return {"rendered": rendered, "error": ""}


if __name__ == "__main__":
    main()
