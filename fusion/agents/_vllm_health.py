"""Whether a server of ours is well, and serves what it was told to."""

import http.client
import json
from collections.abc import Mapping

from fusion.agents._vllm_command import BASE
from fusion.errors import EngineError


class NotOursError(EngineError):
    """Another program has the port."""


def is_healthy(port: int) -> bool:
    """Return whether the server on a port of this machine says that it is well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check_served(port: int, key: str, names: Mapping[str, str], model: str) -> int | None:
    """Return the server's context.

    Raises:
        EngineError: When it does not list the model and every adapter.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        # Another server that took the port meanwhile does not know the key, and gives itself away by not missing it.
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer none"})
        refused = connection.getresponse()
        refused.read()
        if refused.status != 401:
            raise ValueError(f"it answers {refused.status} without the key")
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
        listed = json.loads(connection.getresponse().read())["data"]
        contexts = {entry["id"]: entry.get("max_model_len") for entry in listed}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise NotOursError(f"what answers on port {port} is not the vLLM server of {model!r} ({error})") from error
    finally:
        connection.close()
    absent = [source or model for source, name in names.items() if name not in contexts]
    if absent:
        raise EngineError(f"the vLLM server of {model!r} does not serve {', '.join(absent)}; see its log")
    context = contexts[BASE]
    return context if isinstance(context, int) else None
