"""What a component exports; imported by the entry module that `pie build` adds."""

from __future__ import annotations

import traceback
from contextlib import suppress
from types import ModuleType

from componentize_py_types import Err

from ._wasm import run
from .arguments import Arguments
from .chat import compile_template
from .entry import find_main, outcome
from .errors import Failure


def exported(module: ModuleType) -> type:
    """The class that implements `inferlet:core/run` for an inferlet's module."""
    main = find_main(module)
    _load_all()

    class Run:
        def run(self) -> None:
            error = run(outcome(main))
            if error is not None:
                raise Err(error)

    return Run


def _load_all() -> None:
    """Use what imports its parts lazily: a component has no files to import from later."""
    compile_template(_TEMPLATE).render(messages=[{"role": "user"}])
    try:
        compile_template("{{ missing.role }}").render()
    except Exception:  # noqa: BLE001  # only the path through Jinja's error handling counts
        traceback.format_exc()
    for arguments in (["--help"], ["--unknown"]):
        with suppress(Failure):
            Arguments("inferlet").parse_args(arguments)


_TEMPLATE = r"""
{%- macro shown(role) %}{{ role | trim | upper }}{% endmacro %}
{%- set seen = namespace(count=0) %}
{%- for message in messages | selectattr("role") %}
    {%- set seen.count = seen.count + 1 %}
    {{- shown(message.role) + '\n\u00e9' }}{{ message | tojson }}
{%- endfor %}{{ strftime_now("%d %b %Y") }}
"""
"""String literals go through codecs, filters and dates through modules of their own."""
