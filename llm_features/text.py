"""How does a title from anywhere become plain, bounded text? The one place where untrusted words are cleaned."""

import re
import unicodedata

TITLE_LIMIT = 200
"""Characters of a title or an attribute's value that a prompt shows at most."""

ELLIPSIS = "…"


class _Kept(dict[int, str]):
    """What each character becomes: itself, a space, or nothing. Filled as characters are met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        # Zs Zl Zp: spaces and line ends. Cc Cf Cs Co: controls; bidi marks and zero-width; surrogates; private use.
        if char.isspace() or category in ("Zs", "Zl", "Zp"):
            kept = " "
        else:
            kept = "" if category in ("Cc", "Cf", "Cs", "Co") else char
        self[code] = kept
        return kept


_KEPT = _Kept()


def clean(text: str, limit: int = TITLE_LIMIT) -> str:
    """`text` on one line of at most `limit` characters, in NFC, without what cannot be seen.

    Line ends and tabs become spaces, runs of spaces one; control characters, bidi marks, zero-width characters,
    private-use characters and lone surrogates go. `$`, braces and control-token literals stay: they are harmless where
    text is not parsed again (`llm_features.tokens`). Text that was cut ends in an ellipsis.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    # A title of megabytes is cut before the slow steps; whatever they remove, enough is left in any honest text.
    text = text[: 16 * limit + 1024]
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", text.translate(_KEPT))
    text = " ".join(text.split())
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + ELLIPSIS
    return text


_LITERALS = re.compile(
    r"<(?=[|｜])"  # <|im_end|>, <|eot_id|>, DeepSeek's full-width bars
    r"|(?<=[|｜])>"
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|think|tool_call|tool_response|tools|start_of_turn|end_of_turn"
    r"|start_of_image|end_of_image|image_soft_token|unused\d+|extra_id_\d+|fim_\w+|function\w*|assistant|user|system)>)"
    r"|<(?=/?<?/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|PREFIX|SUFFIX|MIDDLE"
    r"|gMASK|MASK|CLS|SEP|PAD|UNK|BOS|EOS|THINK)\])",
    re.IGNORECASE,
)


def defang(text: str) -> str:
    """`text` with every known control-token literal visibly broken by a space: "<|im_end|>" becomes "< |im_end| >".

    For engines behind a server that applies the chat template itself, where the tokens cannot be controlled.
    """
    return _LITERALS.sub(lambda m: " >" if m[0] == ">" else f"{m[0]} ", text)
