"""What a mixture-of-experts checkpoint is merged from, in mergekit's words."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusion.config import Config

Dtype = Literal["float32", "bfloat16", "float16"]
GateMode = Literal["hidden", "cheap_embed", "random", "zero"]
REFUSE, BASE, AVERAGE = "refuse", "base", "average"


class ExpertSource(Config):
    """One expert: a LoRA adapter of the base model, or a full fine-tune of it."""

    source_model: Annotated[
        str, Field(min_length=1, description="Folder or name on the hub of an adapter (PEFT) or a model.")
    ]
    name: Annotated[str, Field(description="What to call it; by default the last part of source_model.")] = ""
    positive_prompts: Annotated[
        tuple[str, ...], Field(description="Prompts that should go to this expert; what gate_mode: hidden learns from.")
    ] = ()
    negative_prompts: Annotated[tuple[str, ...], Field(description="Prompts that should not.")] = ()

    @property
    def called(self) -> str:
        """The expert's name."""
        return self.name or self.source_model.rstrip("/").rpartition("/")[2]


class MoERecipe(Config):
    """A merge of experts that were made from one base model."""

    base_model: Annotated[
        str, Field(min_length=1, description="Folder or name on the hub of the dense model that all experts stem from.")
    ]
    experts: Annotated[tuple[ExpertSource, ...], Field(min_length=1, description="Experts, in their order.")]
    experts_per_token: Annotated[int, Field(ge=1, description="k: how many experts compute each token.")] = 2
    gate_mode: Annotated[
        GateMode,
        Field(
            description="Where the gate begins: hidden states of the experts' prompts, their mean token embeddings, "
            "random numbers, or zero (all experts alike)."
        ),
    ] = "hidden"
    gate_std: Annotated[float, Field(gt=0, description="Standard deviation of a random gate's weights.")] = 0.02
    dtype: Annotated[Dtype | None, Field(description="Of the weights written; by default the base model's.")] = None
    shared: Annotated[
        str,
        Field(
            description="What to do where experts differ outside of the feed-forward blocks (attention, norms, "
            "embeddings): refuse, take the base's weights, average the experts', or take those of the expert named."
        ),
    ] = REFUSE
    seed: Annotated[int, Field(ge=0, description="Of a random gate.")] = 0

    @model_validator(mode="after")
    def _checked(self) -> "MoERecipe":
        names = [expert.called for expert in self.experts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"experts need names of their own; {', '.join(twice)} is given twice (set name:)")
        if self.experts_per_token > len(self.experts):
            raise ValueError(
                f"experts_per_token is {self.experts_per_token}, and there are {len(self.experts)} experts"
            )
        if self.shared not in (REFUSE, BASE, AVERAGE, *names):
            raise ValueError(f"shared is refuse, base, average or one of {', '.join(names)}; got {self.shared!r}")
        if self.gate_mode in ("hidden", "cheap_embed"):
            without = [expert.called for expert in self.experts if not expert.positive_prompts]
            if without:
                raise ValueError(
                    f"gate_mode {self.gate_mode} begins with prompts, and {', '.join(without)} has none: "
                    "give some, or set gate_mode: random or zero and train the gate (fusion tune)"
                )
        return self
