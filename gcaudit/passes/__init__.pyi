from .observe import Observation as Observation
from .observe import PassSettings as PassSettings
from .observe import observe as observe
from .runner import Runner as Runner
from .runner import RunSettings as RunSettings
from .runner import resolve_device as resolve_device
