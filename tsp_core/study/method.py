"""How the runs of a study were made: encoder, start, budget, selection."""

from __future__ import annotations

from tsp_core.config import Config
from tsp_core.evaluation.blocks import Column, Facts, Section, Table, Text
from tsp_core.model.encoders import build_encoder, encoder_spec
from tsp_core.study.results import StudyResult, VariantResult

_HEADS = {
    "tac": "action classification alone (TAC)",
    "region": "region classification alone",
    "tsp": "both heads (TSP)",
}


def method_section(result: StudyResult) -> Section:
    """Say what a reader needs to judge the comparison."""
    settings = result.metrics["settings"]
    detector = settings.get("detector") or {}
    facts = [
        ("Encoder", f"{result.config.encoder.name}: {_encoder_text(result.config)}"),
        ("Clip", _clip_text(result.config)),
    ]
    if "training" in settings:  # absent where nothing was exported that can be read
        subset, evaluation = result.metrics["subset"], settings["evaluation"]
        videos = f"{evaluation['videos']:,} videos of the subset {subset}"
        facts += [
            ("Probes and detector, trained on", f"{settings['training']['videos_used']:,} videos"),
            ("Figures from", f"{videos}, {evaluation['actions']:,} actions"),
            ("Protocol", f"{settings['protocol']}"),
        ]
    if detector:
        facts.append(("Detector", ", ".join(f"{key} {value}" for key, value in detector.items())))
    return Section(
        key="method",
        title="How it was made",
        blocks=(Text(text=start_text(result)), Facts(facts=tuple(facts)), _budget(result), _CARE),
    )


_CARE = Text(
    text="What to bear in mind: of every training the epoch with the best accuracy of its own "
    "heads on the validation clips is published, which favours each variant a little, on the very "
    "videos that the figures are from; a variant without a region head chooses by its action "
    "accuracy alone. The seeds vary what is drawn (clips, order, flips, heads, detector), not the "
    "videos or the initial encoder."
)


def start_text(result: StudyResult) -> str:
    """Say where the encoders of all variants start."""
    weights = result.config.encoder.weights
    drawn = (
        f"weights drawn at random (seed {weights.removeprefix('random:')})"
        if weights.startswith("random:")
        else f"the weights {weights!r}"
    )
    if result.initial is None:
        return f"All variants start from {drawn}."
    pretrain = _initial_config(result).pretrain
    accuracies = ", ".join(
        f"{100 * value:.1f} % ({name.removeprefix('accuracy_')})"
        for name, value in result.initial.items()
        if name.startswith("accuracy_") and name != "accuracy_mean"
    )
    return (
        "All variants start from the same initial encoder: this pipeline trained it from "
        f"{drawn} by {_HEADS[pretrain.heads]} on the subset {pretrain.train_subset}, "
        f"{result.initial['num_steps']:,} steps; validation accuracy {accuracies}. No other data "
        "or weights were used. The global video features are computed with it."
    )


def _initial_config(result: StudyResult) -> Config:
    from tsp_core.study.runs import initial_run

    run = initial_run(result.config)
    assert run is not None
    return run.config


def _encoder_text(config: Config) -> str:
    count = sum(parameter.numel() for parameter in build_encoder(config.encoder.name).parameters())
    spec = encoder_spec(config.encoder.name)
    return f"{spec.description}; {count:,} parameters, features of {spec.feature_size} numbers"


def _clip_text(config: Config) -> str:
    clip = config.clip
    return (
        f"{clip.length} frames at {clip.frame_rate:g} per second ({clip.seconds:.2f} s), "
        f"{clip.crop_size}x{clip.crop_size} pixels; a row of features every "
        f"{config.export.stride / clip.frame_rate:.2f} s"
    )


def _budget(result: StudyResult) -> Table:
    columns = (
        Column(name="Variant"),
        Column(name="Losses"),
        Column(name="GVF"),
        Column(name="Epochs", kind="count"),
        Column(name="Steps", kind="count"),
        Column(name="Clips", kind="count"),
        Column(name="Learning rates (stem, layers, heads)"),
    )
    return Table(
        title="Training budget of each run",
        columns=columns,
        rows=tuple(_budget_row(variant) for variant in result.variants),
        note="Clips: steps times clips per step, rounded up to whole steps.",
    )


def _budget_row(variant: VariantResult) -> tuple[str | int | None, ...]:
    pretrain = variant.config.pretrain
    steps = variant.runs[0].num_steps
    rates = f"{pretrain.stem_lr:g}, {pretrain.layers_lr:g}, {pretrain.heads_lr:g}"
    return (
        variant.name,
        variant.losses,
        variant.pooling,
        pretrain.epochs,
        steps,
        None if steps is None else steps * pretrain.clips_per_step,
        rates,
    )
