"""The settings of the response cache."""

from typing import Annotated, Literal

from pydantic import Field

from faregate.config.section import Section
from faregate.config.values import Duration, Flag, Secret, Size, Whole
from faregate.core.caching.policy import SHARES, WORDS


class Cache(Section):
    """Answers that are given again to the same call."""

    enabled: Flag = Field(default=True, description="false: no answer is ever kept, whoever asks for it")
    default: Literal[WORDS] = Field(  # type: ignore[valid-type]
        default="off", description="for calls whose stage, project, key and request say nothing"
    )
    ttl: Duration = Field(default=86_400_000, description="how long an answer is kept", ge=1_000, le=31 * 86_400_000)
    share: Literal[SHARES] = Field(  # type: ignore[valid-type]
        default="project", description="whose calls may get an answer, within one organization and stage"
    )
    deterministic_only: Flag = Field(
        default=False, description="keep nothing that was generated at a temperature above 0, or at an unknown one"
    )
    single_flight: Flag = Field(
        default=False, description="of the same calls at once only the first is sent, the others wait for its answer"
    )
    answer_bytes_max: Size = Field(
        default=1024**2, description="bytes of an answer beyond which it is not kept", ge=1024, le=1024**2
    )
    charge: Annotated[Whole, Field(ge=0, le=100)] = Field(
        default=0, description="what a hit is charged, in percent of what its call would be charged"
    )
    without_credit: Flag = Field(
        default=True, description="give hits to callers whose budget or credit would not let the call through"
    )
    store: Literal["embedded", "redis"] = Field(
        default="embedded", description="embedded: in memory and a file of this gateway; redis: shared, Redis or Valkey"
    )
    memory_bytes_max: Size = Field(
        default=64 * 1024**2, description="bytes kept in memory (embedded)", ge=1024**2, le=16 * 1024**3
    )
    disk: Flag = Field(default=True, description="keep answers on disk, too, so that they outlive a restart (embedded)")
    disk_bytes_max: Size = Field(default=1024**3, description="bytes kept on disk (embedded)", ge=1024**2, le=1024**4)
    url: Secret | None = Field(
        default=None, description="of the server (redis): redis://, rediss:// or unix://, as ${NAME} or file:PATH"
    )
    timeout: Duration = Field(
        default=50, description="how long a call waits for the server (redis) before it goes on without", ge=1, le=5_000
    )
