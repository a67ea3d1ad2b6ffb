"""The configuration of a study: one pipeline, run several times with changes and seeds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from tsp_core.config.base import Section

INITIAL = "initial"
"""Name of the run that trains the encoder that every variant starts from."""

VariantName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=40)
]
Changes = dict[str, dict[str, Any]]
"""Keys that replace those of the file, by section, as in `{pretrain: {heads: tac}}`."""

Seed = Annotated[int, Field(ge=0)]


class StudyConfig(Section):
    """A comparison: what differs between its variants, and the seeds that each is run with.

    Every variant is a run of the whole pipeline with the rest of the file as it is; what two runs
    have in common is done once. Without variants there is no study.
    """

    variants: dict[VariantName, Changes] = Field(
        {},
        description="What each variant changes, by its name: `tac: {pretrain: {heads: tac}}`.",
    )
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2),
        description="Each variant is run once with each of them as `pretrain.seed` and "
        "`evaluate.seed`; their spread says how much of a difference is chance.",
    )
    baseline: str | None = Field(
        None, description="The variant that the others are compared with. Default: the first."
    )
    initial: Changes | None = Field(
        None,
        description="A training that is run first, with these changes, and whose encoder is then "
        "`encoder.weights` of every variant: for data to which no published weights fit.",
    )

    @property
    def compared_with(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.variants))

    @model_validator(mode="after")
    def _is_whole(self) -> StudyConfig:
        if self.baseline is not None and self.baseline not in self.variants:
            raise ValueError(
                f"baseline {self.baseline!r} is not one of the variants "
                f"({', '.join(self.variants) or 'there are none'}); name one of them"
            )
        if INITIAL in self.variants:
            raise ValueError(f"a variant cannot be called {INITIAL!r}; give it another name")
        if any("study" in changes for changes in (self.initial or {}, *self.variants.values())):
            raise ValueError("a study cannot be changed by its own variants; leave 'study' out")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds {list(self.seeds)}: give at least one, and each once")
        return self
