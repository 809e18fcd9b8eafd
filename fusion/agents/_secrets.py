"""Secrets stay out of files, and environment variables come in by name."""

import os
import re
from collections.abc import Iterator, Mapping

from fusion.errors import ConfigError

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_KEY = re.compile(
    r"(^|_)(api_?key|access_key|secret_key|private_key|secret|password|passwd|passphrase|credentials?|authorization"
    r"|bearer|cookie)$|^((hf|api|auth|access|bearer|refresh|session|id|github|hub)_)?token$"
)
_SECRET_WORDS = frozenset({"KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS"})
_SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9_-])(sk|pk|rk)-[A-Za-z0-9_-]{8,}"  # OpenAI and those that took over its form
    r"|(?<![A-Za-z0-9_])(hf|gsk|xai|nvapi|r8|fw|csk)[_-][A-Za-z0-9_-]{20,}"  # hubs and hosts of models
    r"|(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{10,}"
    r"|(?<![A-Za-z0-9_])(gh[pousr]|github_pat)_[A-Za-z0-9_]{16,}"
    r"|(?<![A-Za-z0-9_])(AKIA|ASIA)[A-Z0-9]{12,}|AIza[A-Za-z0-9_-]{20,}"
    r"|(?<![A-Za-z0-9_])eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"  # JSON web tokens
    r"|[Bb]earer\s+[A-Za-z0-9_.-]{12,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^/@\s:]*:[^/@\s]+@"  # a password in an address
)
_REMEDY = "put it in an environment variable and give the engine that variable's name: api_key_env: NAME"


def refuse_secrets(content: object, source: str) -> None:
    """Check that nothing in `content` is a secret, or looks like one.

    Args:
        content: Keys and values of a file.
        source: Where they came from, for messages; values are never part of these.

    Raises:
        ConfigError: When something is.
    """
    found = list(_secrets(content, ""))
    if found:
        raise ConfigError(
            f"{source}: {'; '.join(found)}. Secrets do not belong in a file, and would be copied to every record: "
            f"{_REMEDY}"
        )


def interpolated(content: Mapping[str, object], source: str) -> dict[str, object]:
    """Return `content` with environment variables in place of `${NAME}` in texts; keys stay as they are.

    `$${NAME}` stands for the text `${NAME}` itself.

    Raises:
        ConfigError: When a variable is not set, or has the name of a secret.
    """
    problems: list[str] = []
    filled = _filled(content, "", problems)
    if problems:
        raise ConfigError(f"{source}: {'; '.join(problems)}")
    assert isinstance(filled, dict), "a mapping stays a mapping"
    return filled


def _secrets(value: object, place: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            here = f"{place}.{key}" if place else str(key)
            # userPassword, user-password and user_password are one name.
            name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)).lower().replace("-", "_").replace(" ", "_")
            if _SECRET_VALUE.search(str(key)):
                yield f"a key in {place or 'the file'} looks like a secret"
            elif _SECRET_KEY.search(name) and isinstance(item, str | int | float):
                yield f"{here} holds a secret"
            elif name.endswith("_env") and isinstance(item, str) and not re.fullmatch(r"[A-Za-z_]\w*", item):
                yield f"{here} must be the name of an environment variable such as OPENAI_API_KEY, and is none"
            else:
                yield from _secrets(item, here)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _secrets(item, f"{place}.{i}")
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        yield f"{place} looks like a secret"


def _filled(value: object, place: str, problems: list[str]) -> object:
    if isinstance(value, Mapping):
        return {key: _filled(item, f"{place}.{key}" if place else str(key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, f"{place}.{i}", problems) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for escape, name in _VARIABLE.findall(value):
        if escape:
            continue
        if _SECRET_WORDS & set(name.upper().split("_")):
            problems.append(f"{place}: ${{{name}}} is a secret by its name, which must not get into records; {_REMEDY}")
        elif name not in os.environ:
            problems.append(f"{place}: the environment variable {name} is not set; set it, or write the value itself")
    return _VARIABLE.sub(lambda match: match[0][1:] if match[1] else os.environ.get(match[2], ""), value)
