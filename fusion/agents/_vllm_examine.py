"""What would go wrong with asking vLLM servers; none is started."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from fusion.agents._hf_examine import Scales, about_model
from fusion.agents._server_reap import leftovers
from fusion.agents._vllm_command import is_free, require_vllm
from fusion.agents._vllm_run import Runner
from fusion.errors import FusionError
from fusion.schema import Finding, Request

_GIB = 2**30


async def findings(runner: Runner, request: Request) -> AsyncIterator[Finding]:
    """Yield what is wrong with requests like this one."""
    for finding in await asyncio.to_thread(lambda: list(about_model(runner.library, Scales(), request))):
        yield finding
    if runner.attached is None:
        for finding in await asyncio.to_thread(lambda: list(_about_starting(runner, request))):
            yield finding
        return
    try:
        card, adapter = runner.library.card(request), runner.library.adapter(request)
    except FusionError:
        return  # told above
    try:
        line = await runner.attached_line(card, adapter)
    except FusionError as error:
        yield Finding("error", str(error))
        return
    if line.context is not None and card.context is not None and line.context < card.context:
        yield Finding("note", f"the server takes {line.context} of the {card.context} tokens that {card.name!r} can")


def _about_starting(runner: Runner, request: Request) -> Iterator[Finding]:
    settings = runner.settings
    try:
        require_vllm(settings)
    except FusionError as error:
        what, _, remedy = str(error).rpartition("; ")
        yield Finding("error", what, remedy)
    try:
        room = runner.fleet.port_of(runner.library.card(request))
        share = runner.fleet.placement(runner.library.card(request))
        weights = runner.fleet.weights(runner.library.card(request))
    except FusionError:
        return  # told above
    if room is not None and not is_free(room):
        yield Finding("error", f"port {room} is in use", "set the engine's port to a free one, or leave it out")
    room_bytes = share.share.fraction * share.accelerator.total * settings.tensor_parallel_size
    if share.accelerator.devices and weights > room_bytes:
        yield Finding(
            "error",
            f"the weights take {weights / _GIB:.1f} GiB, and the server gets {room_bytes / _GIB:.1f} GiB of "
            f"{share.accelerator.name}",
            "choose schedule: sequential, another dtype, a larger tensor_parallel_size or a smaller model",
        )
    if settings.tensor_parallel_size > max(share.accelerator.devices, 1):
        what = f"tensor_parallel_size is {settings.tensor_parallel_size}, devices there are {share.accelerator.devices}"
        yield Finding("error", what, "lower it, or make more devices visible (devices)")
    for leftover in leftovers():
        what = f"a server was left behind: {leftover.name} (process {leftover.pid}, log {leftover.log})"
        yield Finding("note", what, "it is ended when the next server starts")
