"""Which errors may reach a person? The whole tree, drawn once.

NightshiftError            anything nightshift says on purpose; the command line prints it without a traceback
 ├─ ConfigError            the run's TOML or an option is wrong, or names something that does not exist
 ├─ DataError              an input file or table is not what it should be; names the file and the row
 ├─ StoreError             the store on disk is damaged, locked, full, or mixes what must not be mixed
 └─ GenerationError        an engine or encoder could not do its work

A message says what was wrong, with the value, and what is allowed. `ValueError` is for a programmer's misuse of a
function, `assert` for invariants only.
"""


class NightshiftError(Exception):
    """Anything nightshift says on purpose."""


class ConfigError(NightshiftError):
    """The run's configuration is wrong, or names something that does not exist."""


class DataError(NightshiftError):
    """An input file or table is not what it should be."""


class StoreError(NightshiftError):
    """The store on disk is damaged, locked, full, or would mix what must not be mixed."""


class GenerationError(NightshiftError):
    """An engine or an encoder could not do its work."""
