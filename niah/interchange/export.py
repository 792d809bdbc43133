"""Writes a model of this repository, with its tokenizer, in a layout that other engines load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from haystacks.tokenizer_files import bpe_parts, write_tokenizer
from models.registry import configuration, load_model
from niah.errors import NiahError
from niah.interchange.golden import GOLDEN_FILE, check_longest, make_golden, write_golden
from niah.runs.store import ROWS

if TYPE_CHECKING:
    from models.deepseek_v4.loading import LoadedModel
    from models.deepseek_v4.model import DeepseekV4

LAYOUTS = ("transformers", "official", "gguf")
GGUF_FILE = "model.gguf"


class ExportError(NiahError):
    """A checkpoint that cannot be written as asked; the message says why."""


def export_model(
    name: str,
    layout: str,
    out: Path,
    precision: str | None = None,
    sharpen: float | None = None,
    golden: int | None = None,
) -> Path:
    """Write the model called `name` into the folder `out`; returns what an engine is to load.

    Args:
        name: a DeepSeek-V4 of this repository, or path:FOLDER.
        layout: one of LAYOUTS.
        precision: of matrices; None: the layout's usual one.
        sharpen: a constant in place of the temperature that grows with length.
        golden: golden vectors are written, too, with prompts of at most so many tokens.

    Raises:
        ExportError, ModelError, TokenizerError: what is asked cannot be written.
    """
    if layout not in LAYOUTS:
        raise ExportError(f"--format: got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if name.startswith("path:") and out.resolve() == Path(name.removeprefix("path:")).resolve():
        raise ExportError(f"--out: got {out}, which is the checkpoint itself; name another folder")
    if (out / ROWS).exists():
        raise ExportError(f"--out: got {out}, which holds a run; name another folder")
    if golden is not None:
        check_longest(golden)
    model = load_deepseek(name)
    network = stock(model.network, sharpen)
    tokenizer = model.card.tokenizer_name

    from models.deepseek_v4.checkpoint_files import write_card
    from models.deepseek_v4.layouts import gguf_files, writing

    chosen = precision or writing.PRECISIONS[layout][0]
    writing.check_precision(layout, chosen)
    if layout == "gguf":
        parts = gguf_files.BpeParts(*bpe_parts(tokenizer))
        written = out / GGUF_FILE
        gguf_files.write_gguf(network, written, parts)
    else:
        write = writing.write_transformers if layout == "transformers" else writing.write_official
        written = out
        write(network, out, chosen, model.eos_ids)
        write_tokenizer(tokenizer, out)
        write_card(out, model.card)
    if golden is not None:
        # Of the weights as they were written: rounded, where they are.
        again = of_weights(model, network) if layout == "gguf" else load_deepseek(f"path:{out}")
        write_golden(make_golden(again, golden), out / GOLDEN_FILE)
    return written


def load_deepseek(name: str) -> LoadedModel:
    """Raises: ExportError, ModelError for a model that is no DeepSeek-V4 of this repository."""
    configuration(name)  # refuses models of transformers and behind servers before they are loaded
    model = load_model(name)

    from models.deepseek_v4.loading import LoadedModel

    if not isinstance(model, LoadedModel):
        raise ExportError(
            f"model: got {name!r}, expected a DeepSeek-V4 of this repository or path:FOLDER"
        )
    return model


def of_weights(model: LoadedModel, network: DeepseekV4) -> LoadedModel:
    """The model with other weights."""
    from models.deepseek_v4.loading import LoadedModel

    return LoadedModel(model.name, network, model.card, network.config, eos_ids=model.eos_ids)


def stock(network: DeepseekV4, sharpen: float | None) -> DeepseekV4:
    """The network, or one with a constant temperature in place of `log_length_base`.

    Raises:
        ExportError: there is nothing that a constant could take the place of, or it is not above 0.
    """
    if sharpen is None:
        return network
    if not 0 < sharpen < float("inf"):
        raise ExportError(f"--sharpen: got {sharpen:g}, expected a number above 0, such as 2.0")
    if network.config.log_length_base is None:
        raise ExportError(
            f"--sharpen: got {sharpen:g}, but the checkpoint has no log_length_base to replace; "
            "leave it out"
        )

    from models.deepseek_v4.loading import build
    from models.deepseek_v4.sharpen import sharpen as fold

    plain = build(replace(network.config, log_length_base=None))
    plain.load_state_dict(network.state_dict())
    fold(plain, sharpen)
    return plain.eval()
