"""Presses at work in a session of a model of transformers.

Only full layers are pressed: windows and states of linear attention stay as they are. A layer that
was cut down says how many tokens it has seen, so that those that follow keep their true positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from models.devices import storage_bytes
from models.errors import ModelError
from models.presses.contract import Inputs, Past, Press, kept
from models.presses.observed import Call, Needs, Observed
from models.presses.options import Pressing
from models.presses.quest import Pages, Quest
from models.presses.rotary import NO_ROTATION, Rotary
from models.transformers_models import attention_calls
from models.transformers_models.attention_calls import AttentionCall
from models.transformers_models.attention_inputs import Given, attention_layers, collecting, joined
from models.transformers_models.growing import (
    GROWING,
    GrowingIndexMixin,
    GrowingMixin,
    Rows,
    mixed,
    of_class,
)

Layout = Mapping[int, Rotary]
"""The rotation of each full layer."""


class PressedMixin:
    """A full layer that lost tokens: `seen` counts them, too."""

    seen = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen += key_states.shape[-2]
        return super().update(key_states, value_states, *args, **kwargs)  # type: ignore[misc]

    @property
    def held_tokens(self) -> int:
        count: int = vars(self)["keys"].length
        return count

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """What is held stands right before the queries."""
        held = self.held_tokens
        tokens = query_length if isinstance(query_length, int) else len(query_length)
        return held + tokens, self.seen - held


PRESSED = {growing: mixed(PressedMixin, growing) for growing in GROWING.values()}
"""Layers that grow, and those that stand in for them once tokens are lost."""


class PressedFewBitsMixin(PressedMixin):
    """The same of a quantized layer."""

    cumulative_length: int

    @property
    def held_tokens(self) -> int:
        return self.cumulative_length


def full_layers(cache: Any) -> dict[int, Any]:
    """The layers that hold every token's keys and values, by their index in the cache."""
    return {
        index: layer
        for index, layer in enumerate(cache.layers)
        if isinstance(layer, GrowingMixin) and not isinstance(layer, GrowingIndexMixin)
    }


def cut_down(layer: Any, rows: Tensor) -> Any:
    """The layer with `rows` [G, k] of each KV head only; the layer itself stays as it is."""
    pressed = of_class(layer, PRESSED[type(layer)])
    pressed.seen = layer.get_seq_length()
    for name in ("keys", "values"):
        states = getattr(layer, name)
        wanted = rows[None, :, :, None].expand(-1, -1, -1, states.shape[-1])
        chosen = states.gather(2, wanted.to(states.device))
        table = Rows.like(chosen)
        table.append(chosen)
        vars(pressed)[name] = table
    return pressed


def quantized(pressed: Any, empty: Any) -> Any:
    """What a layer that was cut down holds, in an empty quantized layer."""
    kind: type = type(empty)
    found = of_class(empty, mixed(PressedFewBitsMixin, kind))
    found.update(pressed.keys, pressed.values)
    found.seen = pressed.seen
    return found


