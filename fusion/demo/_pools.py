"""The pools that come with the package: small models that the project trained from scratch on the task micro."""

from pathlib import Path

from fusion.errors import UnknownName

POOLS = {
    "micro": "eight members of five architectures that fail on different questions",
    "nested": "the best of them and weaker ones that fail where it fails: nothing is to be gained",
}
"""Names of the pools, and what each is for."""


def pool_file(name: str) -> Path:
    """Return the file of a pool that comes with the package.

    Args:
        name: One of `POOLS`.

    Raises:
        UnknownName: When there is none of that name.
    """
    if name not in POOLS:
        raise UnknownName(kind="pool", name=name, known=tuple(POOLS))
    return Path(__file__).with_name("pools") / f"{name}.yaml"
