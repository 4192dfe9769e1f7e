from .observe import Observation as Observation, PassSettings as PassSettings, observe as observe
from .runner import Runner as Runner, RunSettings as RunSettings, resolve_device as resolve_device
