from .agreement import Agreement as Agreement
from .agreement import agreement as agreement
from .conditions import (
    ONE_IMAGE as ONE_IMAGE,
)
from .conditions import (
    energies_reason as energies_reason,
)
from .conditions import (
    energy_count as energy_count,
)
from .conditions import (
    labels_reason as labels_reason,
)
from .conditions import (
    means_reason as means_reason,
)
from .counter import balanced_order as balanced_order
from .counter import derive_seed as derive_seed
from .counter import random_order_keys as random_order_keys
from .delta import (
    ClassStatistics as ClassStatistics,
)
from .delta import (
    Statistic as Statistic,
)
from .delta import (
    class_complexities as class_complexities,
)
from .delta import (
    delta_method as delta_method,
)
from .estimate import NORMAL_95 as NORMAL_95
from .estimate import Estimate as Estimate
from .estimate import missing as missing
from .estimate import normal_estimate as normal_estimate
from .evidence import Evidence as Evidence
from .influence import centred_influence as centred_influence
from .jacobian import (
    ESTIMATORS as ESTIMATORS,
)
from .jacobian import (
    Estimator as Estimator,
)
from .jacobian import (
    batch_energies as batch_energies,
)
from .jacobian import (
    copies_per_image as copies_per_image,
)
from .jacobian import (
    vectors_per_image as vectors_per_image,
)
from .mixture import SingularCovarianceError as SingularCovarianceError
from .mixture import mixture_probabilities as mixture_probabilities
from .moments import ClassMoments as ClassMoments
from .proportion import balanced_proportion as balanced_proportion
from .rows import Rows as Rows
from .rows import chunks as chunks
from .simplex import centred_means as centred_means
from .simplex import simplex_error as simplex_error
from .simplex import simplex_estimate as simplex_estimate
from .spectrum import Spectrum as Spectrum
from .spectrum import triangle as triangle
from .stopping import look_counts as look_counts
from .stopping import relative_error as relative_error
from .subset import (
    balanced_subset as balanced_subset,
)
from .subset import (
    single_image_reason as single_image_reason,
)
from .subset import (
    subset_accuracy as subset_accuracy,
)
