from .files import bundled_path as bundled_path
