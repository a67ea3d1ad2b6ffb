"""How the features change in time: across boundaries, between action and background, as a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsp_core.evaluation.blocks import Block, Chart, Charts, Facts, Section, Text
from tsp_core.evaluation.charts.matrices import similarity_chart
from tsp_core.evaluation.charts.plots import Series, line_chart, scatter_chart
from tsp_core.evaluation.charts.svg import NUM_COLOURS, colour
from tsp_core.evaluation.localizers.sequences import ACTION
from tsp_core.evaluation.sections.colours import class_colours
from tsp_core.evaluation.sensitivity import BoundarySimilarity, FeatureMap, Sensitivity
from tsp_core.evaluation.stories import Stories

_MAX_MATRICES = 4


def sensitivity_section(
    sensitivity: Sensitivity, stories: Stories | None, *, classes: Sequence[str]
) -> Section:
    """Describe the sensitivity to time.

    Args:
        sensitivity: The figures.
        stories: Videos to show the similarity of all pairs of rows of; None for none.
        classes: Names in index order.
    """
    blocks: list[Block] = [
        Text(
            text="Features that are sensitive to time differ on both sides of a boundary more than "
            "within an action or a piece of background, at the same distance in time. Cosines are "
            "of standardised features."
        ),
        Facts(facts=_facts(sensitivity)),
        Charts(
            charts=(
                _similarity(sensitivity.similarity),
                _map(sensitivity.map, classes),
            )
        ),
    ]
    if stories is not None:
        chosen = stories.videos[: _MAX_MATRICES // 2] + stories.videos[-(_MAX_MATRICES // 2) :]
        colours = class_colours(stories, len(classes))
        matrices = tuple(
            similarity_chart(
                story.sequence,
                story.actions,
                classes,
                colours=colours,
                file=f"self_similarity_{number}.svg",
            )
            for number, story in enumerate(dict.fromkeys(chosen), start=1)
        )
        blocks.append(
            Charts(
                title="Similarity over time",
                charts=matrices,
                note="Of the best and the worst localized videos. Orange rows are alike, blue ones "
                "unlike; bars and squares mark the annotated actions.",
            )
        )
    return Section(key="sensitivity", title="Sensitivity to time", blocks=tuple(blocks))


def _facts(sensitivity: Sensitivity) -> tuple[tuple[str, str], ...]:
    def written(value: float | None) -> str:
        return "\N{EN DASH}" if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")

    return (
        (
            "AUC of action against background (Fisher, held-out videos)",
            written(sensitivity.region_auc),
        ),
        ("Silhouette of action and background, from -1 to 1", written(sensitivity.silhouette)),
        ("Contrast at boundaries", written(sensitivity.similarity.contrast)),
        ("Rows", f"{sensitivity.num_rows:,}"),
    )


def _similarity(similarity: BoundarySimilarity) -> Chart:
    lags = similarity.lags_seconds
    return line_chart(
        [
            Series(name="same stretch", x=lags, y=similarity.within, colour=0),
            Series(name="across a boundary", x=lags, y=similarity.across, colour=1),
        ],
        file="boundary_similarity.svg",
        title="Similarity by distance in time",
        description="Mean cosine of pairs of rows in the same stretch, and of pairs with a "
        "boundary between them.",
        x_label="distance in time (s)",
        y_label="mean cosine",
        x_range=(0.0, float(lags[-1]) * 1.03),
    )


def _map(feature_map: FeatureMap, classes: Sequence[str]) -> Chart:
    labels = feature_map.labels
    groups = [("background", "none", labels.regions != ACTION)]
    if len(classes) <= NUM_COLOURS:
        groups += [
            (name, colour(index), labels.label_indices == index)
            for index, name in enumerate(classes)
        ]
    else:  # colours that come twice would tell nothing
        groups.append(("action", colour(0), np.asarray(labels.regions == ACTION)))
    first, second = feature_map.explained
    return scatter_chart(
        feature_map.points,
        groups,
        file="feature_map.svg",
        title="Map of the features",
        description="Rows in the plane of their two first principal components.",
        x_label=f"component 1 ({100 * first:.0f} % of the variance)",
        y_label=f"component 2 ({100 * second:.0f} %)",
    )
