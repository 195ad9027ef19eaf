"""The only reader of configuration. Each option of ``servable serve`` is one field of ``ServeOptions``.

The flag, the environment variable (``SERVABLE_`` + the name in capitals), the key in ``servable.toml``, the help text
and the validation derive from that field. A flag wins over the environment, that over the file, that over the default.
"""

from servable.settings.flags import add_flags, spell_out
from servable.settings.models import ServedModel, read_model_config_file, together
from servable.settings.options import DEFAULT_LISTEN, option_fields
from servable.settings.reading import ENVIRONMENT_PREFIX, read_settings
from servable.settings.server import ServeSettings
from servable.settings.values import default_text

__all__ = [
    "DEFAULT_LISTEN",
    "ENVIRONMENT_PREFIX",
    "ServeSettings",
    "ServedModel",
    "add_flags",
    "default_text",
    "option_fields",
    "read_model_config_file",
    "read_settings",
    "spell_out",
    "together",
]
