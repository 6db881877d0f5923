"""A GGUF file → a folder of safetensors, in a process of its own: `python -m potstill.core.convert
FILE FOLDER MODEL SHA256`, where MODEL is what messages call it.

The weights are dequantised by transformers: to bfloat16, or to the type that a file without
quantised tensors has. The tokenizer, the chat template and the end tokens are the file's own.
"""

import errno
import shutil
import struct
import sys
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError

# Vocabularies (tokenizer.ggml.pre) whose digits are tokens of their own, and else like GPT-2's;
# transformers would leave numbers whole. As in llama.cpp's llama-vocab.cpp.
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
LIKE_GPT2 = ("gpt-2", "phi-2", "olmo", "mpt", "jina-es", "jina-de", "gigachat", "jais")
ALIKE = 0.5  # of two matrices: the share by which those of tied weights differ at most
README = """---
license: {licence}
---

{name}, from a GGUF file of the SHA-256 {sha256}: its weights are {how}. Made by Potstill.
"""


def convert(file: Path, out: Path, model: str, sha256: str) -> None:
    """Writes the folder `out`. Raises UserError when the file is cut short or damaged, has no chat
    template, or is of a kind that transformers cannot convert, and when the disk is full."""
    from transformers.integrations.gguf import GgufHeader, read_gguf_metadata

    where = f"params.yaml: model {model}"
    _know_q5()
    try:
        metadata, _ = read_gguf_metadata(str(file))
        header = GgufHeader.from_file(str(file))
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError):
        raise UserError(f"{where} is cut short or damaged: its head is not whole") from None
    except ValueError as error:
        said = str(error).replace(f"{file} ", "it ")
        raise UserError(f"{where} cannot be read: {said}") from None
    need = header.data_start + max(info.offset + info.nbytes for info in header.tensors)
    if (size := file.stat().st_size) < need:
        raise UserError(
            f"{where} is cut short: it has {size:,} bytes, and its tensors need {need:,}: fetch "
            "it again"
        )
    if "tokenizer.chat_template" not in metadata:
        raise UserError(f"{where} has no chat template, expected an instruct model's GGUF")
    import torch

    dtype = header.dtype or torch.bfloat16
    room = sum(prod(info.shape) for info in header.tensors) * dtype.itemsize
    if (free := shutil.disk_usage(out.parent).free) < room:
        found = f"{free / 1e9:.1f} GB are free, and the converted model needs {room / 1e9:.1f}"
        raise UserError(f"{out.parents[1]}: {found}: free some space")
    tokenizer = _tokenizer(file, metadata, where)
    llm = _model(file, metadata, dtype, where)
    if "output.weight" in header.ggml_types:
        _tie(llm, header)
    end = metadata.get("tokenizer.ggml.eot_token_id", tokenizer.eos_token_id)
    if end != tokenizer.eos_token_id:
        llm.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    llm.save_pretrained(out)
    tokenizer.save_pretrained(out)
    how = "as they are in the file" if header.dtype else "dequantised to bfloat16"
    name, licence = metadata.get("general.name", model), metadata.get("general.license", "other")
    text = README.format(licence=licence, name=name, sha256=sha256, how=how)
    (out / "README.md").write_text(text, encoding="utf-8")


def _know_q5() -> None:
    """Tells transformers of Q5_0 and Q5_1, which it cannot read: a file that is called Q4_K_M has
    them where a matrix is no multiple of 256 wide, as in Qwen2.5-0.5B."""
    import gguf
    import torch
    from transformers.integrations.gguf import dequant

    def reader(kind: Any) -> Any:
        def values(blocks: Any, dtype: Any) -> Any:
            return torch.from_numpy(gguf.dequantize(blocks.numpy(), kind)).to(dtype)

        return values

    for kind in (gguf.GGMLQuantizationType.Q5_0, gguf.GGMLQuantizationType.Q5_1):
        dequant.GGML_BLOCK[kind.value] = gguf.GGML_QUANT_SIZES[kind]
        dequant.GGML_NAME[kind.value] = kind.name
        dequant._DEQUANT[kind.value] = reader(kind)


def _tokenizer(file: Path, metadata: dict[str, Any], where: str) -> Any:
    """The file's own tokenizer. Raises UserError for one that transformers does not know."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    architecture, parts, marks = get_gguf_tokenizer(str(file))
    pre = parts.get("pre_tokenizer_type")
    known = {*GGUF_PRE_TOKENIZER_SPLITS, *DIGITS, *LIKE_GPT2}
    if parts.get("tokenizer_type") == "gpt2" and pre not in known:
        raise UserError(f"{where} splits its text by {pre!r}, which transformers does not know")
    try:
        backend, more = convert_gguf_tokenizer(architecture, parts)
    except ValueError as error:
        raise UserError(f"{where} cannot be converted: {error}") from None
    if pre in DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    length = metadata.get(f"{architecture}.context_length")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, **marks, **more
    )


def _model(file: Path, metadata: dict[str, Any], dtype: Any, where: str) -> Any:
    """The model, which can be saved: transformers refuses to save one that it loaded from a GGUF,
    so its weights are handed to a model made from its configuration."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # transformers reads the head twice, and makes the same table of names once for each module:
    # most of the time of a conversion
    gguf.GGUFReader = cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = cache(gguf.get_tensor_name_map)
    whole = GgufConfig(dequantize=True)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=dtype, quantization_config=whole
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        kind, said = metadata["general.architecture"], str(error).strip().partition("\n")[0]
        raise UserError(
            f"{where} is of the architecture {kind}, which transformers cannot convert ({said})"
        ) from None
    config = loaded.config
    vars(config).pop("quantization_config", None)
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config, dtype=dtype)
    llm.load_state_dict(loaded.state_dict(), assign=True)
    llm.tie_weights()
    llm.generation_config = loaded.generation_config
    return llm


def _tie(llm: Any, header: Any) -> None:
    """Ties the weights of a model whose file holds one matrix twice, quantised in two ways: as its
    embedding and as its head, which has the more bits of the two."""
    head, embedding = llm.get_output_embeddings(), llm.get_input_embeddings()
    ours, others = head.weight.float(), embedding.weight.float()
    if ours.shape != others.shape or (ours - others).norm() > ALIKE * ours.norm():
        return
    bytes_of = {info.name: info.nbytes for info in header.tensors}
    if bytes_of["output.weight"] >= bytes_of["token_embd.weight"]:
        embedding.weight = head.weight
    llm.config.tie_word_embeddings = True
    head.weight = embedding.weight
    llm.tie_weights()


def main() -> None:
    file, out, model, sha256 = sys.argv[1:]
    try:
        convert(Path(file), Path(out), model, sha256)
    except UserError as error:
        sys.exit(f"error: {error}")
    except Exception as error:  # safetensors has an exception of its own for a full disk
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left" not in str(error):
            raise
        sys.exit(f"error: {out.rpartition('/')[0]}: no space left on device: free some gigabytes")


if __name__ == "__main__":
    main()
