from .agreement import Agreement as Agreement, agreement as agreement
from .conditions import (
    ONE_IMAGE as ONE_IMAGE,
    distances_reason as distances_reason,
    energies_reason as energies_reason,
    energy_count as energy_count,
    energy_details as energy_details,
    labels_reason as labels_reason,
    means_reason as means_reason,
    single_reason as single_reason,
    unsure_reason as unsure_reason,
)
from .counter import balanced_order as balanced_order, derive_seed as derive_seed, random_order_keys as random_order_keys
from .curvature import Flatness as Flatness, sampled_flatness as sampled_flatness
from .delta import (
    ClassStatistics as ClassStatistics,
    class_complexities as class_complexities,
    class_statistics as class_statistics,
    delta_method as delta_method,
)
from .episodes import EpisodeInfluence as EpisodeInfluence
from .estimate import NORMAL_95 as NORMAL_95, Estimate as Estimate, missing as missing, normal_estimate as normal_estimate
from .evidence import Evidence as Evidence, HeldOut as HeldOut, LogitEnergies as LogitEnergies
from .halves import LEAST_SHARE as LEAST_SHARE, image_variance as image_variance
from .hull import hull_weights as hull_weights
from .influence import centred_influence as centred_influence
from .interval import positive_estimate as positive_estimate, student_95 as student_95
from .jacobian import (
    ESTIMATORS as ESTIMATORS,
    Estimator as Estimator,
    batch_energies as batch_energies,
    copies_per_image as copies_per_image,
    never_alone as never_alone,
    vectors_per_image as vectors_per_image,
)
from .maximum import positive_maximum as positive_maximum
from .mixture import SingularCovarianceError as SingularCovarianceError, mixture_probabilities as mixture_probabilities
from .moments import ClassMoments as ClassMoments
from .nearest_mean import nearest_mean_share as nearest_mean_share
from .pairs import (
    along_pairs as along_pairs,
    debiased as debiased,
    mean_over_pairs as mean_over_pairs,
    squared_distances as squared_distances,
)
from .proportion import balanced_proportion as balanced_proportion, with_influence as with_influence
from .reciprocals import reciprocal as reciprocal, reciprocal_cube as reciprocal_cube, reciprocal_square as reciprocal_square
from .rows import Rows as Rows, chunks as chunks, equal_rows as equal_rows
from .simplex import centred_means as centred_means, simplex_error as simplex_error, simplex_estimate as simplex_estimate
from .spectrum import Spectrum as Spectrum, triangle as triangle
from .stopping import look_counts as look_counts, relative_error as relative_error
from .subset import (
    balanced_subset as balanced_subset,
    single_image_reason as single_image_reason,
    subset_accuracy as subset_accuracy,
)
from .summary import ClassSummary as ClassSummary, summarise_classes as summarise_classes
from .tails import describe_tail as describe_tail, tail_reason as tail_reason
