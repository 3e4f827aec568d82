"""How does the small LM spell? Byte-level BPE, with one token for each word and each standing phrase of its world.

Prompts are mostly instructions. A phrase that every prompt shares is one token here, so a prompt is little more than
its facts and a small model learns in minutes. Any other text is spelled in pieces, down to single bytes.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ("<|end|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>")
_OTHER = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s"


def build(whole: Iterable[str], corpus: Iterable[str], *, size: int, max_length: int) -> Any:
    """A fast tokenizer with the chat template, in which each of `whole` is one token.

    `corpus` teaches the pieces of other text, `size` of them (256 are the bytes); `max_length` is the model's, in
    tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    known = sorted({one for one in whole if one}, key=lambda one: (-len(one), one))
    pattern = Regex("|".join([*map(_escape, known), _OTHER]))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), bytes_of])

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = split
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(corpus, trainer)
    model = json.loads(pieces.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    for one in known:
        vocab.setdefault("".join(piece for piece, _ in bytes_of.pre_tokenize_str(one)), len(vocab))

    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=list(SPECIAL[2:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _escape(text: str) -> str:
    return re.sub(r"([^\w\s])", r"\\\1", text)
