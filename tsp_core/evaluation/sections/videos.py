"""The videos that were localized best and worst, as timelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tsp_core.evaluation.blocks import Block, Chart, Charts, Section, Text
from tsp_core.evaluation.charts.timeline import timeline_chart
from tsp_core.evaluation.sections.colours import OTHERS, class_colours
from tsp_core.evaluation.stories import SHOWN_TIOU, Stories, VideoStory


def videos_section(
    stories: Stories,
    *,
    classes: Sequence[str],
    thumbnails: Mapping[str, Sequence[bytes]],
    localizer: str,
    actionness_from: str | None,
) -> Section:
    """Describe the best and the worst videos.

    Args:
        stories: The videos.
        classes: Names in index order.
        thumbnails: Frames as JPEG by video; none where a video could not be read.
        localizer: Whose detections are shown, for people.
        actionness_from: "head" or "probe".
    """
    source = {"head": "the region head", "probe": "the linear region probe"}
    curve = f"The curve is the actionness by {source[actionness_from]}. " if actionness_from else ""
    blocks: list[Block] = [
        Text(
            text=f"Detections of: {localizer}, with a score of {stories.min_score:.2f} or more, "
            f"where the F1 of the whole subset is highest ({100 * stories.best_f1:.0f} % at tIoU "
            f"{SHOWN_TIOU:g}). Filled ones match an annotated action, outlined ones do not. {curve}"
            "Hold the pointer on a bar for its times."
        ),
        Text(
            text="Annotated videos are ranked by the F1 of these detections, averaged over the "
            "thresholds of the protocol; detections of every class count, so that a false one of a "
            "class that the video does not have lowers it too."
        ),
    ]
    if any(not thumbnails.get(story.sequence.video) for story in stories.videos):
        blocks.append(Text(text="Frames are missing where a video's file was not there any more."))
    colours = class_colours(stories, len(classes))
    keys = [(classes[index], own) for index, own in colours.items() if own != OTHERS]
    if len(keys) < len(colours):
        keys.append(("other classes", OTHERS))
    for title, is_best in (("Localized best", True), ("Localized worst", False)):
        chosen = [story for story in stories.videos if story.is_best == is_best]
        if chosen:
            charts = tuple(
                _timeline(
                    story,
                    f"{'best' if is_best else 'worst'}_{number}.svg",
                    classes,
                    colours,
                    thumbnails,
                )
                for number, story in enumerate(chosen, start=1)
            )
            blocks.append(Charts(title=title, charts=charts, keys=tuple(keys)))
    return Section(key="videos", title="Best and worst videos", blocks=tuple(blocks))


def _timeline(
    story: VideoStory,
    file: str,
    classes: Sequence[str],
    colours: Mapping[int, str],
    thumbnails: Mapping[str, Sequence[bytes]],
) -> Chart:
    video = story.sequence.video
    return timeline_chart(
        video=video,
        duration_seconds=story.sequence.duration_seconds,
        actions=story.actions,
        detections=story.detections,
        is_right=story.is_right,
        actionness=story.actionness,
        thumbnails=thumbnails.get(video, ()),
        classes=classes,
        colours=colours,
        file=file,
        title=f"{video}: average F1 {100 * story.average_f1:.0f} %",
    )
