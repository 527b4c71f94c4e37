"""Configs: YAML files and `--set` overrides in, one checked and resolved `Config` out."""

from utils.config.config import Config, load_config

__all__ = ["Config", "load_config"]
