from .agreement import Agreement as Agreement, agreement as agreement
from .conditions import (
    ONE_IMAGE as ONE_IMAGE,
    energies_reason as energies_reason,
    energy_count as energy_count,
    labels_reason as labels_reason,
    means_reason as means_reason,
)
from .counter import balanced_order as balanced_order, derive_seed as derive_seed, random_order_keys as random_order_keys
from .delta import (
    ClassStatistics as ClassStatistics,
    Statistic as Statistic,
    class_complexities as class_complexities,
    delta_method as delta_method,
)
from .estimate import NORMAL_95 as NORMAL_95, Estimate as Estimate, missing as missing, normal_estimate as normal_estimate
from .evidence import Evidence as Evidence
from .influence import centred_influence as centred_influence
from .jacobian import (
    ESTIMATORS as ESTIMATORS,
    Estimator as Estimator,
    batch_energies as batch_energies,
    copies_per_image as copies_per_image,
    never_alone as never_alone,
    vectors_per_image as vectors_per_image,
)
from .mixture import SingularCovarianceError as SingularCovarianceError, mixture_probabilities as mixture_probabilities
from .moments import ClassMoments as ClassMoments
from .proportion import balanced_proportion as balanced_proportion
from .rows import Rows as Rows, chunks as chunks
from .simplex import centred_means as centred_means, simplex_error as simplex_error, simplex_estimate as simplex_estimate
from .spectrum import Spectrum as Spectrum, triangle as triangle
from .stopping import look_counts as look_counts, relative_error as relative_error
from .subset import (
    balanced_subset as balanced_subset,
    single_image_reason as single_image_reason,
    subset_accuracy as subset_accuracy,
)
