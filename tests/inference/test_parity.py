"""Training against serving, with the real ms-swift, peft and transformers on the tiny base."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.core import jsonl
from potstill.inference import parity
from tests.conftest import ROOT

# How Qwen3's tokenizer splits text
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BASE = str(ROOT / "models/tiny-base")
CHATS = [
    [{"role": "system", "content": "提取姓名，输出JSON：name"}, {"role": "user", "content": text}]
    for text in ("张三 13800138000", "广东省深圳市南山区科技园 李四 15912345678", "王五")
]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """LoRA weights, seeded and large enough to change answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(r=4, target_modules="all-linear")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def merged(adapter: Path, out: Path, noise: float = 0.0) -> Path:
    """The base and the adapter as one model; with noise in its weights, another one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(BASE), str(adapter)
    ).merge_and_unload()
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(out)
    return out


@pytest.mark.parametrize(
    ("vocabulary", "sizes"),
    [
        (1, [100, 100, 100]),
        (8_000, [100, 100, 100]),
        (151_936, [42, 25, 20, 16, 14, 13]),
        (10**9, [1] * 300),
    ],
)
def test_a_large_vocabulary_makes_smaller_batches(vocabulary: int, sizes: list[int]) -> None:
    lengths = list(range(1, 301))
    found = list(parity.batches(list(range(300)), lengths, vocabulary))
    assert [row for rows in found for row in rows] == list(range(300))
    assert list(map(len, found))[: len(sizes)] == sizes
    for rows in found:
        logits = max(lengths[row] for row in rows) * len(rows) * vocabulary
        assert logits <= parity.LOGITS or len(rows) == 1


def qwen3(folder: Path) -> Path:
    """A model that may think, by Qwen3's own chat template (Qwen/Qwen3-0.6B, Apache-2.0), with its
    way to split text and the base's few tokens. With Qwen3's own tokens the test passes, too; they
    are 11 MB."""
    shutil.copytree(BASE, folder)
    shutil.copy(Path(__file__).parent / "qwen3.jinja", folder / "chat_template.jinja")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    steps = [
        {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    ]
    as_bytes = tokenizer["decoder"] | {"add_prefix_space": False, "use_regex": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*steps, as_bytes]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_an_adapter_on_its_base_answers_as_the_merged_model(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    p = SimpleNamespace(max_tokens=24, dtype="float32")
    found = parity.with_adapter(BASE, "main", adapter, CHATS, [24, 3, 24], p)
    grammar = r'start: "{" /[0-9]{1,3}/ "}"'
    kept = parity.with_adapter(BASE, "main", adapter, CHATS, [24, 3, 24], p, [grammar] * 3)
    assert all(re.fullmatch(r"\{[0-9]{1,3}\}", row["answer"]) for row in kept)
    monkeypatch.setattr(parity, "LOGITS", 1)  # as with a large vocabulary: one row at a time
    assert parity.with_adapter(BASE, "main", adapter, CHATS, [24, 3, 24], p) == found
    assert [row["prompt_tokens"] for row in found] != sorted(
        (row["prompt_tokens"] for row in found), reverse=True
    )
    for noise, same in ((0.0, True), (0.05, False)):
        folder = merged(adapter, tmp_path / f"merged{noise}", noise)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        answers = []
        for chat in CHATS:
            asked = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            out = model.generate(**asked, max_new_tokens=24, do_sample=False, pad_token_id=0)
            answers.append(
                tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
            )
        assert (answers == [row["answer"] for row in found]) is same


@pytest.mark.slow
def test_what_is_served_is_asked_with_the_tokens_of_the_training(tmp_path: Path) -> None:
    lessons: list[jsonl.Row] = [
        {
            "id": str(i),
            "messages": [
                *chat,
                {
                    "role": "assistant",
                    "content": json.dumps({"name": f"甲{i}"}, ensure_ascii=False),
                },
            ],
        }
        for i, chat in enumerate(CHATS)
    ]
    assert list(parity.other_tokens(BASE, "main", Path(BASE), lessons)) == []
    other = tmp_path / "other"
    other.mkdir()
    for path in Path(BASE).iterdir():
        if path.suffix == ".json":
            (other / path.name).write_bytes(path.read_bytes())
    template = (Path(BASE) / "chat_template.jinja").read_text(encoding="utf-8")
    (other / "chat_template.jinja").write_text(
        template.replace("assistant\n", "assistant\n\n"), encoding="utf-8"
    )
    assert list(parity.other_tokens(BASE, "main", other, lessons)) == ["0", "1", "2"]
    qwen = str(qwen3(tmp_path / "qwen3"))
    assert list(parity.other_tokens(qwen, "main", Path(qwen), lessons)) == []
    # A thought is asked for by another prompt: what is served is asked not to think
    for lesson in lessons[1:]:
        lesson["messages"][-1]["content"] = "<think>\n甲\n</think>\n\n{}"
    assert list(parity.other_tokens(qwen, "main", Path(qwen), lessons)) == ["1", "2"]
