"""The smallest run, for commands: --config=tests/e2e/smallest_config.py."""

from tests.smallest import smallest as get_config

__all__ = ["get_config"]
