"""What does a request cost with stored text, without, and where an LLM is asked? `nightshift study latency`."""
