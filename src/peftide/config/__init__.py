"""The settings of every command, their checks, and their way from and to TOML."""

from peftide.config.checks import check_settings
from peftide.config.commands import (
    CostSettings,
    DataSettings,
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    LongProteins,
    MachineSettings,
    Matrix,
    Method,
    PlanSettings,
    PredictSettings,
    Settings,
    TableSettings,
    TrainSettings,
)
from peftide.config.files import load_settings, nearest, to_toml
from peftide.config.setting import Setting, settings_of
from peftide.config.sizes import gibibytes, parse_size

__all__ = [
    "CostSettings",
    "DataSettings",
    "DemoSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "LongProteins",
    "MachineSettings",
    "Matrix",
    "Method",
    "PlanSettings",
    "PredictSettings",
    "Setting",
    "Settings",
    "TableSettings",
    "TrainSettings",
    "check_settings",
    "gibibytes",
    "load_settings",
    "nearest",
    "parse_size",
    "settings_of",
    "to_toml",
]
