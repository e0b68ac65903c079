"""The settings of every command, their checks, and their way from and to TOML."""

from peftide.config.checks import check_settings
from peftide.config.commands import (
    DataSettings,
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    LongProteins,
    MachineSettings,
    Matrix,
    Method,
    PredictSettings,
    Settings,
    TableSettings,
    TrainSettings,
)
from peftide.config.files import load_settings, nearest, to_toml
from peftide.config.setting import Setting, settings_of

__all__ = [
    "DataSettings",
    "DemoSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "LongProteins",
    "MachineSettings",
    "Matrix",
    "Method",
    "PredictSettings",
    "Setting",
    "Settings",
    "TableSettings",
    "TrainSettings",
    "check_settings",
    "load_settings",
    "nearest",
    "settings_of",
    "to_toml",
]
