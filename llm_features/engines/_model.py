"""Which model is it? Where it lies on this machine, and the hash that says what it is wherever it lies."""

import json
from functools import cached_property
from pathlib import Path

from llm_features.weights import folder_hash
from storage.errors import ConfigError


class Model:
    """Where a model lies and what it is. Raises ConfigError where there is none."""

    def __init__(self, model: str, revision: str | None) -> None:
        path = Path(model).expanduser()
        self.where, self.commit, self.name = str(path), None, path.resolve().name
        if not path.is_dir():
            if path.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
                raise ConfigError(f"model {model!r} is not a folder; give a folder or a name on the Hugging Face hub")
            path = _on_the_hub(model, revision)
            self.where, self.commit, self.name = model, path.name, model
        about = path / "config.json"
        if not about.is_file():
            raise ConfigError(f"model folder {model!r} has no config.json; it must be in Hugging Face format")
        self._path = path
        config = json.loads(about.read_text(encoding="utf-8"))
        holds = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
        self.holds = int(holds) if holds else None
        """Tokens the model was made for, where its configuration says."""

    @cached_property
    def revision(self) -> str:
        """The commit on the hub, or a hash of the folder's files: weights, configuration, tokenizer."""
        return self.commit or folder_hash(self._path)


def _on_the_hub(model: str, revision: str | None) -> Path:
    """Folder of the snapshot in the hub's cache, named by its commit. Raises ConfigError."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, "config.json", revision=revision)).parent
    except Exception as error:  # the hub's client raises a dozen kinds, of the network and its own
        raise ConfigError(f"model {model!r} is neither a folder nor found on the Hugging Face hub: {error}") from error