class Presser:
    """What a session does for presses: it collects queries or the inputs of attention layers, cuts
    its cache down once, or lets each query read pages. `pressing` None: it collects for the presses
    of other arms. `few_bits` gives an empty quantized layer, where what is kept is to be quantized.
    """

    def __init__(
        self,
        pressing: Pressing | None,
        needs: Needs,
        layout: Layout,
        few_bits: Callable[[], Any] | None = None,
    ) -> None:
        self.pressing = pressing
        self.few_bits = few_bits
        self.done = False
        self.observed = {i: Observed(needs, rotary) for i, rotary in layout.items()}
        self.extras: dict[int, tuple[Tensor | None, float | None]] = {}
        self.pages: dict[int, Pages] = {}
        self.inputs: dict[int, tuple[Given, ...]] = {}
        self._layers: Mapping[int, Any] = {}
        self._layout, self._needs = layout, needs

    def fork(self) -> Presser:
        child = Presser(self.pressing, self._needs, self._layout, self.few_bits)
        child.done = self.done
        child.observed = {i: each.fork() for i, each in self.observed.items()}
        child.extras, child.pages = dict(self.extras), dict(self.pages)
        child.inputs, child._layers = dict(self.inputs), self._layers
        return child

    @property
    def waits_for_question(self) -> bool:
        return self.pressing is not None and self.pressing.sees_question

    @property
    def is_idle(self) -> bool:
        """Whether it does nothing any more while tokens are read."""
        return self.done and not self.pages

    def held_bytes(self) -> dict[str, int]:
        """Bytes of storages by kind; a kind of which nothing is held is left out."""
        queries = [t for each in self.observed.values() for t in each.tensors().values()]
        pages = [t for each in self.pages.values() for t in (each.lowest, each.highest)]
        inputs = [t for calls in self.inputs.values() for call in calls for t in call]
        kinds = {"queries": queries, "pages": pages, "inputs": inputs}
        return {kind: storage_bytes(tensors) for kind, tensors in kinds.items() if tensors}

    @contextmanager
    def reading(self, network: Any, position: int) -> Iterator[None]:
        """The block reads tokens from `position` on."""
        observing = not self.done and self._needs.queries
        with ExitStack() as stack:
            if observing or self.pages:
                stack.enter_context(self._watching(network, position, observing))
            if not self.done and self._needs.inputs:
                layers = attention_layers(network.module)
                self._layers = {i: layer for i, layer in layers.items() if i in self._layout}
                stack.enter_context(collecting(self._layers, self._take))
            yield

    def _watching(
        self, network: Any, position: int, observing: bool
    ) -> AbstractContextManager[None]:
        def watch(layer: int, call: AttentionCall) -> AttentionCall:
            if observing and layer in self.observed and not call.borrowed:
                self._observe(layer, call, position)
            return self._paged(layer, call) if layer in self.pages else call

        return attention_calls.watched(network.module, network.attention_tables, watch)

    def _take(self, layer: int, given: Given) -> None:
        self.inputs[layer] = (*self.inputs.get(layer, ()), given)

    def press(self, cache: Any) -> None:
        """The context, or the question, has ended: cut the cache down, once."""
        if self.pressing is not None and not self.done:
            for index, layer in full_layers(cache).items():
                if layer.get_seq_length():
                    self._press_layer(self.pressing.press, cache, index, layer)
        self.forget()

    def _press_layer(self, press: Press, cache: Any, index: int, layer: Any) -> None:
        sinks, softcap = self.extras.get(index, (None, None))
        inputs = self._inputs_of(index)
        states = layer.keys[0], layer.values[0]
        past = Past(index, *states, self.observed[index], sinks, softcap, inputs)
        if not isinstance(press, Quest):
            pressed = cut_down(layer, kept(press, past))
            if self.few_bits is not None:
                pressed = quantized(pressed, self.few_bits())
            cache.layers[index] = pressed
            return
        pages = press.pages(past)
        if pages is not None:
            self.pages[index] = pages

    def _inputs_of(self, index: int) -> Inputs | None:
        calls = self.inputs.get(index)
        return joined(self._layers[index], calls) if calls else None

    def forget(self) -> None:
        """No further press: nothing is collected any more."""
        self.done, self.observed, self.extras, self.inputs = True, {}, {}, {}

    def _observe(self, layer: int, call: AttentionCall, position: int) -> None:
        self.extras[layer] = (call.sinks, call.softcap)
        queries = call.query[0] * call.scaling
        self.observed[layer].add(Call(queries, call.key[0], position, call.sinks, call.softcap))

    def _paged(self, layer: int, call: AttentionCall) -> AttentionCall:
        """The call with a mask that hides the pages that a query does not read."""
        pages = self.pages[layer]
        chosen = pages.chosen(call.query[0])  # [H, S, n]
        tokens, held = call.query.shape[2], call.key.shape[2]
        row = torch.arange(held - tokens, held, device=chosen.device)[:, None]
        allowed = (torch.arange(held, device=chosen.device) <= row).repeat(len(chosen), 1, 1)
        allowed[..., : pages.tokens] &= chosen
        lowest = torch.finfo(call.query.dtype).min
        hidden = torch.zeros(allowed.shape, dtype=call.query.dtype, device=chosen.device)
        return call._replace(mask=hidden.masked_fill_(~allowed, lowest)[None])


