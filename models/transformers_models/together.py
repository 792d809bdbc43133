"""Decodes the answers of several sessions of one network together.

A step of one token reads all weights, whatever it computes. Here a step serves one token of each
session: projections work on all of them, attention on each session's own keys. Sessions keep their
caches and positions, so that any lengths, and caches of any kind, go together. Logits are those of
a session alone but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from models.decoding import Growing, gold_score
from models.errors import ModelError
from models.protocols import Decoding, Reply
from models.transformers_models.attention_calls import Attend, function_of, replaced
from models.transformers_models.checks import TOLERANCE, relative_difference
from models.transformers_models.growing import GrowingIndexMixin, mixed, of_class
from models.transformers_models.session import HuggingFaceSession, Network

ATTENTION = ("sdpa", "eager")
"""Attention functions that take one query without a mask."""


class OfAllMixin:
    """`update` of a layer that stands for that of each session."""

    layers: Sequence[Any]
    held: list[tuple[Tensor, Tensor]]

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Each session's layer takes its row of `keys` and `values` [N, G, 1, C]."""
        rows = zip(keys.split(1), values.split(1), strict=True)
        self.held = [
            layer.update(*row, *args, **kwargs)
            for layer, row in zip(self.layers, rows, strict=True)
        ]
        return keys, values


def layer_of_all(layers: Sequence[Any]) -> Any:
    """A layer for a step of all sessions; what is asked of it otherwise, the first one answers."""
    kind: type = type(layers[0])
    found = of_class(layers[0], mixed(OfAllMixin, kind))
    found.layers = layers
    return found


def generate_together(
    sessions: Sequence[HuggingFaceSession], decodings: Sequence[Decoding]
) -> list[Reply | Exception]:
    """What `generate` of each session gives, or raises. Right answers are scored one by one."""
    if len(sessions) == 1:
        return [_alone(sessions[0], decodings[0])]
    replies: dict[int, Reply | Exception] = {}
    going: dict[int, Growing] = {}
    gold: dict[int, float | None] = {}
    for i, (session, decoding) in enumerate(zip(sessions, decodings, strict=True)):
        session.decoded_with = len(sessions)
        try:
            gold[i] = gold_score(session, session.fork, session.clock, decoding)
            going[i] = Growing(decoding, session.network.eos_ids)
        except Exception as error:
            replies[i] = error
    while going:
        tokens = {i: each.next_token(sessions[i].next_logits()) for i, each in going.items()}
        wanted = {i: token for i, token in tokens.items() if token is not None}
        faults = _step([sessions[i] for i in wanted], list(wanted.values()))
        for i in tokens.keys() - wanted.keys():
            replies[i] = going.pop(i).reply._replace(gold_logprob=gold[i])
        for i, fault in zip(wanted, faults, strict=True):
            if fault is not None:
                replies[i] = fault
                del going[i]
    return [replies[i] for i in range(len(sessions))]


def _alone(session: HuggingFaceSession, decoding: Decoding) -> Reply | Exception:
    try:
        return session.generate(decoding)
    except Exception as error:
        return error


def _step(sessions: Sequence[HuggingFaceSession], tokens: Sequence[int]) -> list[Exception | None]:
    """Each session consumes its token; what went wrong with each."""
    faults = [_refusal(*each) for each in zip(sessions, tokens, strict=True)]
    allowed = [i for i, fault in enumerate(faults) if fault is None]
    try:
        if len(allowed) == 1:
            sessions[allowed[0]].step(tokens[allowed[0]])
        elif allowed:
            step_together([sessions[i] for i in allowed], [tokens[i] for i in allowed])
    except Exception as error:
        for i in allowed:
            faults[i] = error
    else:
        for i in allowed:
            try:
                with sessions[i].breaking():
                    sessions[i].refuse_nan(1)
            except ModelError as error:
                faults[i] = error
    return faults


def _refusal(session: HuggingFaceSession, token: int) -> Exception | None:
    """Why a session cannot consume the token, such as no position that is left."""
    try:
        session.checked([token])
    except ValueError as error:
        return error
    return None


@torch.no_grad()
def step_together(sessions: Sequence[HuggingFaceSession], tokens: Sequence[int]) -> None:
    """Each session consumes its token.

    Raises: ValueError, or what the network raises; the sessions cannot go on then.
    """
    network = sessions[0].network
    with ExitStack() as stack:
        for session in sessions:
            stack.enter_context(session.breaking())
        ids = torch.cat([s.checked([t]) for s, t in zip(sessions, tokens, strict=True)])
        caches = [session.cache.layers for session in sessions]
        layers = [layer_of_all(found) for found in zip(*caches, strict=True)]
        combined = copy.copy(sessions[0].cache)
        combined.layers = layers
        positions = torch.tensor([session.position for session in sessions], device=ids.device)
        inputs = network.inputs(ids[:, None], positions[:, None], combined, keep=1)
        with replaced(network.module, network.attention_tables, _own_keys(layers)):
            logits = network.module(**inputs).logits
        for session, row in zip(sessions, logits[:, -1], strict=True):
            session.stepped(row.clone())


def _own_keys(layers: Sequence[Any]) -> Any:
    """Attention of each query over the keys of its own session. One query sees all that is held:
    it needs no mask."""

    def replacement(original: Attend | None) -> Attend:
        def attend(
            layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *args: Any, **kw: Any
        ) -> Any:
            function, of_all = function_of(layer, original), layers[layer.layer_idx]
            held, of_all.held = of_all.held, []  # quantized layers give copies in full precision
            parts = [
                function(layer, own, keys, values, None, *args, **kw)[0]
                for own, (keys, values) in zip(query.split(1), held, strict=True)
            ]
            return torch.cat(parts), None

        return attend

    return replacement


def can_go_together(network: Network) -> bool:
    """Whether the network's sessions can be decoded together, tried on a short text.

    Not where a query may not see all that its layer holds (chunked attention, indexers), where a
    layer has no keys of its own, or where states are kept beside the cache's keys.
    """
    config = network.module.config.get_text_config(decoder=True)
    chunked = any("chunk" in kind for kind in getattr(config, "layer_types", None) or ())
    if chunked or network.stepwise or config._attn_implementation not in ATTENTION:
        return False
    if "position_ids" not in network.arguments or not network.attention_tables:
        return False
    count = 40 if network.max_position is None else min(40, network.max_position - 1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(network.vocab_size, (count + 1,), generator=generator).numpy()
    sessions = []
    for length in (count // 2, count):
        session = HuggingFaceSession(network)
        session.read(ids[:length])
        sessions.append(session)
    if not all(layers_go_together(session.cache) for session in sessions):
        return False
    alone = torch.stack([session.fork().score(ids[-1:])[0] for session in sessions])
    try:
        step_together(sessions, [int(ids[-1])] * 2)
    except Exception:  # whatever a model's own code raises
        return False
    together = torch.stack([session.next_logits() for session in sessions])
    allowed = TOLERANCE.get(network.module.dtype, TOLERANCE[torch.bfloat16])
    return relative_difference(together, alone) <= allowed


def layers_go_together(held: Any) -> bool:
    """Whether each layer holds keys and values only, on the device that computes."""
    return not getattr(held, "offloading", False) and all(
        isinstance(layer, DynamicLayer)
        and not isinstance(layer, GrowingIndexMixin)
        and not hasattr(layer, "conv_states")
        for layer in held.layers
    )
