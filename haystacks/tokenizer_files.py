"""Writes a tokenizer as the files that `AutoTokenizer` reads, and takes it apart for GGUF."""

import json
from pathlib import Path
from typing import NamedTuple

from haystacks.tokenizer import (
    BUNDLED_FILE,
    BUNDLED_NAME,
    TokenizerError,
    transformers_tokenizer,
)

CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "add_prefix_space": False,
    "model_max_length": 1 << 20,
}


def write_tokenizer(name: str, folder: Path) -> list[Path]:
    """Write the tokenizer called `name` (as `load_tokenizer` takes it); the files written.

    Raises:
        TokenizerError: a tokenizer of transformers that cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name != BUNDLED_NAME:
        saved = transformers_tokenizer(name.removeprefix("hf:")).save_pretrained(folder)
        return [Path(path) for path in saved if Path(path).exists()]
    files = {
        "tokenizer.json": BUNDLED_FILE.read_text(encoding="utf-8"),
        "tokenizer_config.json": json.dumps(CONFIG, indent=2) + "\n",
    }
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in files]


class BpeParts(NamedTuple):
    """What a GGUF file says of a byte-level BPE.

    `tokens` by id; `merges` as "left right"; `splitting`: llama.cpp's name of the rule by which a
    text is split before merging; `unused_id`: a token that no text gives.
    """

    tokens: list[str]
    merges: list[str]
    splitting: str
    unused_id: int


def bpe_parts(name: str) -> BpeParts:
    """The parts of the bundled tokenizer.

    Raises:
        TokenizerError: another tokenizer, whose splitting rule has no known name in llama.cpp.
    """
    if name != BUNDLED_NAME:
        raise TokenizerError(
            f"tokenizer: got {name!r}, expected {BUNDLED_NAME!r}: of others it is not known by "
            "which rule llama.cpp would split a text"
        )
    model = json.loads(BUNDLED_FILE.read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=lambda token: int(model["vocab"][token]))
    merges = [" ".join(pair) for pair in model["merges"]]
    # Digits one by one, then GPT-2's words. Byte 255 occurs in no UTF-8.
    return BpeParts(tokens, merges, "smollm", int(model["vocab"]["ÿ"]))
