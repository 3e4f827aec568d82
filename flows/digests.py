"""What was a result made of? One hash: where it has not changed, nothing is made again."""

import hashlib
import json


def digest(value: object) -> str:
    """Hex sha256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
