"""A program, run by chat.py in a sandbox: conversations in, rendered text out; or a template in, names of its variables out."""

from datetime import datetime, tzinfo
from typing import Any

from mechdrift.checkpoints.sandboxed import serve


def day(today: str) -> type[datetime]:
    """A datetime whose now() is the first moment of that day."""

    class Day(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Day":
            return cls.fromisoformat(today).replace(tzinfo=tz)

    return Day


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """What was requested, or why not."""
    try:
        return (rendered if "conversations" in request else mentioned)(request) | {"error": ""}
    except Exception as error:  # whatever a template does wrong is named in one line
        return {"error": f"does not render ({type(error).__name__}: {' '.join(str(error).split())[:200]})"}


def rendered(request: dict[str, Any]) -> dict[str, Any]:
    """The conversations rendered."""
    from transformers.utils import chat_template_utils

    # What a template is given is made plain data, so its strftime_now can only be set through the module's own datetime.
    chat_template_utils.datetime = day(request["today"])
    texts, _ = chat_template_utils.render_jinja_template(
        conversations=request["conversations"],
        chat_template=request["chat_template"],
        add_generation_prompt=True,
        **request["variables"],
    )
    return {"rendered": texts}


def mentioned(request: dict[str, Any]) -> dict[str, Any]:
    """Names of the variables that the template reads before it sets them, by the grammar that transformers renders it with."""
    from jinja2.meta import find_undeclared_variables
    from transformers.utils import chat_template_utils

    grammar = chat_template_utils._compile_jinja_template(request["chat_template"]).environment
    return {"mentioned": sorted(find_undeclared_variables(grammar.parse(request["chat_template"])))}


if __name__ == "__main__":
    import transformers.utils.chat_template_utils  # noqa: F401 - before the first request, whose time is limited

    serve(answered)
