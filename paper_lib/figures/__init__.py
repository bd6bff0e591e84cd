"""Tables to pictures: what a notebook opens, what draws each panel, one look, and how a figure is saved."""

# fmt: off
# ruff: noqa: F401, I001
from paper_lib.figures.gates import draw_curvature, draw_kl_and_norm, draw_prediction, draw_principal_energy
from paper_lib.figures.gates import draw_tolerances
from paper_lib.figures.pairs import draw_cosines, draw_jaccard, draw_rotated, draw_shared
from paper_lib.figures.panels import by_label, draw_beside, draw_chance, draw_points, draw_ratios
from paper_lib.figures.panels import draw_trajectory, new_figure, plain_log
from paper_lib.figures.projected import accuracy_change, draw_accuracy, draw_change, draw_losses
from paper_lib.figures.projected import draw_share_inside, scores
from paper_lib.figures.results import by_size, open_results
from paper_lib.figures.rotation import DEGREES, animate_paths, draw_angles, draw_explained_variance
from paper_lib.figures.rotation import draw_layers, draw_paths
from paper_lib.figures.save import save_figure
from paper_lib.figures.seeds import draw_legend
from paper_lib.figures.styles import ORANGE, PURPLE, in_order, run_style, use_style
from paper_lib.figures.weights import draw_density, draw_journey, draw_overlap, draw_paper
from paper_lib.figures.weights import draw_plane, draw_reach_curve, line_spread, mask_of
from paper_lib.summaries import ANGLE_MEAN, ATTENTION, MLP, MODULE_GROUPS, at_end, distance, seed_spread
from paper_lib.summaries import t_interval
