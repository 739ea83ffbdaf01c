"""One YAML file = one whole run: the schema, its defaults, and reading it."""

from pipeline.config.read import digest_of, read_config
from pipeline.config.schema import RunConfig

__all__ = ["RunConfig", "digest_of", "read_config"]