MASKED = ("sdpa", "eager")
"""Attention functions that take a mask of each head's own."""

PROBE = 40  # tokens that are read before some are evicted, then 8 more
EVICTED = slice(9, 21)
LENGTHS_TRIED = (160, 1200)  # of a text that a class of kvpress scores: its window may be long
SHIFT = 101  # positions by which queries are moved, to see how they turn
TOLERANCE = {torch.float32: 1e-3}
LOOSE = 0.05


def layout_of(network: Any, begin: Callable[[], Any], pressing: Pressing) -> Layout:
    """The full layers that the press serves, tried on a short text.

    Args:
        network: of the session module.
        begin: makes an empty session with a full cache and no press.
        pressing: what the arm asks for.

    Raises:
        ModelError: the model has no full layer, keeps latents (MLA), does not show its queries,
            does not answer as if evicted tokens were hidden, or gives its attention layers what a
            class of kvpress cannot score.
    """
    kind = type(network.module).__name__
    if getattr(network.module.config.get_text_config(decoder=True), "kv_lora_rank", None):
        raise ModelError(f"options.press: {kind} keeps one latent for all heads (MLA), not keys")
    attention = network.module.config.get_text_config(decoder=True)._attn_implementation
    if isinstance(pressing.press, Quest) and attention not in MASKED:
        raise ModelError(
            f"options.attn_implementation: got {attention!r}, expected {' or '.join(MASKED)}: "
            "quest hides pages by a mask"
        )
    if not full_layers(begin().cache):
        raise ModelError(f"options.press: {kind} has no layer that keeps every token's keys")
    try:
        reason = _eviction_fault(network, begin)
        layout = _rotations(network, begin, pressing.needs) if reason is None else {}
        if reason is None and pressing.needs.inputs:
            reason = _inputs_fault(network, begin, Presser(pressing, pressing.needs, layout))
    except ModelError:
        raise
    except Exception as error:  # whatever a model's own code raises
        reason = (
            f"cannot go on after it ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        )
    if reason is not None:
        raise ModelError(f"options.press: {kind} cannot be pressed: it {reason}")
    return layout


def _ids(network: Any) -> tuple[Any, Any]:
    ids = _random_ids(network, PROBE + 8)
    return ids[:-8], ids[-8:]


def _random_ids(network: Any, length: int) -> Any:
    """So many, or as many as the model has positions for."""
    length = length if network.max_position is None else min(length, network.max_position)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(network.vocab_size, (length,), generator=generator).numpy()


def _inputs_fault(network: Any, begin: Callable[[], Any], presser: Presser) -> str | None:
    """Press what was read of a short text, and of a longer one where a class asks for more."""
    if not presser.observed.keys() <= attention_layers(network.module).keys():
        return "has its attention layers where kvpress does not look for them"
    for length in LENGTHS_TRIED:
        session = begin()
        session.observe(presser.fork())
        session.read(_random_ids(network, length))
        try:
            session.context_ends()
            session.question_ends()
        except ModelError as error:
            told = error
        else:
            return None
    raise ModelError(f"options.{told}")


def _eviction_fault(network: Any, begin: Callable[[], Any]) -> str | None:
    """Compare a cache without some tokens with one whose attention is kept from seeing them."""
    context, question = _ids(network)
    hidden, pressed = begin(), begin()
    for session in (hidden, pressed):
        session.read(context)
    layers = full_layers(pressed.cache)
    rows = torch.tensor([i for i in range(len(context)) if i not in range(*EVICTED.indices(999))])
    seen: set[int] = set()
    for index, layer in layers.items():
        if layer.get_seq_length():
            pressed.cache.layers[index] = cut_down(layer, rows.repeat(layer.keys.shape[1], 1))

    def hide(layer: int, call: AttentionCall) -> AttentionCall:
        if layer not in layers:
            return call
        seen.add(layer)
        held = call.key.shape[2]
        chosen = torch.cat((rows, torch.arange(len(context), held))).to(call.key.device)
        mask = None if call.mask is None else call.mask[..., chosen]
        return call._replace(key=call.key[:, :, chosen], value=call.value[:, :, chosen], mask=mask)

    with attention_calls.watched(network.module, network.attention_tables, hide):
        expected = hidden.score(question)
    used = {index for index, layer in layers.items() if layer.get_seq_length()}
    if not used <= seen:
        return "does not call its attention where queries could be seen"
    found = pressed.score(question)
    if not _difference(found, expected) <= TOLERANCE.get(network.module.dtype, LOOSE):
        return "answers otherwise than if evicted tokens were hidden from its attention"
    return None


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest, as a share of the largest value; NaN where either holds one."""
    found, expected = found.float(), expected.float()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _rotations(network: Any, begin: Callable[[], Any], needs: Needs) -> Layout:
    """The rotation of each full layer; it is looked for only where a press needs it.

    Queries turned back must be the same when the whole text is moved.
    """
    layers = full_layers(begin().cache)
    if not needs.statistics:
        return dict.fromkeys(layers, NO_ROTATION)
    if "position_ids" not in network.arguments:
        raise ModelError("options.press: expected_attention needs a model that takes position_ids")
    first, moved = (_queries_at(network, begin, shift) for shift in (0, SHIFT))
    found = {}
    for index in layers:
        if index in first:
            found[index] = _fitting(network, first[index], moved[index])
        else:  # never read
            found[index] = NO_ROTATION
    return found


def _queries_at(network: Any, begin: Callable[[], Any], shift: int) -> dict[int, Tensor]:
    """Queries [H, S, C] of each layer for a text that begins at position `shift`."""
    found: dict[int, Tensor] = {}

    def collect(layer: int, call: AttentionCall) -> AttentionCall:
        found[layer] = call.query[0].float()
        return call

    context, _ = _ids(network)
    session = begin()
    tokens = torch.as_tensor(context, device=network.input_device)
    inputs = session._inputs(tokens, 1)
    inputs["position_ids"] = inputs["position_ids"] + shift
    with (
        torch.no_grad(),
        attention_calls.watched(network.module, network.attention_tables, collect),
    ):
        network.module(**inputs)
    return found


def _fitting(network: Any, first: Tensor, moved: Tensor) -> Rotary:
    positions = torch.arange(first.shape[1], device=first.device)
    for rotary in _candidates(network.module, first.shape[-1]):
        plain = rotary.undo(first, positions)
        difference = _difference(rotary.undo(moved, positions + SHIFT), plain)
        if difference <= TOLERANCE.get(network.module.dtype, LOOSE):
            return rotary
    raise ModelError(
        f"options.press: expected_attention cannot tell how {type(network.module).__name__} "
        "turns its queries by their positions"
    )


def _candidates(module: Any, width: int) -> Iterator[Rotary]:
    yield NO_ROTATION
    for name, frequencies in module.named_buffers():
        if not name.endswith("inv_freq") or name.endswith("original_inv_freq"):
            continue
        turned = 2 * len(frequencies)
        if frequencies.ndim == 1 and turned <= width:
            for start in {0, width - turned}:
                for interleaved in (False, True):
                    yield Rotary(frequencies.float(), interleaved, start)
                    yield Rotary(-frequencies.float(), interleaved, start)
