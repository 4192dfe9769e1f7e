from .architectures import published_names as published_names
from .encoder import Encoder as Encoder
from .folding import fold_batch_norms as fold_batch_norms
from .layers import Layer as Layer, list_layers as list_layers
from .lipschitz import lipschitz_bound as lipschitz_bound
from .loading import load_encoder as load_encoder
from .nodes import named_tap as named_tap
from .preprocessing import Preprocessing as Preprocessing, picture_transform as picture_transform
from .request import ModelRequest as ModelRequest
from .taps import (
    LOGITS as LOGITS,
    Tap as Tap,
    classifier_tap as classifier_tap,
    dry_input as dry_input,
    head_modules as head_modules,
    main_output as main_output,
    pre_logits_tap as pre_logits_tap,
)
