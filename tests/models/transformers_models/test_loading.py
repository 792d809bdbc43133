"""Options, weights that are held once, fingerprints, and what is refused in one line."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from huggingface_hub import constants
from transformers import PreTrainedModel

from models.errors import ModelError
from models.protocols import Model, TokenizerRef
from models.registry import load_model
from models.transformers_models import hub, load, loading
from tests.models.architectures import REFUSED, STEPWISE, build, generated
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import greedy_ids

IDS = random_ids(60)
ON_CPU = {"device": "cpu"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_loading_a_folder(folder: Path) -> None:
    model: Model = load_model(f"hf:{folder}", ON_CPU)
    assert (model.vocab_size, model.max_position) == (97, 128)
    assert (model.forks, model.device) == ("share", "cpu")
    assert model.tokenizer == TokenizerRef(f"hf:{folder}")
    session = model.session()
    session.read(IDS.numpy())
    saved = tiny_llama()
    assert greedy_ids(session, 4) == generated(saved, IDS, 4)


def test_weights_are_held_and_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    digest = loading.file_digest

    def noticed(path: Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr(loading, "file_digest", noticed)
    first = loading.load(f"hf:{folder}", ON_CPU)
    second = loading.load(f"hf:{folder}/../model", {**ON_CPU, "chunk_tokens": 7})
    assert first._weights is second._weights
    assert len(read) == 1
    assert first.fingerprint != second.fingerprint
    other = loading.load(f"hf:{folder}", {**ON_CPU, "dtype": "bfloat16"})
    assert other._weights is not first._weights
    assert other.describe()["weights_fingerprint"] == first.describe()["weights_fingerprint"]
    held = len(loading.HELD)
    del first, second, other
    gc.collect()
    assert len(loading.HELD) == held - 2


def test_a_file_is_hashed_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = loading.file_digest(path)
    assert loading.file_digest(path) == first
    path.write_bytes(b"other")
    assert loading.file_digest(path) != first


def test_the_fingerprint_covers_what_decides_answers(folder: Path, tmp_path: Path) -> None:
    def fingerprint(place: Path = folder, **options: object) -> str:
        return load_model(f"hf:{place}", {**ON_CPU, **options}).fingerprint

    same = fingerprint()
    assert fingerprint(dtype="float32", chunk_tokens=1024) == fingerprint(chunk_tokens=1024)
    assert fingerprint(dtype="float32") == same
    copied = tmp_path / "copied"
    tiny_llama().save_pretrained(copied)
    assert fingerprint(copied) == same
    others = [
        fingerprint(dtype="float16"),
        fingerprint(attn_implementation="eager"),
        fingerprint(max_position_embeddings=64),
        fingerprint(chunk_tokens=512),
    ]
    changed = tmp_path / "changed"
    module = tiny_llama()
    with torch.no_grad():
        module.lm_head.weight[0, 0] += 1
    module.save_pretrained(changed)
    others.append(fingerprint(changed))
    scaled = tmp_path / "scaled"
    tiny_llama(rms_norm_eps=1e-3).save_pretrained(scaled)
    others.append(fingerprint(scaled))
    assert len({same, *others}) == 1 + len(others)


def test_shards_are_hashed_all(tmp_path: Path) -> None:
    module = tiny_llama()
    module.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    before = load_model(f"hf:{tmp_path}", ON_CPU).describe()["weights_fingerprint"]
    with torch.no_grad():
        module.lm_head.weight[0, 0] += 1
    module.save_pretrained(tmp_path, max_shard_size="20KB")
    assert load_model(f"hf:{tmp_path}", ON_CPU).describe()["weights_fingerprint"] != before


def test_types_and_devices(folder: Path) -> None:
    automatic = loading.load(f"hf:{folder}", {"device": "cpu", "dtype": "auto"})
    assert automatic.describe()["dtype"] == "float32"
    half = loading.load(f"hf:{folder}", {"device": "cpu", "dtype": "bfloat16"})
    assert half.describe()["dtype"] == "bfloat16"
    with pytest.raises(ModelError, match=r"^options.device: got 'tpu'"):
        load(f"hf:{folder}", {"device": "tpu"})
    with pytest.raises(ModelError, match=r"^options: device and device_map exclude each other"):
        load(f"hf:{folder}", {"device": "cpu", "device_map": "auto"})


def test_a_map_of_devices(folder: Path) -> None:
    pytest.importorskip("accelerate", reason="device maps need accelerate")
    model = load_model(f"hf:{folder}", {"device_map": {"": "cpu"}})
    session = model.session()
    session.read(IDS.numpy())
    alone = load_model(f"hf:{folder}", ON_CPU).session()
    alone.read(IDS.numpy())
    assert greedy_ids(session, 4) == greedy_ids(alone, 4)


def write_gguf(path: Path, module: PreTrainedModel) -> None:
    """A Llama as llama.cpp names it, in float32."""
    gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")
    config = module.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in module.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if part in name:  # llama.cpp pairs neighbouring channels in its rotation
                tensor = tensor.view(count, 2, -1, tensor.shape[-1]).transpose(1, 2)
                tensor = tensor.reshape(-1, tensor.shape[-1])
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_holds_the_same_model(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    write_gguf(tmp_path / "model.gguf", tiny_llama())
    expected = load_model(f"hf:{folder}", ON_CPU).session()
    expected.read(IDS.numpy())
    for name, options in [
        (f"hf:{tmp_path}/model.gguf", ON_CPU),
        (f"hf:{tmp_path}", {**ON_CPU, "gguf_file": "model.gguf"}),
    ]:
        model = load_model(name, options)
        assert model.tokenizer == TokenizerRef(f"hf:{tmp_path}/model.gguf")
        session = model.session()
        session.read(IDS.numpy())
        assert relative_difference(session.next_logits(), expected.next_logits()) < 1e-5


def test_a_gguf_file_of_an_unknown_architecture(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "unheard-of")
    writer.add_tensor("x", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"cannot be loaded: .*unheard-of") as caught:
        load(f"hf:{tmp_path}/odd.gguf", ON_CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "tokenizer"),
    [
        ("hf:owner/name", {"revision": "v2"}, "hf:owner/name@v2"),
        ("hf:owner/name/file.gguf", {}, "hf:owner/name/file.gguf"),
        ("hf:./folder", {"gguf_file": "file.gguf"}, "hf:./folder/file.gguf"),
        ("hf:./folder/", {"gguf_file": "file.gguf"}, "hf:./folder/file.gguf"),
    ],
)
def test_the_tokenizer_is_of_the_same_place_and_revision(
    name: str, options: dict[str, object], tokenizer: str
) -> None:
    """As it was written: a run says no path of the machine that made it."""
    assert loading._tokenizer(name, options) == TokenizerRef(tokenizer)
    source = loading._source("hf:owner/name/file.gguf", ON_CPU)
    assert (source.location, source.gguf_file) == ("owner/name", "file.gguf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index_topk": 4}, r"^options: got 'index_topk', expected one of device, device_map"),
        ({"dtype": "fp4"}, r"^options.dtype: got 'fp4', expected one of auto, float32"),
        ({"chunk_tokens": 0}, r"^options.chunk_tokens: got 0, expected a whole number from 1$"),
        ({"revision": 3}, r"^options.revision: got 3, expected a text$"),
        ({"max_position_embeddings": 129}, r"got 129, expected at most 128: the model's own"),
        ({"attn_implementation": "slow"}, r"^model: 'hf:.*' cannot be loaded: "),
    ],
)
def test_options_that_do_not_fit(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(f"hf:{folder}", {**ON_CPU, **options})
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    module = tiny_llama()
    module.config.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds pickled weights \(pytorch_model.bin\), which can"):
        load(f"hf:{tmp_path}", ON_CPU)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^model: 'hf:.*' cannot be loaded: ") as caught:
        load(f"hf:{tmp_path}", ON_CPU)
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"^model: 'hf:.*' cannot be loaded: ") as caught:
        load(f"hf:{tmp_path}", ON_CPU)
    assert "\n" not in str(caught.value)


def test_a_model_that_forgets_is_refused(tmp_path: Path) -> None:
    refused = next(a for a in REFUSED if a.model_type == "rwkv")
    build(refused).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"\(RwkvForCausalLM\) gives other answers when a text"):
        load(f"hf:{tmp_path}", ON_CPU)


def test_a_model_that_goes_on_token_by_token_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")
    stepwise = next(a for a in STEPWISE if a.model_type == "jamba")
    build(stepwise).save_pretrained(tmp_path)
    model = load(f"hf:{tmp_path}", ON_CPU)
    assert model.describe()["reads"] == "token by token"
    assert "read token by token after the first call: slow" in caplog.text


@pytest.mark.parametrize(
    ("package", "options"),
    [("gguf", {"gguf_file": "x.gguf"}), ("accelerate", {"device_map": "auto"})],
)
def test_a_package_that_is_missing(
    folder: Path, package: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = loading.importlib.util.find_spec
    monkeypatch.setattr(
        loading.importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(ModelError, match=rf"needs the package {package}: pip install {package}$"):
        load(f"hf:{folder}", options)


def test_without_transformers_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ModelError, match=r"needs transformers: in a checkout, pip install '\.\[hf\]'$"
    ):
        load("hf:x", {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf:{folder}/tiny.gguf", r"there is no file tiny.gguf in \S+: make or download it, or"),
        ("hf:{folder}/absent/tiny.gguf", r"there is no folder \S+/absent here: make or download"),
        ("hf:./absent/model/tiny.gguf", r"there is no folder ./absent/model here: make or"),
        ("hf:./absent", r"there is no folder ./absent here: make or download it"),
        ("hf:some/model/below", r"there is no folder some/model/below here: make or download"),
    ],
)
def test_what_cannot_be_on_the_hub_is_refused_without_it(
    folder: Path, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("gguf"):
        pytest.importorskip("gguf", reason="GGUF files need the package gguf")
        pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    monkeypatch.setattr(constants, "ENDPOINT", "http://asked.invalid")
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda _: pytest.fail("the hub was asked"))
    with pytest.raises(ModelError, match=r"cannot be loaded: " + reason):
        load(name.format(folder=folder), ON_CPU)


def test_a_hub_that_is_not_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens here
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ModelError) as caught:
            load("hf:owner/no-such-model", ON_CPU)
    message = str(caught.value)
    assert "there is no folder owner/no-such-model here, and the hub was not reached (" in message
    assert "\n" not in message
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
