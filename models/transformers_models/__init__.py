"""Any causal language model of transformers as a `Model`, with transformers' own cache inside.

`loading` reads options and weights, `positions` the length that a configuration allows, `growing`
makes the cache and its forks, `held` counts its bytes, `checks` refuses models whose answers
depend on how a prompt is split. Needs the `hf` extra; nothing of transformers is imported before
`load` is called.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.errors import ModelError
from models.protocols import Model

__all__ = ["load"]


def load(name: str, options: Mapping[str, object]) -> Model:
    """`loading.load`. Raises: ModelError, also where transformers is absent."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ModelError(
            f"model: {name!r} needs transformers: in a checkout, pip install '.[hf]'"
        ) from None
    from models.transformers_models import loading

    return loading.load(name, options)
