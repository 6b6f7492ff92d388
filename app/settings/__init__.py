"""The settings: read once from the environment and `.env`, checked, and frozen.

`settings` is the table of all settings, `field_types` parses and checks single values, `loading` reads them and checks them together,
`unknown_names` finds misspelt names, `in_use` holds the settings of a running server over a reload.
"""

from app.settings.loading import load_settings, misspelt_names, read_app_env, refuse_workers_without_redis
from app.settings.settings import Settings, SettingsError

__all__ = ["Settings", "SettingsError", "load_settings", "misspelt_names", "read_app_env", "refuse_workers_without_redis"]
