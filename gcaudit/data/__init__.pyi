from .batches import DIGEST_BYTES as DIGEST_BYTES, Batch as Batch, Transform as Transform, stream_batches as stream_batches
from .fingerprint import content_key as content_key, fingerprint as fingerprint
from .hub import prepare_hub as prepare_hub
from .image_set import ImageSet as ImageSet
from .known_table import KNOWN as KNOWN
from .opening import open_data as open_data
from .overview import Overview as Overview, overview as overview
from .perceptual import PERCEPTUAL_BYTES as PERCEPTUAL_BYTES, near_rows as near_rows
from .pictures import REMARKS as REMARKS, open_picture as open_picture
from .request import DataRequest as DataRequest
