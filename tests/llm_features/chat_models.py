"""Tiny tokenizers with the chat templates of four families, made on the spot."""

from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm_features.tokens import ChatTokens

CORPUS = [
    "Describe the movie named at the end: genre, director and cast, mood and tone, plot and theme.",
    "Toy Story (1995), Heat (1995), Jumanji (1995): 4 of 5 stars, from the oldest to the newest.",
    "system user assistant model end start turn eot id header im INST SYS think tool call bos eos unk pad < > | [ ] /",
] * 4

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""Shows no system message at all, as the first Mistral template did."""


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _sentencepiece(kind: str, special: list[str]) -> Tokenizer:
    """Spaces as part of words, control tokens in the model's own vocabulary, as in Gemma (BPE) or T5 (Unigram)."""
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *special, *bytes_], show_progress=False)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _chatml() -> PreTrainedTokenizerFast:
    raw = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_tokens(["<think>", "</think>", "<tool_call>", AddedToken("\n\n", normalized=False)])  # not special
    made.chat_template = CHATML
    return made


def _llama3() -> PreTrainedTokenizerFast:
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    made = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(names), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    made.chat_template = LLAMA3
    return made


def _gemma() -> PreTrainedTokenizerFast:
    names = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    made = PreTrainedTokenizerFast(
        tokenizer_object=_sentencepiece("bpe", names), bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    made.chat_template = GEMMA
    return made


def _mistral(kind: str = "bpe") -> PreTrainedTokenizerFast:
    names = ["<s>", "</s>", "[INST]", "[/INST]"]
    made = PreTrainedTokenizerFast(
        tokenizer_object=_sentencepiece(kind, names), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = MISTRAL
    return made


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "chatml": _chatml,
    "llama3": _llama3,
    "gemma": _gemma,
    "mistral": _mistral,
    "mistral_unigram": lambda: _mistral("unigram"),
}


@cache
def chat_tokens(family: str) -> ChatTokens:
    """Counts and encodes for one of `FAMILIES`."""
    return ChatTokens(tokenizer(family))


@cache
def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of one of `FAMILIES`."""
    return FAMILIES[family]()
