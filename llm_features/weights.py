"""Is it the same model? A hash of what a model's folder holds, wherever the folder lies."""

import hashlib
from pathlib import Path

from storage.disk import sha256_file


def folder_hash(folder: Path) -> str:
    """Hex sha256 over the names and bytes of all files, but for hidden ones and those that only describe (*.md)."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and path.suffix != ".md" and not any(part.startswith(".") for part in inside.parts):
            digest.update(f"{inside.as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()
